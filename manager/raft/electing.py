"""Elections: asking before standing, voting, being told to take over (when and whose votes count: elections.py).

The core alone stands whenever its time is up and votes for whoever has the longer log. Here it may stand only after a
majority has promised its votes, and does not hear of candidates while a leader works.
"""

from typing import Any

from pyswarm.manager.raft.codec import PreVote, PreVoteRequest, TermNotice, TimeoutNow, Vote, VoteRequest
from pyswarm.manager.raft.core import RaftNode
from pyswarm.manager.raft.elections import Elections
from pyswarm.manager.raft.exchange import Exchange
from pyswarm.manager.raft.membership import majority
from pyswarm.proto.entropy import Entropy


class Electing:
    def __init__(self, exchange: Exchange, entropy: Entropy) -> None:
        self._exchange = exchange
        self._elections = Elections(
            own_id=exchange.own_id,
            election_seconds=exchange.settings.election_seconds,
            heartbeat_seconds=exchange.settings.heartbeat_seconds,
            now=exchange.now,
            uniform=entropy.uniform,
            rules=exchange.rules,
        )

    def leader_heard(self) -> None:
        self._elections.leader_heard(self._exchange.now)
        self._exchange.may_stand = False

    def link_lost(self, raft_id: str) -> None:
        leader = self._exchange.core.believed_leader
        if leader is not None and leader.id == raft_id:
            self._elections.leader_vanished(self._exchange.now)

    def knows_leader(self, now: float) -> bool:
        return self._elections.knows_leader(now)

    # -- standing

    def canvass_if_due(self) -> None:
        """Rule `pre_vote`: ask the others before disturbing them, once this member heard nobody for long enough."""
        exchange = self._exchange
        if not exchange.nodes or not self._elections.is_due(exchange.now) or not exchange.host.is_voter():
            return
        if not exchange.rules.pre_vote:
            self._elections.put_off(exchange.now)
            self._stand()
            return
        term = exchange.term + 1
        exchange.may_stand = False
        self._elections.canvass(term, exchange.now)
        request = PreVoteRequest(term, exchange.journal.last_index, exchange.journal.last_term)
        for raft_id in exchange.nodes:
            exchange.post(raft_id, request)

    def on_pre_vote(self, node: RaftNode, answer: PreVote) -> None:
        needed = majority(len(self._exchange.nodes) + 1)
        if answer.is_granted and self._elections.supported(node.id, answer.term, needed=needed):
            self._stand()

    def _stand(self) -> None:
        """Let the core stand: its own time is up, it only waits for a connection.

        It is not when the leader has vanished: then the core is told to take over, which makes it stand at once.
        """
        leader = self._exchange.core.believed_leader
        if leader is not None and self._elections.doubts_leader:
            self._exchange.deliver(leader, {"type": "timeout_now", "term": self._exchange.term})
        self._exchange.may_stand = True
        self._exchange.show_linked()

    def on_timeout_now(self, node: RaftNode, message: TimeoutNow) -> None:
        """The leader hands over to this member; only the leader can."""
        leader = self._exchange.core.believed_leader
        if leader is None or leader != node or not self._exchange.host.is_voter():
            return
        self._elections.transfer_term = message.term + 1
        self._elections.leader_lost()
        self._exchange.deliver(node, {"type": "timeout_now", "term": message.term})
        self._stand()

    def send_request(self, node: RaftNode, message: dict[str, Any]) -> None:
        """The core stands and asks `node`. A candidacy is a vote for oneself: it waits for the disk."""
        self._exchange.hide_all()
        term = message["term"]
        self._elections.stand(term)
        is_transfer = term == self._elections.transfer_term
        request = VoteRequest(term, message["last_log_index"], message["last_log_term"], is_transfer)
        self._exchange.promise(node.id, request)

    def on_vote(self, node: RaftNode, vote: Vote) -> None:
        """Rule `count_votes_once` (S3)."""
        if self._elections.counts(node.id, vote.term):
            self._exchange.deliver(node, {"type": "response_vote", "term": vote.term})

    # -- voting

    def on_pre_vote_request(self, node: RaftNode, request: PreVoteRequest) -> None:
        exchange = self._exchange
        if request.term <= exchange.term:
            exchange.post(node.id, TermNotice(exchange.term))
            return
        ours = (exchange.journal.last_term, exchange.journal.last_index)
        is_granted = (request.last_term, request.last_index) >= ours and not self._is_led()
        exchange.post(node.id, PreVote(request.term, is_granted))

    def on_vote_request(self, node: RaftNode, request: VoteRequest) -> None:
        """Rule `sticky_leader`: while a leader works, only its own wish to hand over is a reason to vote."""
        if self._is_led() and not request.is_transfer:
            return
        candidacy = {
            "type": "request_vote",
            "term": request.term,
            "last_log_index": request.last_index,
            "last_log_term": request.last_term,
        }
        self._exchange.deliver(node, candidacy)

    def send_vote(self, node: RaftNode, term: int) -> None:
        self._elections.put_off(self._exchange.now)
        self._exchange.promise(node.id, Vote(term))

    def _is_led(self) -> bool:
        """Whether there is a leader that works, as far as this member can tell."""
        exchange = self._exchange
        if not exchange.rules.sticky_leader:
            return False
        if exchange.core.is_leader:
            low, _ = exchange.settings.election_seconds
            return len(exchange.heard_within(low)) >= majority(len(exchange.nodes) + 1)
        return self._elections.is_sticky(exchange.now)
