"""What follows from a message's term, before anything else of it counts (the paper's section 5.1).

The core answers nothing to a message of an older term and ignores the term of an answer, so a deposed leader would
go on for `quorum_lost_seconds` and an answer of an earlier leadership would count in the present one.
"""

from pyswarm.manager.raft.codec import (
    Append,
    AppendReply,
    Heartbeat,
    Message,
    PreVoteRequest,
    SnapshotPiece,
    TermNotice,
    VoteRequest,
)
from pyswarm.manager.raft.core import RaftNode
from pyswarm.manager.raft.exchange import Exchange

FROM_STRANGERS = Append | Heartbeat | SnapshotPiece | VoteRequest | PreVoteRequest
"""What is taken of members this one does not know: a member that lags does not know yet who has joined, so it must
follow and may vote for a member unknown to it. All else from strangers is an answer, and does not count."""


def counts_sender(exchange: Exchange, raft_id: str, message: Message) -> bool:
    """Rules `members_only` and `refuse_removed`: whether anything at all that `raft_id` says matters."""
    if raft_id in exchange.nodes:
        return True
    if exchange.host.was_removed(raft_id):
        return False
    return isinstance(message, FROM_STRANGERS) or not exchange.rules.members_only


def is_outdated(exchange: Exchange, message: Message) -> bool:
    """Rule `match_reply_terms` (S4): a message of an older term, of which only the term matters."""
    is_excused = isinstance(message, AppendReply) and not exchange.rules.match_reply_terms
    return message.term < exchange.term and not is_excused


def answer_old_term(exchange: Exchange, node: RaftNode, message: Message) -> None:
    """Rule `answer_old_terms`: tell who leads or stands in an older term that its time is over."""
    if exchange.rules.answer_old_terms and isinstance(message, FROM_STRANGERS):
        exchange.post(node.id, TermNotice(exchange.term))


def adopt(exchange: Exchange, node: RaftNode, term: int) -> None:
    """Rule `adopt_newer_terms`: make the core enter `term` as a follower, by a candidacy it cannot vote for."""
    if exchange.rules.adopt_newer_terms:
        impossible = {"type": "request_vote", "term": term, "last_log_index": 0, "last_log_term": -1}
        exchange.deliver(node, impossible)
