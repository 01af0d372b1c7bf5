"""Stand between the core and the network, and make the core follow the paper.

PySyncObj decides; this Transport sees every message in and out and repairs, by what it passes on and what it
answers itself, the rules the core lacks (rules.py names them). Nothing here reads a clock, a disk or a socket: the
engine hands in messages, the time and the news that the journal is durable. Who does what:

    terms.py               whose messages count, what follows from an older or newer term
    following.py           appends and heartbeats of a leader (appends.py decides what of an append is new)
    snapshot_traffic.py    snapshots, both ways (install.py: pieces and streams)
    electing.py            pre-vote, votes, taking over (elections.py: when, and which votes count)
    leading.py             followers and their answers (progress.py: what is known of one)
    gate.py                what promises something waits for the disk
    exchange.py            what these share; whom the core may send to
"""

from collections.abc import Iterable
from typing import Any

from pyswarm.manager.raft import terms
from pyswarm.manager.raft.codec import (
    Append,
    Heartbeat,
    Message,
    PreVote,
    PreVoteRequest,
    SnapshotPiece,
    TermNotice,
    TimeoutNow,
    Vote,
    VoteRequest,
)
from pyswarm.manager.raft.core import FAIL_REASON, LEADER, NOBODY, Core, RaftNode, Transport
from pyswarm.manager.raft.electing import Electing
from pyswarm.manager.raft.exchange import Exchange, Host, Network
from pyswarm.manager.raft.following import Following
from pyswarm.manager.raft.journal import Journal
from pyswarm.manager.raft.leading import Leading
from pyswarm.manager.raft.port import Member
from pyswarm.manager.raft.settings import RaftSettings
from pyswarm.manager.raft.snapshot_traffic import SnapshotFeed, SnapshotIntake
from pyswarm.manager.raft.snapshots import SnapshotHeader, SnapshotStore
from pyswarm.manager.raft.status import PeerReport
from pyswarm.proto.entropy import Entropy

__all__ = ["Guard", "Host", "Network"]


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
        self._exchange = Exchange(
            own_id=own_id,
            nodes=nodes,
            journal=journal,
            network=network,
            host=host,
            settings=settings,
            now=now,
            deliver=self._onMessageReceived,
            connected=self._onNodeConnected,
            disconnected=self._onNodeDisconnected,
        )
        self._electing = Electing(self._exchange, entropy)
        self._intake = SnapshotIntake(self._exchange, snapshots)
        self._following = Following(self._exchange, self._electing, self._intake)
        self._leading = Leading(self._exchange, SnapshotFeed(self._exchange, snapshots, entropy))

    def attach(self, core: Core, *, is_virgin: bool = False) -> None:
        """Begin. `is_virgin`: there is no snapshot yet, this member must be given one before it can take entries."""
        self._exchange.core = core
        self._intake.is_virgin = is_virgin

    # -- what the engine asks

    @property
    def term(self) -> int:
        return self._exchange.term

    @property
    def committed(self) -> int:
        return self._exchange.committed

    @property
    def is_virgin(self) -> bool:
        return self._intake.is_virgin

    @property
    def is_installing(self) -> bool:
        return self._intake.is_installing

    @property
    def confirmed_round(self) -> int:
        return self._leading.confirmed_round

    @property
    def has_news(self) -> bool:
        """Whether `tell_news` is to be called after `progress.COMMIT_NEWS_SECONDS`."""
        return self._leading.has_news

    @property
    def may_commit(self) -> bool:
        """Whether the core was told of something that it may count as committed at its next tick."""
        return self._leading.may_commit

    def begin_round(self) -> int:
        """Ask every follower for a sign of life; return the number that `confirmed_round` must reach."""
        return self._leading.begin_round()

    def heard_leader(self, now: float) -> Member | None:
        """Return the other member that leads, as long as it is heard. The log here may not know it yet."""
        leader = self._exchange.core.believed_leader
        if leader is None or self._exchange.core.is_leader or not self._electing.knows_leader(now):
            return None
        member: Member = leader.member
        return member

    def hears_majority(self, seconds: float, now: float) -> bool:
        """Whether this leader heard so many within the last `seconds` that it is not alone with a minority."""
        return self._leading.hears_majority(seconds, now)

    def heard_within(self, seconds: float, now: float) -> frozenset[str]:
        """Return whom this leader heard within the last `seconds`, itself included."""
        self._exchange.now = now
        return self._exchange.heard_within(seconds)

    def linked(self) -> frozenset[str]:
        return frozenset(self._exchange.linked)

    def peers(self, now: float) -> tuple[PeerReport, ...]:
        """Return what is known here of each other member, by raft id."""
        self._exchange.now = now
        return self._exchange.peers()

    # -- what the engine says

    def tick(self, now: float) -> None:
        """Let time pass: stand for election, keep silent followers awake. To be called before each tick of the core."""
        self._exchange.now = now
        if self._exchange.core.is_leader:
            self._leading.tend()
        elif not self._intake.is_installing:
            self._electing.canvass_if_due()

    def tell_news(self, now: float) -> None:
        """Tell the followers how far is committed, as far as no entry has told them."""
        self._exchange.now = now
        if self._exchange.core.is_leader:
            self._leading.tell_news()

    def durable(self, now: float) -> None:
        """The journal is durable up to `journal.durable_position`."""
        self._exchange.now = now
        self._exchange.gate.open_to(self._exchange.journal.durable_position)
        if self._exchange.core.is_leader:
            self._leading.report_matches()

    def installed(self, header: SnapshotHeader, now: float) -> None:
        """The snapshot that `Host.install` was given is on the disk and in the state machine."""
        self._exchange.now = now
        self._intake.installed(header)

    def link_up(self, raft_id: str) -> None:
        self._exchange.linked.add(raft_id)
        self._exchange.show(raft_id)

    def link_down(self, raft_id: str, now: float) -> None:
        self._exchange.now = now
        self._electing.link_lost(raft_id)
        self._exchange.linked.discard(raft_id)
        self._exchange.hide(raft_id)
        if raft_id in self._exchange.progress:
            self._exchange.progress[raft_id].link_lost()

    def state_changed(self, state: int) -> None:
        """The core became follower, candidate or leader; a leader's first appends follow at once."""
        self._leading.resign()
        self._exchange.hide_all()
        if state == LEADER:
            self._leading.elected()

    # -- messages from other members

    def receive(self, member: Member, message: Message, now: float) -> bool:
        """Take a message from `member`, whose certificate was checked; return whether the core must be ticked for it.

        Raises:
            BadMessage: no member of ours can have sent this.
            LogDiverged, Internal: this member must stop.
        """
        exchange = self._exchange
        exchange.now = now
        if not terms.counts_sender(exchange, member.raft_id, message):
            return False
        if member.raft_id in exchange.nodes:
            exchange.heard_at[member.raft_id] = now
        node = exchange.nodes.get(member.raft_id) or RaftNode(member)
        if terms.is_outdated(exchange, message):
            terms.answer_old_term(exchange, node, message)
        elif isinstance(message, Append | Heartbeat | SnapshotPiece):
            self._following.hear(node, message)
        elif isinstance(message, VoteRequest):
            self._electing.on_vote_request(node, message)
        elif isinstance(message, PreVoteRequest):
            self._electing.on_pre_vote_request(node, message)
        elif isinstance(message, PreVote):
            # Its term is the one that was asked about, not the voter's.
            self._electing.on_pre_vote(node, message)
        elif message.term > exchange.term:
            terms.adopt(exchange, node, message.term)
        elif isinstance(message, Vote):
            self._electing.on_vote(node, message)
        elif isinstance(message, TimeoutNow):
            self._electing.on_timeout_now(node, message)
        elif exchange.core.is_leader and node.id in exchange.progress and not isinstance(message, TermNotice):
            return self._leading.on_answer(node, message)
        return True

    # -- Transport: what the core does

    @property
    def ready(self) -> bool:
        return True

    def addNode(self, node: RaftNode) -> None:
        self._exchange.nodes[node.id] = node
        self._exchange.network.add_peer(node.member)
        if self._exchange.core.is_leader:
            self._leading.add(node.id)
        self._exchange.show(node.id)

    def dropNode(self, node: RaftNode) -> None:
        self._exchange.hide(node.id)
        self._exchange.nodes.pop(node.id, None)
        self._exchange.heard_at.pop(node.id, None)
        self._leading.drop(node.id)
        # A leader that the snapshot does not know yet is about to be answered, and soon added by its log.
        if node not in (NOBODY, self._intake.installing_from):
            self._exchange.network.drop_peer(node.id)

    def destroy(self) -> None:
        for progress in self._exchange.progress.values():
            progress.link_lost()
        self._intake.abort()

    def send(self, node: RaftNode, message: dict[str, Any]) -> bool:
        """Translate what the core sends. Its own replies to appends are not used: following.py answers."""
        kind = message["type"]
        if kind == "append_entries":
            self._leading.send_append(node.id, message)
        elif kind == "request_vote":
            self._electing.send_request(node, message)
        elif kind == "response_vote":
            self._electing.send_vote(node, message["term"])
        elif kind == "timeout_now":
            self._exchange.post(node.id, TimeoutNow(message["term"]))
        elif kind == "apply_command":
            # Never forwarded (S13): whoever proposes is told at once that this member does not lead.
            answer = {"type": "apply_command_response", "request_id": message.get("request_id")}
            self._exchange.deliver(node, {**answer, "error": FAIL_REASON.NOT_LEADER})
        return True
