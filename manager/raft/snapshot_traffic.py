"""Snapshots between members: fed by the leader to who is behind its log, taken in by the follower.

The core has a stream of its own, without offsets and acknowledged although it was not loaded (S11, S15): it is never
used. The leader's core is told that the follower is out of reach while ours runs; the follower's core begins from
the snapshot only when it is durable and restored. Pieces and streams: install.py.
"""

from pyswarm.manager.raft.codec import BadMessage, SnapshotPiece, SnapshotReply
from pyswarm.manager.raft.core import NOBODY, RaftNode
from pyswarm.manager.raft.exchange import Exchange
from pyswarm.manager.raft.install import SnapshotReceiver, SnapshotSender
from pyswarm.manager.raft.progress import Progress
from pyswarm.manager.raft.snapshots import RaftSnapshotDamaged, SnapshotHeader, SnapshotStore
from pyswarm.proto.entropy import Entropy
from pyswarm.proto.errors import Internal


class SnapshotFeed:
    """The leader's side."""

    def __init__(self, exchange: Exchange, snapshots: SnapshotStore, entropy: Entropy) -> None:
        self._exchange = exchange
        self._snapshots = snapshots
        self._entropy = entropy

    def begin(self, raft_id: str, progress: Progress) -> None:
        """The core wants to send its own stream: hide the follower, so that it leaves its send loop, and feed it."""
        self._exchange.hide(raft_id)
        if progress.snapshot is None:
            found = self._snapshots.open_newest()
            if found is None:
                raise Internal("a follower needs a snapshot and there is none, although the log begins behind one")
            header, reader = found
            stream = int.from_bytes(self._entropy.bytes(6), "big")
            progress.snapshot = SnapshotSender(header, reader, stream=stream, now=self._exchange.now)
        self.go_on(raft_id, progress)

    def go_on(self, raft_id: str, progress: Progress) -> None:
        """Send what may be under way now; give up a stream that is stalled."""
        if progress.snapshot is not None and progress.snapshot.is_stalled(self._exchange.now):
            progress.snapshot.close()
            progress.snapshot = None
        if progress.snapshot is not None:
            for piece in progress.snapshot.next_pieces(self._exchange.term):
                self._exchange.post(raft_id, piece)
            question = progress.snapshot.question(self._exchange.term, self._exchange.now)
            if question is not None:
                self._exchange.post(raft_id, question)

    def answered(self, raft_id: str, progress: Progress, reply: SnapshotReply) -> None:
        sender = progress.snapshot
        if reply.installed_index:
            progress.match = max(progress.match, reply.installed_index)
            progress.sent_to = max(progress.sent_to, progress.match)
            if sender is not None and reply.installed_index >= sender.header.index:
                sender.close()
                progress.snapshot = None
        elif sender is not None and reply.stream == sender.stream:
            sender.acknowledged(reply.received, self._exchange.now)
            self.go_on(raft_id, progress)


class SnapshotIntake:
    """The follower's side."""

    def __init__(self, exchange: Exchange, snapshots: SnapshotStore) -> None:
        self._exchange = exchange
        self._receiver = SnapshotReceiver(snapshots, rules=exchange.rules)
        self.is_installing = False
        """A complete snapshot is being synced and restored; nothing else is taken meanwhile."""
        self.installing_from: RaftNode | None = None
        """The leader, while the core begins from its snapshot and drops the members that the snapshot has not."""
        self.is_virgin = False
        """No snapshot yet: this member must be given one before it can take entries."""

    def take(self, node: RaftNode, piece: SnapshotPiece) -> None:
        """Take a piece of the leader's stream and say how many have come. Raises BadMessage."""
        exchange, receiver = self._exchange, self._receiver
        if not self.is_installing:
            try:
                header = receiver.begins(piece)
            except RaftSnapshotDamaged as error:
                # On the wire, not on our disk: no reason to stop.
                raise BadMessage(f"{node.id} sends a snapshot that is none: {error.message}") from error
            if header is not None:
                if self._is_needless(header):
                    self._promise_held(node, piece, header, received=1)
                    return
                receiver.start(piece, header)
            elif receiver.take(piece):
                assert receiver.header is not None
                if self._is_needless(receiver.header):
                    # What it covers, and perhaps more, has come by appends meanwhile, and was promised to be kept.
                    self._promise_held(node, piece, receiver.header, received=receiver.received)
                    receiver.abort()
                    return
                self._install(node, piece)
        if receiver.is_current(piece):
            exchange.post(node.id, SnapshotReply(exchange.term, piece.stream, receiver.received))

    def _install(self, node: RaftNode, piece: SnapshotPiece) -> None:
        """Rule `restore_before_answer` (S11): that it is installed is said in `installed`, not here."""
        self.is_installing = True
        header, writer = self._receiver.hand_over()
        if not self._exchange.rules.restore_before_answer:
            early = SnapshotReply(self._exchange.term, piece.stream, self._receiver.received, header.index)
            self._exchange.post(node.id, early)
        self._exchange.host.install(header, writer)

    def _promise_held(self, node: RaftNode, piece: SnapshotPiece, header: SnapshotHeader, *, received: int) -> None:
        held = SnapshotReply(self._exchange.term, piece.stream, received, installed_index=header.index)
        self._exchange.promise(node.id, held)

    def _is_needless(self, header: SnapshotHeader) -> bool:
        """Whether the log has all the snapshot covers: installing it would throw away what follows."""
        if self.is_virgin:
            return False
        journal = self._exchange.journal
        return header.index <= self._exchange.committed or journal.term_at(header.index) == header.term

    def installed(self, header: SnapshotHeader) -> None:
        """The snapshot is on the disk and in the state machine: let the core begin from it, and say so."""
        exchange = self._exchange
        leader = exchange.core.believed_leader or NOBODY
        install = {
            "type": "append_entries",
            "term": exchange.term,
            "commit_index": exchange.core.raftCommitIndex,
            # Makes the core call the deserializer; the bytes went another way.
            "serialized": (b"", True, True),
        }
        self.installing_from = leader
        exchange.deliver(leader, install)
        self.installing_from = None
        if exchange.core.raftLastApplied != header.index or exchange.journal.last_index != header.index:
            raise Internal(f"the core did not begin from the snapshot of entry {header.index}")
        self.is_installing = self.is_virgin = False
        self._receiver.abort()
        # The leader is asked to go on by the success it sees; who that is, it may have changed meanwhile.
        if leader != NOBODY:
            exchange.promise(leader.id, SnapshotReply(exchange.term, 0, 0, installed_index=header.index))

    def abort(self) -> None:
        self._receiver.abort()
