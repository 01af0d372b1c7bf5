"""Take part in the managers' consensus group: the real `port.Consensus`.

Brings four things together on one event loop: the core behind its guard, the journal with its disk thread, the
streams to the other members, and the callers who propose and read. Everything that happens (a message, a
proposal, a finished write, a timer) ends in one `_pump`: let the core tick, start the next write, tell who waits.
The disk is synced in a thread, so heartbeats go on while it is slow; what depends on it waits in the guard's gate.

A member that cannot trust its journal, its log or its core any more stops at once and says nothing further:
`run` raises what broke. One that another manager refuses because its node was removed from the cluster takes no
part any more either, from then on and after every restart: `run` goes on, and every call is refused with the remedy.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from pyswarm.manager.raft.addresses import AddressBook
from pyswarm.manager.raft.codec import BadMessage, Message
from pyswarm.manager.raft.commands import decode_batch
from pyswarm.manager.raft.core import (
    CANDIDATE,
    FAIL_REASON,
    FOLLOWER,
    LEADER,
    NOBODY,
    Core,
    RaftNode,
    core_configuration,
)
from pyswarm.manager.raft.disk import REAL_DISK, Disk
from pyswarm.manager.raft.disk_thread import DiskThread, disk_thread
from pyswarm.manager.raft.guard import Guard
from pyswarm.manager.raft.journal import Journal, Staged
from pyswarm.manager.raft.leadership import LeadershipBoard
from pyswarm.manager.raft.membership import majority
from pyswarm.manager.raft.port import Leadership, Member, StateMachine
from pyswarm.manager.raft.progress import COMMIT_NEWS_SECONDS
from pyswarm.manager.raft.proposals import Proposal, Proposals
from pyswarm.manager.raft.reads import Reads
from pyswarm.manager.raft.roster import Roster
from pyswarm.manager.raft.rules import broken
from pyswarm.manager.raft.settings import RaftSettings, TlsProvider
from pyswarm.manager.raft.snapshot_job import SnapshotJob
from pyswarm.manager.raft.snapshots import SnapshotHeader, SnapshotWriter
from pyswarm.manager.raft.state import DiskState, has_state, open_state
from pyswarm.manager.raft.status import MemberReport, RaftRole
from pyswarm.manager.raft.transport import TlsTransport
from pyswarm.manager.sealing.sealer import Sealer
from pyswarm.proto.clock import SYSTEM_CLOCK, Clock
from pyswarm.proto.entropy import SYSTEM_ENTROPY, Entropy
from pyswarm.proto.errors import (
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NodeRemoved,
    NotLeader,
    OutcomeUnknown,
    SwarmError,
    Unavailable,
)
from pyswarm.proto.log import get_logger

__all__ = ["RaftEngine", "RaftSettings", "TlsProvider"]

log = get_logger(__name__)

NO_LEADER = Leadership(term=0, leader=None, is_leader=False, is_ready=False)

_ROLES = {FOLLOWER: RaftRole.FOLLOWER, CANDIDATE: RaftRole.CANDIDATE, LEADER: RaftRole.LEADER}


class RaftEngine:
    """Implements `port.Consensus`.

    Life: `await open(...)`, then `run()` in a task of the caller's TaskGroup, then `close()`.
    """

    @staticmethod
    def has_state(directory: Path) -> bool:
        """Whether `directory` holds a group's state: if not, this manager must be admitted by the others first."""
        return has_state(directory)

    @classmethod
    async def open(
        cls,
        *,
        member: Member,
        members: Sequence[Member],
        state_machine: StateMachine,
        directory: Path,
        sealer: Sealer,
        tls: TlsProvider,
        listen: tuple[str, int],
        cluster_id: str,
        settings: RaftSettings,
        clock: Clock = SYSTEM_CLOCK,
        entropy: Entropy = SYSTEM_ENTROPY,
        storage: Disk = REAL_DISK,
        is_removed: Callable[[str], bool] = lambda _: False,
    ) -> "RaftEngine":
        """Read the disk, restore `state_machine`, bind the raft port. Nothing is sent before `run`.

        `members` matters only while there is no state on disk. `(member,)` makes the first manager of a cluster.
        Anything else (nobody, or the members it was told about) makes a member that waits to be added by
        `add_member` on the leader: it must be running by then, because the leader brings it up to date first.
        `is_removed` tells of a node id whether its certificates are refused.

        Raises:
            InvalidArgument: the settings switch a rule off, which only simulations may.
            JournalDamaged, RaftSnapshotDamaged, SealBroken: the disk cannot be believed; says what to do.
            Unavailable: the port is taken.
        """
        if off := broken(settings.rules):
            raise InvalidArgument(f"a manager cannot run without the rules {', '.join(off)}")
        disk = disk_thread()
        try:
            loop = asyncio.get_running_loop()
            state = await loop.run_in_executor(
                disk,
                lambda: open_state(
                    directory, sealer=sealer, member=member, members=members, machine=state_machine,
                    settings=settings, entropy=entropy, disk=storage,
                ),
            )  # fmt: skip
            engine = cls(
                member=member, state=state, state_machine=state_machine, disk=disk, settings=settings,
                clock=clock, entropy=entropy,
            )  # fmt: skip
            transport = TlsTransport(
                member=member, cluster_id=cluster_id, tls=tls, listen=listen, handler=engine, entropy=entropy,
                is_removed=is_removed,
            )  # fmt: skip
            await transport.bind()
            engine._assemble(transport)
        except BaseException:
            disk.shutdown(wait=False)
            raise
        log.info("raft opened", member=member.raft_id, index=engine.applied_index, last=state.journal.last_index)
        return engine

    def __init__(
        self,
        *,
        member: Member,
        state: DiskState,
        state_machine: StateMachine,
        disk: DiskThread,
        settings: RaftSettings,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        """Use `open`."""
        self._self = member
        self._state = state
        self._journal: Journal = state.journal
        self._machine = state_machine
        self._disk = disk
        # Snapshots are written beside the journal, never before it in the same queue.
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="raft-snapshot")
        self._settings = settings
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._entropy = entropy
        self._proposals = Proposals(settings.entry_bytes_max, settings.entry_proposals_max, settings.rules)
        self._reads = Reads(settings.rules)
        self._board = LeadershipBoard(NO_LEADER)
        self._job = SnapshotJob(
            store=state.snapshots,
            executor=self._beside,
            pieces=state_machine.snapshot,
            members_at=lambda index: _sorted(state.members.at(index)),
            removed_at=state.members.removed_at,
            members_now=lambda: _sorted(state.members.present()),
            finished=self._snapshot_written,
        )
        self._job.restored = state.header
        self._barrier_index = 0
        self._role = RaftRole.FOLLOWER
        self._pump_handle: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._news: asyncio.TimerHandle | None = None
        self._is_flushing = False
        self._must_tick = True
        self._may_propose = False
        """Whether it was looked, since the last step, that this member leads and hears a majority."""
        self._installing: asyncio.Future[None] | None = None
        self._is_handing_over = False
        self._snapshot_retry_index = 0
        self._wants_snapshot = False
        self._stopped: asyncio.Future[None] | None = None
        self._fault: BaseException | None = None
        self._removal: NodeRemoved | None = _removal(state.removed_by) if state.removed_by else None
        self._is_closed = False
        self._is_stopped = False
        self._stopping = asyncio.Lock()
        self._transport: TlsTransport
        self._guard: Guard
        self._core: Core
        self._roster: Roster
        self._addresses: AddressBook

    def _assemble(self, transport: TlsTransport) -> None:
        others = [RaftNode(m) for m in self._state.members.present().values() if m.raft_id != self._self.raft_id]
        nodes = others or ([] if self.is_voter() else [NOBODY])
        self._transport = transport
        self._guard = Guard(
            own_id=self._self.raft_id,
            nodes=nodes,
            journal=self._journal,
            network=transport,
            host=self,
            snapshots=self._state.snapshots,
            settings=self._settings,
            now=self._clock.monotonic(),
            entropy=self._entropy,
        )
        configuration = core_configuration(
            settings=self._settings,
            journal=self._journal,
            marker=str(self._state.marker),
            serializer=self._job.serialize,
            serialize_checker=self._job.check,
            deserializer=self._job.deserialize,
            on_state_changed=self._on_state_changed,
        )
        self._core = Core(self._self, nodes, configuration=configuration, transport=self._guard, apply=self._apply)
        self._roster = Roster(
            self,
            own_id=self._self.raft_id,
            members=self._state.members,
            guard=self._guard,
            core=self._core,
            transport=transport,
            rules=self._settings.rules,
        )
        self._addresses = AddressBook(
            own=self._self, members=self._state.members, links=transport, submit=self._core.submit_move
        )
        self._guard.attach(self._core, is_virgin=self._state.header is None)
        for node in others:
            transport.add_peer(node.member)

    # -- life

    async def run(self) -> None:
        """Take part until `close`; owns every task. Raises what broke when this member had to stop."""
        self._stopped = self._loop.create_future()
        if self._is_closed:
            return
        try:
            async with asyncio.TaskGroup() as group:
                if self._removal is not None:
                    log.error("this manager takes no part in consensus", reason=str(self._removal))
                    self._transport.close()
                    await self._stopped
                    return
                streams = group.create_task(self._transport.run(), name="raft-streams")
                self._pump()
                self._keep_time()
                await self._stopped
                streams.cancel()
        except* SwarmError as errors:
            failure = errors.exceptions[0]
            raise failure from failure.__cause__
        finally:
            await self._stop()

    async def close(self) -> None:
        """Stop taking part, flush and close the journal. May be called again."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._stopped is not None and not self._stopped.done():
            self._stopped.set_result(None)
        await self._stop()

    async def _stop(self) -> None:
        """What `run` and `close` both end with, once."""
        async with self._stopping:
            if not self._is_stopped:
                self._is_stopped = True
                await self._stop_once()

    async def _stop_once(self) -> None:
        self._is_closed = True
        for handle in (self._pump_handle, self._timer, self._news):
            if handle is not None:
                handle.cancel()
        self._transport.close()
        self._give_up(lambda: Unavailable("this manager is shutting down"))
        self._board.close()
        self._addresses.board.close()
        if self._installing is not None and not self._installing.done():
            await asyncio.wait({self._installing})
        # How the write under way has ended is known here by then.
        await self._disk.drain()
        await self._job.settle()
        if self._fault is None and self._journal.is_staged:
            await self._loop.run_in_executor(self._disk, self._write, self._journal.take())
        self._guard.destroy()
        await self._loop.run_in_executor(self._disk, self._state.wal.close)
        self._disk.shutdown(wait=False)
        self._beside.shutdown(wait=False)

    def _fail(self, error: BaseException) -> None:
        """Stop at once: nothing more is said to anybody."""
        if self._fault is not None:
            return
        self._fault = error
        log.error("consensus has failed on this manager; it stops", reason=str(error))
        self._transport.close()
        self._give_up(lambda: OutcomeUnknown(f"consensus has failed on this manager: {error}"))
        if self._stopped is not None and not self._stopped.done():
            failure = error if isinstance(error, SwarmError) else Internal(f"consensus has failed: {error!r}")
            failure.__cause__ = error if failure is not error else error.__cause__
            self._stopped.set_exception(failure)

    @property
    def is_down(self) -> bool:
        return self._is_closed or self._fault is not None or self._removal is not None

    @property
    def removal(self) -> NodeRemoved | None:
        """Why this member takes no part any more, once it was told that its node was removed."""
        return self._removal

    # -- the one step that everything leads to

    def wake(self) -> None:
        """Pump once the present callbacks are through; many wakes make one pump."""
        self._must_tick = True
        self._schedule_pump()

    def _schedule_pump(self) -> None:
        if self._pump_handle is None and not self.is_down:
            self._pump_handle = self._loop.call_soon(self._pump)

    def _keep_time(self) -> None:
        if self.is_down:
            return
        self._timer = self._loop.call_later(self._settings.heartbeat_seconds / 2, self._keep_time)
        self._proposals.expire(self._clock.monotonic())
        self.wake()

    def _pump(self) -> None:
        self._pump_handle = None
        self._may_propose = False
        if self.is_down:
            return
        try:
            if not self._must_tick:
                # Only proposals have come. They enter the log and leave; all else has been seen to.
                self._submit_waiting()
                self._start_flush()
                self._transport.flush()
                return
            self._must_tick = False
            self._guard.tick(self._clock.monotonic())
            if self._may_tick:
                if self._board.present.is_ready and self._core.is_leader:
                    self._addresses.announce()
                self._core.doTick(0.0)
            self._submit_waiting()
            self._reads.begin(self._guard)
            self._check_members()
            self._start_flush()
            self._transport.flush()
            self._start_snapshot()
            self._tell()
            self._plan_news()
        except Exception as error:  # noqa: BLE001 - whatever broke in here, this member must not go on
            self._fail(error)

    def _plan_news(self) -> None:
        if self._news is None and self._guard.has_news:
            self._news = self._loop.call_later(COMMIT_NEWS_SECONDS * 1.1, self._tell_news)

    def _tell_news(self) -> None:
        self._news = None
        if self.is_down:
            return
        try:
            self._guard.tell_news(self._clock.monotonic())
            self._plan_news()
        except Exception as error:  # noqa: BLE001 - see _pump
            self._fail(error)

    @property
    def _may_tick(self) -> bool:
        """A member alone commits what it holds, so it must not look while that is not durable. And one that is being
        given a snapshot must not apply entries any more: the state machine may stand behind them already."""
        if self._guard.is_installing:
            return False
        return bool(self._core.otherNodes) or self._journal.durable_position == self._journal.position

    def _submit_waiting(self) -> None:
        if not self._core.is_leader or self._is_handing_over or not self._may_tick:
            return
        for batch in self._proposals.next_batches():
            self._core.submit([p.payload for p in batch], partial(self._entry_done, batch))
        self._core.take_commands()

    def _entry_done(self, batch: list[Proposal], result: Any, why: int) -> None:
        if why == FAIL_REASON.SUCCESS:
            index, results = result
            self._proposals.committed(batch, index, results)
        else:
            self._proposals.not_proposed(batch, self.not_leader)

    def _apply(self, index: int, body: bytes) -> tuple[int, list[bytes]]:
        return index, [self._machine.apply(index, payload) for payload in decode_batch(body)]

    def _on_state_changed(self, _old: int, new: int) -> None:
        self._role = _ROLES[new]
        self._may_propose = False
        self._guard.state_changed(new)
        self._roster.leadership_changed()
        if new == LEADER:
            # The core writes its barrier entry next; when that is applied here, all before it is.
            self._barrier_index = self._journal.last_index + 1
            log.info("elected", term=self._guard.term)
        else:
            self._proposals.leadership_lost(self._leader_name())
            self._reads.refuse(self.not_leader())

    def _check_members(self) -> None:
        """The core and the log must agree about who is a member; whatever made them differ, do not go on."""
        members = self._state.members
        if not members.has_changed() or self._guard.is_virgin:
            return
        ours = set(members.present()) - {self._self.raft_id}
        core = {node.id for node in self._core.otherNodes}
        if ours != core:
            raise Internal(f"the core's members {sorted(core)} are not the log's {sorted(ours)}")
        self._addresses.log_changed()

    def _tell(self) -> None:
        """Let everybody know what has become of it: leadership and reads."""
        is_leader = self._core.is_leader
        leader = self._self if is_leader else self._leader_elsewhere(self._clock.monotonic())
        is_ready = is_leader and self._core.raftLastApplied >= self._barrier_index
        if self._board.post(Leadership(self._guard.term, leader, is_leader, is_ready)):
            log.info("leadership", term=self._guard.term, leader=leader.node_id if leader else "", ready=is_ready)
        if self._reads.are_waiting:
            self._reads.settle(confirmed=self._guard.confirmed_round if is_leader else 0, applied=self.applied_index)

    # -- the disk

    def _start_flush(self) -> None:
        if not self._is_flushing and self._journal.is_staged:
            self._is_flushing = True
            staged = self._journal.take()
            # A leader has others to hear meanwhile; a follower has nothing to do but to acknowledge.
            self._disk.append(
                self._state.wal, staged.content, staged.mark, partial(self._flushed, staged),
                may_wait=not self._core.is_leader,
            )  # fmt: skip

    def _write(self, staged: Staged) -> None:
        self._state.wal.append(staged.content, staged.mark)

    def _flushed(self, staged: Staged, error: BaseException | None) -> None:
        self._is_flushing = False
        if self._fault is not None:
            return
        if error is not None:
            self._fail(Internal(f"the journal cannot be written: {error}", remedy="Check the disk and its free space."))
            return
        self._journal.mark_durable(staged)
        if self._is_closed:
            return
        try:
            self._guard.durable(self._clock.monotonic())
            self._start_flush()
            self._transport.flush()
        except Exception as failure:  # noqa: BLE001 - see _pump
            self._fail(failure)
            return
        if self._guard.may_commit or not self._core.otherNodes:
            # Of its own disk only a leader learns anything, or a member alone.
            self.wake()

    def _start_snapshot(self) -> None:
        header = self._state.header
        if header is None or self._job.is_running or self._guard.is_installing:
            return
        applied = self.applied_index
        is_long = applied - header.index >= self._settings.snapshot_entries
        is_large = self._journal.bytes >= self._settings.snapshot_bytes + self._state.bytes_at_snapshot
        if (is_long or is_large or self._wants_snapshot) and applied >= max(
            header.index + 1, self._snapshot_retry_index
        ):
            # A failed attempt is repeated after some more entries, not at every tick.
            self._snapshot_retry_index = applied + max(1, self._settings.snapshot_entries // 10)
            self._wants_snapshot = False
            self._core.forceLogCompaction()

    def _snapshot_written(self, header: SnapshotHeader) -> None:
        self._state.snapshot_taken(header)
        # The core cuts its log right after this; the files follow when it has.
        self._loop.call_soon(self._remove_segments)

    def _remove_segments(self) -> None:
        if not self.is_down:
            self._state.bytes_at_snapshot = self._journal.bytes
            removal = self._loop.run_in_executor(self._disk, self._state.remove_covered, self._journal.first_index)
            removal.add_done_callback(self._removed)

    def _removed(self, done: "asyncio.Future[None]") -> None:
        if not done.cancelled() and done.exception() is not None:
            self._fail(Internal(f"old journal segments cannot be removed: {done.exception()}"))

    # -- guard.Host

    def is_voter(self) -> bool:
        return self._state.header is not None and self._self.raft_id in self._state.members.present()

    def install(self, header: SnapshotHeader, writer: SnapshotWriter) -> None:
        self._installing = self._loop.run_in_executor(self._beside, self._state.restore_received, header, writer)
        self._installing.add_done_callback(lambda done: self._installed(done, header))

    def _installed(self, done: "asyncio.Future[None]", header: SnapshotHeader) -> None:
        self._installing = None
        if done.cancelled():
            return
        if self.is_down:
            if (error := done.exception()) is not None:
                log.warning("snapshot not installed", reason=str(error))
            return
        try:
            done.result()
            self._state.snapshot_taken(header)
            self._job.restored = header
            self._guard.installed(header, self._clock.monotonic())
            log.info("snapshot installed", index=header.index, members=len(header.members))
        except Exception as error:  # noqa: BLE001 - half a state is none: see _pump
            self._fail(error)
            return
        self.wake()

    def was_removed(self, raft_id: str) -> bool:
        return self._state.members.was_removed(raft_id)

    # -- transport.LinkHandler

    def admit(self, member: Member) -> str:
        known = self._state.members.known(member.raft_id)
        if known is not None and known.node_id != member.node_id:
            return f"the raft id {member.raft_id} belongs to node {known.node_id}, not {member.node_id}"
        if self._state.members.was_removed(member.raft_id):
            return f"node {member.node_id} was removed from the managers"
        self._addresses.told(member)
        self.wake()
        return ""

    def received(self, member: Member, message: Message) -> None:
        if self.is_down:
            return
        try:
            if self._guard.receive(member, message, self._clock.monotonic()):
                self.wake()
            # Behind the pump, if the loop is to wait for the disk: what there is to do can be done meanwhile.
            self._start_flush()
        except BadMessage:
            raise
        except Exception as error:  # noqa: BLE001 - see _pump
            self._fail(error)

    def link_up(self, raft_id: str) -> None:
        self._guard.link_up(raft_id)
        self._roster.link_up(raft_id)
        self.wake()

    def link_down(self, raft_id: str) -> None:
        self._guard.link_down(raft_id, self._clock.monotonic())
        self.wake()

    def told_removed(self, by: Member) -> None:
        if self.is_down:
            return
        self._removal = _removal(by.node_id)
        log.error("this manager takes no part in consensus any more", reason=str(self._removal))
        self._transport.close()
        for handle in (self._pump_handle, self._timer, self._news):
            if handle is not None:
                handle.cancel()
        self._give_up(self._why_down)
        self._board.post(NO_LEADER)
        # Nobody may be there to say it again at the next start.
        self._state.note_removal(by.node_id)

    # -- port.Consensus: what others see

    @property
    def self_member(self) -> Member:
        return self._self

    @property
    def leadership(self) -> Leadership:
        return self._board.present

    @property
    def applied_index(self) -> int:
        # Before the first tick the core does not know yet what was restored.
        restored = self._job.restored.index if self._job.restored is not None else 0
        return max(int(self._core.raftLastApplied), restored)

    def members(self) -> tuple[Member, ...]:
        return _sorted(self._state.members.present())

    def reachable(self) -> frozenset[str]:
        present = set(self._state.members.present())
        _, high = self._settings.election_seconds
        if self._core.is_leader:
            # Only the leader is answered by everybody.
            return self._guard.heard_within(high, self._clock.monotonic()) & present
        return (self._guard.linked() & present) | {self._self.raft_id}

    def report(self) -> MemberReport:
        """Say what `pyswarm raft status` shows of this member. Costs a look, no disk and no messages.

        Raises NodeRemoved once it takes no part any more.
        """
        if self._removal is not None:
            raise self._removal
        now = self._clock.monotonic()
        _, high = self._settings.election_seconds
        role = self._role if self.is_voter() else RaftRole.JOINING
        leader = self._self if role is RaftRole.LEADER else self._leader_elsewhere(now)
        in_reach = self._guard.heard_within(high, now) if role is RaftRole.LEADER else self.reachable()
        return MemberReport(
            member=self._self,
            role=role,
            is_voter=self.is_voter(),
            term=self._guard.term,
            leader_raft_id=leader.raft_id if leader is not None else "",
            in_reach=tuple(sorted(in_reach)),
            has_quorum=role is RaftRole.LEADER and len(in_reach) >= majority(len(self._state.members.present())),
            commit_index=self._guard.committed,
            applied_index=self.applied_index,
            last_index=self._journal.last_index,
            durable_index=self._journal.durable_index,
            snapshot_index=self._state.header.index if self._state.header is not None else 0,
            journal_bytes=self._state.wal.used_bytes,
            peers=self._guard.peers(now),
        )

    def watch_members(self) -> AsyncIterator[tuple[Member, ...]]:
        """Yield the present voters, sorted by raft id, at once and after each change of them or their addresses."""
        return self._addresses.board.watch()

    def watch_leadership(self) -> AsyncIterator[Leadership]:
        return self._board.watch()

    async def propose(self, payload: bytes, *, timeout_seconds: float = 10.0) -> tuple[int, bytes]:
        """As in the port. Proposals that travel in one entry have the same index; they are applied in order."""
        if len(payload) > self._settings.payload_bytes_max:
            raise InvalidArgument(
                f"a write of {len(payload)} bytes exceeds the limit of {self._settings.payload_bytes_max}",
                remedy="Split it into several writes.",
            )
        if self.is_down or not self._may_propose:
            self.must_have_quorum()
            self._may_propose = True
        if len(self._proposals.waiting) >= self._settings.proposals_max:
            raise Unavailable("too many writes are waiting", remedy="The managers are overloaded: try again later.")
        outcome: asyncio.Future[tuple[int, bytes]] = self._loop.create_future()
        self._proposals.waiting.append(Proposal(payload, outcome, self._clock.monotonic() + timeout_seconds))
        if self._pump_handle is None:
            self._schedule_pump()
        try:
            return await outcome
        finally:
            # A caller who gave up: what was not submitted yet never will be.
            outcome.cancel()

    async def read_barrier(self, *, timeout_seconds: float = 5.0) -> int:
        self.must_have_quorum()
        read = self._reads.add()
        self.wake()
        try:
            async with asyncio.timeout(timeout_seconds):
                if self._settings.rules.ready_before_reads:
                    await self.until_ready()
                self._reads.ask(read, int(self._core.raftCommitIndex))
                self.wake()
                return await read.outcome
        except TimeoutError as error:
            raise Unavailable(f"no majority confirmed within {timeout_seconds:g} s that this manager leads") from error
        finally:
            self._reads.drop(read)

    async def until_ready(self) -> None:
        async for leadership in self._board.watch():
            if leadership.is_ready:
                return
            if not leadership.is_leader:
                raise self._why_down() if self.is_down else self.not_leader()
        raise self._why_down()

    async def rotate_key(self) -> int:
        """Seal this member's journal and snapshots under a new data key from now on.

        A snapshot follows as soon as there is something new to hold. Returns how many older keys are kept: each until
        no file that was sealed under it is there, which later snapshots see to.

        Raises:
            Unavailable: this member has stopped, or its disk could not take the key: then it stops.
        """
        if self.is_down:
            raise self._why_down()
        try:
            await self._loop.run_in_executor(self._disk, self._state.rotate_key)
        except OSError as error:
            # Which of the keys is on the disk is not known: nothing may be sealed any more.
            self._fail(
                Internal(f"the data key cannot be written: {error}", remedy="Check the disk and its free space.")
            )
            raise self._why_down() from error
        self._wants_snapshot = True
        self.wake()
        log.info("data key rotated", older=self._state.older_keys)
        return self._state.older_keys

    # -- membership

    async def add_member(self, member: Member) -> None:
        await self._roster.add(member)

    async def remove_member(self, raft_id: str) -> None:
        await self._roster.remove(raft_id)

    async def transfer_leadership(self) -> None:
        """As in the port.

        Raises:
            NotLeader: this manager does not lead.
            FailedPrecondition: there is nobody else.
            Unavailable: nobody took over in time; this manager goes on leading.
            NodeRemoved: this manager takes no part any more.
        """
        if self.is_down:
            raise self._why_down()
        if not self._core.is_leader:
            raise self.not_leader()
        if len(self._state.members.present()) < 2:
            raise FailedPrecondition(
                "there is no other manager to lead", remedy="Add a manager first: `pyswarm node promote NODE`."
            )
        _, high = self._settings.election_seconds
        self._is_handing_over = True
        try:
            async with asyncio.timeout(high * 5):
                while self._core.is_leader:
                    if self._proposals.is_idle and self._journal.last_index == self.applied_index:
                        self._core.transferLeadership()
                        self.wake()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(self._settings.heartbeat_seconds):
                            await self._until_deposed()
        except TimeoutError as error:
            raise Unavailable("no other manager took over", remedy="Bring other managers back first.") from error
        finally:
            self._is_handing_over = False
            self.wake()

    async def _until_deposed(self) -> None:
        async for leadership in self._board.watch():
            if not leadership.is_leader:
                return

    # -- refusals

    def must_have_quorum(self, *, of_all: bool = True) -> None:
        if self.is_down:
            raise self._why_down()
        if not self._core.is_leader:
            raise self.not_leader()
        _, high = self._settings.election_seconds
        if of_all and not self._guard.hears_majority(high, self._clock.monotonic()):
            raise Unavailable(
                "no majority of the managers is in reach",
                remedy="Bring managers back; what runs goes on running meanwhile.",
            )

    def _why_down(self) -> SwarmError:
        if self._removal is not None:
            return self._removal
        if self._fault is None:
            return Unavailable("this manager is shutting down")
        remedy = self._fault.remedy if isinstance(self._fault, SwarmError) else "See this manager's log."
        return Unavailable(f"consensus has failed on this manager: {self._fault}", remedy=remedy)

    def not_leader(self) -> NotLeader:
        return NotLeader(leader=self._leader_name())

    def _leader_name(self) -> str:
        leader = self._leader_elsewhere(self._clock.monotonic())
        return leader.node_id if leader is not None else ""

    def _leader_elsewhere(self, now: float) -> Member | None:
        """The log knows a member best, but one that lags may not have read of its leader yet."""
        heard = self._guard.heard_leader(now)
        return heard and (self._addresses.find(heard.raft_id) or heard)

    def _give_up(self, why: Any) -> None:
        self._proposals.leadership_lost("")
        self._reads.refuse(why())
        self._roster.leadership_changed()


def _removal(by_node_id: str) -> NodeRemoved:
    return NodeRemoved(f"this manager was removed from the cluster, says manager {by_node_id}")


def _sorted(members: dict[str, Member]) -> tuple[Member, ...]:
    return tuple(members[raft_id] for raft_id in sorted(members))
