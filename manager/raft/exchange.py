"""What the parts of the guard share: the core they speak to, the peers they speak with, the time they were told.

Holds no rule of its own but one: the core believes a peer "connected" exactly while it may send to it (`show`,
`hide`). Used by following.py, snapshot_traffic.py, electing.py, leading.py and terms.py; made by guard.py.
"""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from pyswarm.manager.raft.codec import Message
from pyswarm.manager.raft.core import NOBODY, Core, RaftNode
from pyswarm.manager.raft.gate import DurabilityGate
from pyswarm.manager.raft.journal import Journal
from pyswarm.manager.raft.port import Member
from pyswarm.manager.raft.progress import Progress
from pyswarm.manager.raft.settings import RaftSettings
from pyswarm.manager.raft.snapshots import SnapshotHeader, SnapshotWriter
from pyswarm.manager.raft.status import PeerReport


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


class Exchange:
    """One member's exchange with its core and its peers."""

    def __init__(
        self,
        *,
        own_id: str,
        nodes: Iterable[RaftNode],
        journal: Journal,
        network: Network,
        host: Host,
        settings: RaftSettings,
        now: float,
        deliver: Callable[[RaftNode, dict[str, Any]], None],
        connected: Callable[[RaftNode], None],
        disconnected: Callable[[RaftNode], None],
    ) -> None:
        self.own_id = own_id
        self.nodes = {node.id: node for node in nodes if node != NOBODY}
        """The other members, by raft id."""
        self.journal = journal
        self.network = network
        self.host = host
        self.settings = settings
        self.rules = settings.rules
        self.gate = DurabilityGate(network.send, rules=settings.rules)
        self.now = now
        self.core: Core = None  # type: ignore[assignment]
        self.linked: set[str] = set()
        """Whom there is a stream to."""
        self.shown: set[str] = set()
        """Whom the core may send to."""
        self.progress: dict[str, Progress] = {}
        """The followers of this leader; empty unless it leads."""
        self.heard_at: dict[str, float] = {}
        """When each other member last said anything, whoever leads."""
        self.may_stand = False
        """Whether this follower may stand for election: only then is it shown its peers."""
        self.deliver = deliver
        """Hand the core a message in its own form."""
        self._connected = connected
        self._disconnected = disconnected

    @property
    def term(self) -> int:
        return int(self.core.raftCurrentTerm)

    @property
    def committed(self) -> int:
        return int(max(self.core.raftCommitIndex, self.core.raftLastApplied))

    def heard_within(self, seconds: float) -> frozenset[str]:
        """Return whom this leader heard within the last `seconds`, itself included."""
        heard = (id for id, p in self.progress.items() if self.now - p.heard_at <= seconds)
        return frozenset({self.own_id, *heard})

    def peers(self) -> tuple[PeerReport, ...]:
        """Return what is known here of each other member, by raft id."""
        reports = []
        for raft_id in sorted(self.nodes):
            heard_at, progress = self.heard_at.get(raft_id), self.progress.get(raft_id)
            reports.append(
                PeerReport(
                    raft_id=raft_id,
                    is_linked=raft_id in self.linked,
                    contact_seconds=max(0.0, self.now - heard_at) if heard_at is not None else None,
                    match_index=progress.match if progress is not None else None,
                )
            )
        return tuple(reports)

    # -- what leaves

    def post(self, raft_id: str, message: Message) -> None:
        """Send what promises nothing."""
        self.gate.post(raft_id, message)

    def promise(self, raft_id: str, message: Message) -> None:
        """Send what depends on everything that was written to the journal so far."""
        self.gate.post(raft_id, message, needs=self.journal.position)

    def post_term(self, raft_id: str, message: Message) -> None:
        """Send what shows this member's term and depends on nothing else."""
        self.gate.post(raft_id, message, needs=self.journal.term_position)

    # -- the core's view of its peers

    def show(self, raft_id: str) -> None:
        """Let the core send to a peer, if it may now."""
        if raft_id in self.shown or raft_id not in self.linked or raft_id not in self.nodes:
            return
        progress = self.progress.get(raft_id)
        may = self.may_stand if progress is None else progress.may_be_sent_to
        if may:
            self.shown.add(raft_id)
            self._connected(self.nodes[raft_id])

    def show_linked(self) -> None:
        for raft_id in self.linked:
            self.show(raft_id)

    def hide(self, raft_id: str) -> None:
        if raft_id in self.shown:
            self.shown.discard(raft_id)
            self._disconnected(self.nodes[raft_id])

    def hide_all(self) -> None:
        self.may_stand = False
        for raft_id in list(self.shown):
            self.hide(raft_id)
