"""What a member does with what a leader sends: appends and heartbeats (snapshot pieces: snapshot_traffic.py).

The core's own handling of appends breaks the paper in two ways (S1, S2), so it is shown only appends that fit its log
already, and the answer is ours: it says how far this log is known to equal the leader's, no more. appends.py
decides; this module delivers and answers.
"""

from typing import Any

from pyswarm.manager.raft.appends import Rewind, Suffix, check_append, fit
from pyswarm.manager.raft.codec import Append, AppendReply, BadMessage, Heartbeat, HeartbeatReply, SnapshotPiece
from pyswarm.manager.raft.core import RaftNode, changing_membership
from pyswarm.manager.raft.electing import Electing
from pyswarm.manager.raft.exchange import Exchange
from pyswarm.manager.raft.snapshot_traffic import SnapshotIntake
from pyswarm.proto.errors import Internal


class Following:
    def __init__(self, exchange: Exchange, electing: Electing, intake: SnapshotIntake) -> None:
        self._exchange = exchange
        self._electing = electing
        self._intake = intake

    def hear(self, node: RaftNode, message: Append | Heartbeat | SnapshotPiece) -> None:
        """Follow `node`, which leads in a term not older than ours.

        Raises:
            BadMessage: no leader sends this.
            LogDiverged, Internal: this member must stop.
        """
        exchange = self._exchange
        if isinstance(message, Append):
            check_append(message)
        if message.term == exchange.term and exchange.core.is_leader:
            if node.id not in exchange.nodes:
                # Nobody that this group elected: no reason for its leader to stop.
                raise BadMessage(f"{node.id} is no member here and claims to lead in term {exchange.term}")
            raise Internal(f"two leaders in term {exchange.term}: this member and {node.id}")
        self._electing.leader_heard()
        if isinstance(message, Append) and not self._intake.is_installing:
            self._on_append(node, message)
            return
        exchange.deliver(node, self._sign_of_life(message.term))
        if isinstance(message, Heartbeat):
            exchange.post_term(node.id, HeartbeatReply(exchange.term, message.round))
        elif isinstance(message, SnapshotPiece):
            self._intake.take(node, message)

    def _sign_of_life(self, term: int) -> dict[str, Any]:
        """Without entries the core only learns that there is a leader, and who. The commit index is our own."""
        committed = self._exchange.core.raftCommitIndex
        return {"type": "append_entries", "term": term, "commit_index": committed, "entries": []}

    def _on_append(self, node: RaftNode, message: Append) -> None:
        exchange = self._exchange
        step: Rewind | Suffix = Rewind(1)
        if not self._intake.is_virgin:
            step = fit(message, exchange.journal, committed=exchange.committed, rules=exchange.rules)
        if isinstance(step, Rewind):
            exchange.deliver(node, self._sign_of_life(message.term))
            refusal = AppendReply(exchange.term, message.sequence, step.next_index, is_success=False)
            exchange.promise(node.id, refusal)
            return
        with changing_membership():
            exchange.deliver(node, self._fitted(message, step))
        if exchange.term != message.term or exchange.journal.last_index < step.covered:
            raise Internal(f"the core did not take the append of entries up to {step.covered}")
        exchange.promise(node.id, AppendReply(exchange.term, message.sequence, step.covered + 1, is_success=True))

    def _fitted(self, message: Append, step: Suffix) -> dict[str, Any]:
        """Rule `bound_commit` (S1): what the leader committed beyond what it just showed us may be another entry
        than ours there."""
        commit = min(message.commit, step.covered) if self._exchange.rules.bound_commit else message.commit
        return {
            "type": "append_entries",
            "term": message.term,
            "commit_index": commit,
            "prevLogIdx": step.prev_index,
            "prevLogTerm": step.prev_term,
            "entries": list(step.entries),
        }
