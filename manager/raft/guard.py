"""Stand between the core and the network, and make the core follow the paper.

PySyncObj decides; this Transport sees every message in and out and repairs, by what it passes on and what it
answers itself, the rules the core lacks. Nothing here reads a clock, a disk or a socket: the engine hands in
messages, the time and the news that the journal is durable. In the order of the code:

    replies carry terms; an older term is told the newer one; a newer term makes a leader step down
    appends are reduced to what is new (appends.py); acknowledgements cover what the leader sent, no more
    acknowledgements and votes wait for the disk (gate.py); the leader's own copy counts only once it is durable
    late answers do not rewind; what is under way to a follower is limited (progress.py)
    snapshots travel in our own stream (install.py); a commit index that comes with no matching append is not used
    elections need a pre-vote; a leader that is heard is not deposed; votes count once (elections.py)
    answers of strangers do not count; commands are never forwarded between members

The core believes a peer "connected" exactly while it may send to it: `_show` and `_hide`.
"""

from collections.abc import Iterable
from typing import Any, Protocol

from pyswarm.manager.raft.appends import Rewind, Suffix, check_append, fit
from pyswarm.manager.raft.codec import (
    Append,
    AppendReply,
    Heartbeat,
    HeartbeatReply,
    Message,
    PreVote,
    PreVoteRequest,
    SnapshotPiece,
    SnapshotReply,
    TermNotice,
    TimeoutNow,
    Vote,
    VoteRequest,
)
from pyswarm.manager.raft.core import FAIL_REASON, LEADER, NOBODY, Core, RaftNode, Transport, changing_membership
from pyswarm.manager.raft.elections import Elections
from pyswarm.manager.raft.gate import DurabilityGate
from pyswarm.manager.raft.install import SnapshotReceiver, SnapshotSender
from pyswarm.manager.raft.journal import Journal
from pyswarm.manager.raft.membership import majority
from pyswarm.manager.raft.port import Member
from pyswarm.manager.raft.progress import Progress
from pyswarm.manager.raft.settings import RaftSettings
from pyswarm.manager.raft.snapshots import SnapshotHeader, SnapshotStore, SnapshotWriter
from pyswarm.proto.entropy import Entropy
from pyswarm.proto.errors import Internal


class Network(Protocol):
    """What the guard needs of the network; the simulator has one in memory."""

    def send(self, raft_id: str, message: Message) -> None:
        """Send, or drop when there is no link; order is kept on a link, nothing else is promised."""

    def add_peer(self, member: Member) -> None: ...

    def drop_peer(self, raft_id: str) -> None: ...


class Host(Protocol):
    """What the guard asks of the engine."""

    def is_voter(self) -> bool:
        """Whether this member is in its own group, as its log has it."""

    def was_removed(self, raft_id: str) -> bool:
        """Whether that member was removed for good: it may not know yet, and is not listened to."""

    def install(self, header: SnapshotHeader, writer: SnapshotWriter) -> None:
        """Sync and restore a received snapshot, off the loop, then call `Guard.installed`."""


_FROM_STRANGERS = Append | Heartbeat | SnapshotPiece | VoteRequest | PreVoteRequest
"""A member that lags does not know yet who has joined: it must follow and may vote for a member unknown to it."""


class Guard(Transport):  # type: ignore[misc]
    def __init__(
        self,
        *,
        own_id: str,
        nodes: Iterable[RaftNode],
        journal: Journal,
        network: Network,
        host: Host,
        snapshots: SnapshotStore,
        settings: RaftSettings,
        now: float,
        entropy: Entropy,
    ) -> None:
        super().__init__(None, None, None)
        self._own_id = own_id
        self._nodes = {node.id: node for node in nodes if node != NOBODY}
        self._journal = journal
        self._network = network
        self._host = host
        self._snapshots = snapshots
        self._settings = settings
        self._rules = rules = settings.rules
        self._entropy = entropy
        self._gate = DurabilityGate(network.send, rules=rules)
        self._elections = Elections(
            own_id=own_id,
            election_seconds=settings.election_seconds,
            now=now,
            uniform=entropy.uniform,
            rules=rules,
        )
        self._receiver = SnapshotReceiver(snapshots, rules=rules)
        self._core: Core = None  # type: ignore[assignment]
        self._now = now
        self._linked: set[str] = set()
        self._shown: set[str] = set()
        self._progress: dict[str, Progress] = {}
        self._may_stand = False
        self._round = 0
        self.is_installing = False
        self.is_virgin = False
        """No snapshot yet: this member must be given one before it can take entries."""

    def attach(self, core: Core) -> None:
        self._core = core

    # -- what the engine asks and says

    @property
    def term(self) -> int:
        return int(self._core.raftCurrentTerm)

    @property
    def committed(self) -> int:
        return int(max(self._core.raftCommitIndex, self._core.raftLastApplied))

    def leader_id(self, now: float) -> str | None:
        """Return the raft id of the leader, as long as it is heard."""
        if self._core.is_leader:
            return self._own_id
        leader = self._core.believed_leader
        return leader.id if leader is not None and self._elections.knows_leader(now) else None

    def heard_within(self, seconds: float, now: float) -> frozenset[str]:
        """Return whom this leader heard within the last `seconds`, itself included."""
        return frozenset({self._own_id, *(id for id, p in self._progress.items() if now - p.heard_at <= seconds)})

    def linked(self) -> frozenset[str]:
        return frozenset(self._linked)

    def tick(self, now: float) -> None:
        """Let time pass: stand for election, keep silent followers awake. To be called before each tick of the core."""
        self._now = now
        if self._core.is_leader:
            for raft_id, progress in self._progress.items():
                if raft_id in self._linked:
                    self._tend(raft_id, progress)
        elif self._nodes and self._elections.is_due(now) and not self.is_installing and self._host.is_voter():
            self._canvass()

    def begin_round(self) -> int:
        """Ask every follower for a sign of life; return the number that `confirmed_round` must reach."""
        self._round += 1
        for raft_id, progress in self._progress.items():
            self._ask(raft_id, progress)
        return self._round

    @property
    def confirmed_round(self) -> int:
        """The last round that a majority has answered: when it was begun, this member was still the leader."""
        answered = sorted((self._round, *(p.round for p in self._progress.values())), reverse=True)
        return answered[majority(len(answered)) - 1]

    def durable(self, now: float) -> None:
        """The journal is durable up to `journal.durable_position`."""
        self._now = now
        self._gate.open_to(self._journal.durable_position)
        if self._core.is_leader:
            for raft_id, progress in list(self._progress.items()):
                self._report_match(raft_id, progress)

    def link_up(self, raft_id: str) -> None:
        self._linked.add(raft_id)
        self._show(raft_id)

    def link_down(self, raft_id: str) -> None:
        self._linked.discard(raft_id)
        self._hide(raft_id)
        if raft_id in self._progress:
            self._progress[raft_id].link_lost()

    def state_changed(self, state: int) -> None:
        """The core became follower, candidate or leader; a leader's first appends follow at once."""
        for progress in self._progress.values():
            progress.link_lost()
        self._progress.clear()
        self._may_stand = False
        for raft_id in list(self._shown):
            self._hide(raft_id)
        if state == LEADER:
            self._progress = {raft_id: Progress(self._now, rules=self._rules) for raft_id in self._nodes}
            for raft_id in self._linked:
                self._show(raft_id)

    # -- Transport: what the core does

    @property
    def ready(self) -> bool:
        return True

    def addNode(self, node: RaftNode) -> None:
        self._nodes[node.id] = node
        self._network.add_peer(node.member)
        if self._core.is_leader:
            self._progress[node.id] = Progress(self._now, rules=self._rules)
        self._show(node.id)

    def dropNode(self, node: RaftNode) -> None:
        self._hide(node.id)
        self._nodes.pop(node.id, None)
        progress = self._progress.pop(node.id, None)
        if progress is not None:
            progress.link_lost()
        if node != NOBODY:
            self._network.drop_peer(node.id)

    def destroy(self) -> None:
        for progress in self._progress.values():
            progress.link_lost()
        self._receiver.abort()

    def send(self, node: RaftNode, message: dict[str, Any]) -> bool:
        """Translate what the core sends. Its own replies to appends are not used: see `_on_append`."""
        kind = message["type"]
        if kind == "append_entries":
            self._send_append(node.id, message)
        elif kind == "request_vote":
            self._may_stand = False
            for raft_id in list(self._shown):
                self._hide(raft_id)
            term = message["term"]
            self._elections.stand(term)
            request = VoteRequest(
                term, message["last_log_index"], message["last_log_term"], term == self._elections.transfer_term
            )
            self._promise(node.id, request)
        elif kind == "response_vote":
            self._elections.put_off(self._now)
            self._promise(node.id, Vote(message["term"]))
        elif kind == "timeout_now":
            self._gate.post(node.id, TimeoutNow(message["term"]))
        elif kind == "apply_command":
            # Never forwarded: whoever proposes is told at once that this member does not lead.
            answer = {"type": "apply_command_response", "request_id": message.get("request_id")}
            self._deliver(node, {**answer, "error": FAIL_REASON.NOT_LEADER})
        return True

    def _send_append(self, raft_id: str, message: dict[str, Any]) -> None:
        progress = self._progress[raft_id]
        if "serialized" in message:
            # Hidden, so that the core leaves its send loop: the stream is ours.
            self._hide(raft_id)
            self._begin_snapshot(raft_id, progress)
            return
        assert "transmission" not in message, "no entry is larger than a batch"
        append = progress.next_append(
            message["term"],
            message["commit_index"],
            (message["prevLogIdx"], message["prevLogTerm"]),
            tuple(message["entries"]),
        )
        self._gate.post(raft_id, append)
        if progress.is_window_full:
            self._hide(raft_id)

    def _begin_snapshot(self, raft_id: str, progress: Progress) -> None:
        if progress.snapshot is None:
            found = self._snapshots.open_newest()
            if found is None:
                raise Internal("a follower needs a snapshot and there is none, although the log begins behind one")
            header, reader = found
            stream = int.from_bytes(self._entropy.bytes(6), "big")
            progress.snapshot = SnapshotSender(header, reader, stream=stream, now=self._now)
        self._ask(raft_id, progress)
        self._continue_snapshot(raft_id, progress)

    def _continue_snapshot(self, raft_id: str, progress: Progress) -> None:
        if progress.snapshot is not None:
            for piece in progress.snapshot.next_pieces(self.term):
                self._gate.post(raft_id, piece)

    # -- messages from other members

    def receive(self, member: Member, message: Message, now: float) -> None:
        """Take a message from `member`, whose certificate was checked.

        Raises:
            BadMessage: no member of ours can have sent this.
            LogDiverged, Internal: this member must stop.
        """
        self._now = now
        node = self._nodes.get(member.raft_id)
        if node is None:
            if self._host.was_removed(member.raft_id):
                return
            if self._rules.members_only and not isinstance(message, _FROM_STRANGERS):
                return
            node = RaftNode(member)
        is_late = message.term < self.term
        if is_late and (self._rules.match_reply_terms or not isinstance(message, AppendReply)):
            self._answer_old_term(node, message)
        elif isinstance(message, Append | Heartbeat | SnapshotPiece):
            self._follow(node, message)
        elif isinstance(message, VoteRequest):
            self._on_vote_request(node, message)
        elif isinstance(message, PreVoteRequest):
            self._on_pre_vote_request(node, message)
        elif isinstance(message, PreVote):
            # Its term is the one that was asked about, not the voter's.
            self._on_pre_vote(node, message)
        elif message.term > self.term:
            self._adopt(node, message.term)
        elif isinstance(message, Vote):
            if self._elections.counts(node.id, message.term):
                self._deliver(node, {"type": "response_vote", "term": message.term})
        elif isinstance(message, TimeoutNow):
            self._on_timeout_now(node, message)
        elif self._core.is_leader and node.id in self._progress and not isinstance(message, TermNotice):
            self._on_follower(node, self._progress[node.id], message)

    def _answer_old_term(self, node: RaftNode, message: Message) -> None:
        if self._rules.answer_old_terms and isinstance(message, _FROM_STRANGERS):
            self._gate.post(node.id, TermNotice(self.term))

    def _adopt(self, node: RaftNode, term: int) -> None:
        """Make the core enter a newer term as a follower: by a candidacy it cannot vote for."""
        if self._rules.adopt_newer_terms:
            request = {"type": "request_vote", "term": term, "last_log_index": 0, "last_log_term": -1}
            self._deliver(node, request)

    # -- as a follower

    def _follow(self, node: RaftNode, message: Append | Heartbeat | SnapshotPiece) -> None:
        if isinstance(message, Append):
            check_append(message)
        if message.term == self.term and self._core.is_leader:
            raise Internal(f"two leaders in term {self.term}: this member and {node.id}")
        self._elections.leader_heard(self._now)
        self._may_stand = False
        # Without an append the core only learns that there is a leader, and who. The commit index is our own.
        sign_of_life = {
            "type": "append_entries",
            "term": message.term,
            "commit_index": self._core.raftCommitIndex,
            "entries": [],
        }
        if isinstance(message, Heartbeat):
            self._deliver(node, sign_of_life)
            self._gate.post(node.id, HeartbeatReply(self.term, message.round))
        elif isinstance(message, SnapshotPiece):
            self._deliver(node, sign_of_life)
            self._on_snapshot_piece(node, message)
        elif self.is_installing:
            self._deliver(node, sign_of_life)
        else:
            self._on_append(node, message, sign_of_life)

    def _on_append(self, node: RaftNode, message: Append, sign_of_life: dict[str, Any]) -> None:
        step: Rewind | Suffix = Rewind(1)
        if not self.is_virgin:
            step = fit(message, self._journal, committed=self.committed, rules=self._rules)
        if isinstance(step, Rewind):
            self._deliver(node, sign_of_life)
            self._promise(node.id, AppendReply(self.term, message.sequence, step.next_index, is_success=False))
            return
        delivered = {
            "type": "append_entries",
            "term": message.term,
            # What the leader committed beyond what it just showed us may be another entry than ours there.
            "commit_index": min(message.commit, step.covered) if self._rules.bound_commit else message.commit,
            "prevLogIdx": step.prev_index,
            "prevLogTerm": step.prev_term,
            "entries": list(step.entries),
        }
        with changing_membership():
            self._deliver(node, delivered)
        if self.term != message.term or self._journal.last_index < step.covered:
            raise Internal(f"the core did not take the append of entries up to {step.covered}")
        self._promise(node.id, AppendReply(self.term, message.sequence, step.covered + 1, is_success=True))

    def _on_snapshot_piece(self, node: RaftNode, piece: SnapshotPiece) -> None:
        if self.is_installing:
            if self._receiver.is_current(piece):
                self._reply_to_piece(node, piece)
            return
        header = self._receiver.begins(piece)
        if header is not None:
            if not self.is_virgin and self._holds(header):
                self._promise(node.id, SnapshotReply(self.term, piece.stream, 1, installed_index=header.index))
                return
            self._receiver.start(piece, header)
        elif self._receiver.take(piece):
            self.is_installing = True
            if not self._rules.restore_before_answer:
                index = self._receiver.header.index if self._receiver.header is not None else 0
                self._gate.post(node.id, SnapshotReply(self.term, piece.stream, piece.number + 1, index))
            self._host.install(*self._receiver.hand_over())
        if self._receiver.is_current(piece):
            self._reply_to_piece(node, piece)

    def _reply_to_piece(self, node: RaftNode, piece: SnapshotPiece) -> None:
        self._gate.post(node.id, SnapshotReply(self.term, piece.stream, self._receiver.received))

    def _holds(self, header: SnapshotHeader) -> bool:
        """Whether the log has all the snapshot covers: installing it would throw away what follows."""
        return header.index <= self.committed or self._journal.term_at(header.index) == header.term

    def installed(self, header: SnapshotHeader, now: float) -> None:
        """The snapshot is on the disk and in the state machine: let the core begin from it, and say so."""
        self._now = now
        leader = self._core.believed_leader or NOBODY
        install = {
            "type": "append_entries",
            "term": self.term,
            "commit_index": self._core.raftCommitIndex,
            # Makes the core call the deserializer; the bytes went another way.
            "serialized": (b"", True, True),
        }
        self._deliver(leader, install)
        if self._core.raftLastApplied != header.index or self._journal.last_index != header.index:
            raise Internal(f"the core did not begin from the snapshot of entry {header.index}")
        self.is_installing = self.is_virgin = False
        self._receiver.abort()
        # The leader is asked to go on by the success it sees; who that is, it may have changed meanwhile.
        if leader != NOBODY:
            self._promise(leader.id, SnapshotReply(self.term, 0, 0, installed_index=header.index))

    # -- elections

    def _canvass(self) -> None:
        """Ask the others before disturbing them."""
        term = self.term + 1
        self._may_stand = False
        if not self._rules.pre_vote:
            self._elections.put_off(self._now)
            self._stand()
            return
        self._elections.canvass(term, self._now)
        request = PreVoteRequest(term, self._journal.last_index, self._journal.last_term)
        for raft_id in self._nodes:
            self._gate.post(raft_id, request)

    def _on_pre_vote_request(self, node: RaftNode, request: PreVoteRequest) -> None:
        if request.term <= self.term:
            self._gate.post(node.id, TermNotice(self.term))
            return
        ours = (self._journal.last_term, self._journal.last_index)
        is_granted = (request.last_term, request.last_index) >= ours and not self._is_led()
        self._gate.post(node.id, PreVote(request.term, is_granted))

    def _on_pre_vote(self, node: RaftNode, answer: PreVote) -> None:
        needed = majority(len(self._nodes) + 1)
        if answer.is_granted and self._elections.supported(node.id, answer.term, needed=needed):
            self._stand()

    def _stand(self) -> None:
        """Let the core stand: its own time is up, it only waits for a connection."""
        self._may_stand = True
        for raft_id in self._linked:
            self._show(raft_id)

    def _on_vote_request(self, node: RaftNode, request: VoteRequest) -> None:
        if self._is_led() and not request.is_transfer:
            return
        self._deliver(
            node,
            {
                "type": "request_vote",
                "term": request.term,
                "last_log_index": request.last_index,
                "last_log_term": request.last_term,
            },
        )

    def _is_led(self) -> bool:
        """Whether there is a leader that works, as far as this member can tell."""
        if not self._rules.sticky_leader:
            return False
        if self._core.is_leader:
            low, _ = self._settings.election_seconds
            return len(self.heard_within(low, self._now)) >= majority(len(self._nodes) + 1)
        return self._elections.is_sticky(self._now)

    def _on_timeout_now(self, node: RaftNode, message: TimeoutNow) -> None:
        leader = self._core.believed_leader
        if leader is None or leader != node or not self._host.is_voter():
            return
        self._elections.transfer_term = message.term + 1
        self._elections.leader_lost()
        self._deliver(node, {"type": "timeout_now", "term": message.term})
        self._stand()

    # -- as the leader

    def _on_follower(self, node: RaftNode, progress: Progress, message: Message) -> None:
        progress.heard_at = self._now
        rewind = None
        if isinstance(message, AppendReply):
            rewind = progress.answered(message)
        elif isinstance(message, HeartbeatReply):
            progress.round = max(progress.round, message.round)
            if progress.snapshot is not None:
                progress.snapshot.heard(self._now)
        elif isinstance(message, SnapshotReply):
            self._on_snapshot_reply(node.id, progress, message)
        self._report_match(node.id, progress)
        # Any answer keeps the leader in office (check quorum), and a rewind says where to go on from.
        self._tell_core(node, rewind if rewind is not None else progress.match + 1, is_rewind=rewind is not None)
        self._show(node.id)

    def _on_snapshot_reply(self, raft_id: str, progress: Progress, reply: SnapshotReply) -> None:
        sender = progress.snapshot
        if reply.installed_index:
            progress.match = max(progress.match, reply.installed_index)
            progress.sent_to = max(progress.sent_to, progress.match)
            if sender is not None and reply.installed_index >= sender.header.index:
                sender.close()
                progress.snapshot = None
        elif sender is not None and reply.stream == sender.stream:
            sender.acknowledged(reply.received, self._now)
            self._continue_snapshot(raft_id, progress)

    def _report_match(self, raft_id: str, progress: Progress) -> None:
        """Tell the core what a follower holds, but no more than is durable here.

        The core counts its own copy always. As long as it hears of no follower ahead of our disk, it commits
        nothing that is not on ours as well.
        """
        match = progress.match
        if self._rules.count_own_copy_when_durable:
            match = min(match, self._journal.durable_index)
        if match > progress.reported:
            progress.reported = match
            self._tell_core(self._nodes[raft_id], match + 1, is_success=True)

    def _tell_core(self, node: RaftNode, next_index: int, *, is_rewind: bool = False, is_success: bool = False) -> None:
        reply = {"type": "next_node_idx", "next_node_idx": next_index, "reset": is_rewind, "success": is_success}
        self._deliver(node, reply)

    def _tend(self, raft_id: str, progress: Progress) -> None:
        """Keep a follower awake that the core may not send to at present."""
        if progress.snapshot is not None and progress.snapshot.is_stalled(self._now):
            progress.snapshot.close()
            progress.snapshot = None
        if raft_id in self._shown:
            return
        if self._now - progress.asked_at >= self._settings.heartbeat_seconds:
            self._ask(raft_id, progress)
        self._continue_snapshot(raft_id, progress)
        self._show(raft_id)

    def _ask(self, raft_id: str, progress: Progress) -> None:
        progress.asked_at = self._now
        self._gate.post(raft_id, Heartbeat(self.term, self._round))

    # -- the core's view

    def _show(self, raft_id: str) -> None:
        """Let the core send to a peer, if it may now."""
        if raft_id in self._shown or raft_id not in self._linked or raft_id not in self._nodes:
            return
        progress = self._progress.get(raft_id)
        # A follower's peers are shown only while it may stand for election.
        may = self._may_stand if progress is None else progress.may_be_sent_to
        if may:
            self._shown.add(raft_id)
            self._onNodeConnected(self._nodes[raft_id])

    def _hide(self, raft_id: str) -> None:
        if raft_id in self._shown:
            self._shown.discard(raft_id)
            self._onNodeDisconnected(self._nodes[raft_id])

    def _deliver(self, node: RaftNode, message: dict[str, Any]) -> None:
        self._onMessageReceived(node, message)

    def _promise(self, raft_id: str, message: Message) -> None:
        """Send what depends on everything that was written to the journal so far."""
        self._gate.post(raft_id, message, needs=self._journal.position)
