"""Take part in the managers' consensus group: the real `port.Consensus`, over PySyncObj.

The core is driven from the event loop by wake-ups: a message, a proposal or a tick of 25 ms leads to one pump, which ticks the
core, sends what needs no durability, syncs the journal once, and then sends what promises it. The leader counts its own
entries only in the tick after their sync (Raft thesis 10.2.1). A journal that cannot be written ends `run` with an error.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pysyncobj.syncobj as core_module
from msgspec import msgpack
from pysyncobj import SyncObj, SyncObjConf, replicated
from pysyncobj.config import FAIL_REASON
from pysyncobj.node import Node
from pysyncobj.version import VERSION

from pyswarm.manager.raft.guarded import commands
from pyswarm.manager.raft.guarded.guard import Guard
from pyswarm.manager.raft.guarded.journal import SealedJournal
from pyswarm.manager.raft.guarded.snapshots import FRAME_BYTES, SnapshotWriter, open_frame, read_snapshot, seal_frame
from pyswarm.manager.raft.guarded.streams import Streams
from pyswarm.manager.raft.guarded.wire import BadFrame, decode, encode
from pyswarm.manager.raft.leadership import LeadershipBoard
from pyswarm.manager.raft.port import Leadership, Member, StateMachine
from pyswarm.manager.raft.settings import RaftSettings, TlsProvider
from pyswarm.manager.sealing.sealer import Sealer
from pyswarm.proto.errors import FailedPrecondition, InvalidArgument, NotLeader, OutcomeUnknown, SwarmError, Unavailable
from pyswarm.proto.log import get_logger

log = get_logger(__name__)

assert VERSION == "0.3.17", f"the guard repairs PySyncObj 0.3.17 and was never tried with {VERSION}"

TICK_SECONDS = 0.025
CANDIDATE_STATE, LEADER_STATE = 1, 2
CONFIRM_SECONDS = 0.5
"""A leader that hears no majority confirm it for this long asks again."""

# Envelopes of what travels in regular commands.
_PROPOSAL, _MEMBER, _BARRIER = b"P", b"M", b"B"

_make_journal = core_module.createJournal
core_module.createJournal = lambda given: given if isinstance(given, SealedJournal) else _make_journal(given)


class _Core(SyncObj):  # type: ignore[misc]
    """The core with its one replicated method."""

    def __init__(self, apply: Callable[[int, bytes], bytes], *arguments: Any, **options: Any) -> None:
        self.apply = apply
        super().__init__(*arguments, **options)

    @replicated  # type: ignore[untyped-decorator, unused-ignore]
    def commit(self, body: bytes) -> bytes:
        # The core counts an entry as applied only after this: S8 is why `apply` never raises.
        return self.apply(self.raftLastApplied + 1, body)


class RaftEngine:
    """Implements `port.Consensus`. Life: `await open(...)`, then `run()` in the caller's TaskGroup, then `close()`."""

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
    ) -> "RaftEngine":
        """Read the disk, restore `state_machine`, bind the raft port. Nothing is sent before `run`.

        `members` is where a member with an empty `directory` starts: itself alone for the first manager of a cluster, the
        RaftJoinResponse's list (which includes itself) for a joiner. With state on disk it is ignored.

        Raises:
            JournalDamaged, SnapshotDamaged: the state on disk cannot be believed; says what to do.
            Unavailable: the port is taken.
        """
        engine = cls(member, state_machine, directory, sealer, settings)
        engine._streams = Streams(
            own=member,
            cluster_id=cluster_id,
            tls=tls,
            listen=listen,
            on_frame=engine._received,
            on_up=engine._link_up,
            on_down=engine._link_down,
        )
        engine._start_core(members)
        await engine._streams.bind()
        engine._streams.set_members(engine.members())
        return engine

    @staticmethod
    def has_state(directory: Path) -> bool:
        """Whether this member has taken part before: a restart, whose members are on its disk."""
        return (directory / "members.msgpack").exists()

    def __init__(
        self, member: Member, state_machine: StateMachine, directory: Path, sealer: Sealer, settings: RaftSettings
    ) -> None:
        self._member = member
        self._machine = state_machine
        self._directory = directory
        self._settings = settings
        self._sealer = sealer
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._snapshot_file = directory / "snapshot"
        self._snapshots = SnapshotWriter(self._snapshot_file, sealer)
        self._journal = SealedJournal(directory / "journal", sealer)
        self._known: dict[str, Member] = {member.raft_id: member}
        self._board = LeadershipBoard(Leadership(term=0, leader=None, is_leader=False, is_ready=False))
        self._loop = asyncio.get_running_loop()
        self._pump_is_due = False
        self._wake = asyncio.Event()
        self._failure: BaseException | None = None
        self._pending: dict[int, asyncio.Future[tuple[int, bytes]]] = {}
        self._pending_number = 0
        self._lead_from = 0
        self._is_booting = True
        self._changed = asyncio.Event()
        self._one_change = asyncio.Lock()
        self._streams: Streams
        self._core: _Core
        self._guard: Guard

    # -- starting

    def _start_core(self, members: Sequence[Member]) -> None:
        stored = self._read_members()
        for known in stored or members:
            self._known[known.raft_id] = known
        voters = {m.raft_id for m in stored or members}
        if self._snapshot_file.exists():
            header, _ = read_snapshot(self._snapshot_file, self._sealer)
            voters = set(header.voters)
            self._known |= {m.raft_id: m for m in header.members}
            self._journal.start_at(*header.entries())
        elif stored is not None:
            voters = set(self._read_first_voters())
        voters = self._with_logged_changes(voters)
        if stored is None:
            self._write_members(members)
        configuration = SyncObjConf(
            autoTick=False,
            appendEntriesUseBatch=False,
            appendEntriesPeriod=self._settings.heartbeat_seconds,
            appendEntriesBatchSizeBytes=4 * 1024 * 1024,
            raftMinTimeout=self._settings.election_seconds[0],
            raftMaxTimeout=self._settings.election_seconds[1],
            connectionTimeout=max(3.5, self._settings.election_seconds[1]),
            leaderFallbackTimeout=self._settings.quorum_lost_seconds,
            dynamicMembershipChange=True,
            commandsWaitLeader=False,
            journalFile=self._journal,
            fullDumpFile=str(self._snapshot_file),
            logCompactionMinEntries=self._settings.snapshot_entries,
            logCompactionMinTime=10**9,
            logCompactionBatchSize=FRAME_BYTES,
            useFork=False,
            serializer=self._begin_snapshot,
            serializeChecker=self._snapshots.check,
            deserializer=self._load_snapshot,
            onStateChanged=self._state_changed,
        )
        configuration.guard_clock = self._loop.time
        configuration.guard_on_membership = self._membership_changed
        others = [Node(raft_id) for raft_id in sorted(voters - {self._member.raft_id})]
        self._core = _Core(
            self._apply,
            Node(self._member.raft_id),
            others,
            conf=configuration,
            nodeClass=Node,
            transportClass=self._made,
        )
        # The first tick loads the snapshot; nobody is connected yet, so nothing else can happen.
        self._core.doTick(0.0)
        self._is_booting = False
        if self._failure is not None:
            raise self._failure

    def _made(self, core: Any, self_node: Node, others: set[Node]) -> Guard:
        self._guard = Guard(core, self_node, others)
        return self._guard

    def _with_logged_changes(self, voters: set[str]) -> set[str]:
        """Configurations are in force from the moment they are in the log, committed or not (repairs S12)."""
        for position in range(len(self._journal)):
            kind, payload = commands.split(self._journal[position][0])
            if kind == commands.MEMBERSHIP:
                action, _, raft_id = payload.decode().partition(":")
                (voters.add if action == "add" else voters.discard)(raft_id)
            elif kind == commands.REGULAR and payload[:1] == _MEMBER:
                known = msgpack.decode(payload[1:], type=Member)
                self._known[known.raft_id] = known
        return voters

    def _read_members(self) -> list[Member] | None:
        """Return every member that was ever known here, None at the first start."""
        try:
            stored = msgpack.decode((self._directory / "members.msgpack").read_bytes(), type=list[Member])
        except FileNotFoundError:
            return None
        # An address of our own may have changed since.
        return [m for m in stored if m.raft_id != self._member.raft_id] + [self._member]

    def _read_first_voters(self) -> list[str]:
        """Return the raft ids that the log begins with, when there is no snapshot yet."""
        return msgpack.decode((self._directory / "first-voters.msgpack").read_bytes(), type=list[str])

    def _write_members(self, members: Sequence[Member]) -> None:
        for name, content in (
            ("first-voters.msgpack", sorted(m.raft_id for m in members)),
            ("members.msgpack", list(members)),
        ):
            self._write(name, msgpack.encode(content))

    def _write(self, name: str, data: bytes) -> None:
        aside = self._directory / f"{name}.new"
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.rename(self._directory / name)

    # -- living

    async def run(self) -> None:
        """Take part until cancelled. Raises what broke when the journal or an invariant failed."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._streams.run(), name="raft-streams")
            group.create_task(self._tick(), name="raft-ticks")

    async def _tick(self) -> None:
        while True:
            self._pump()
            if self._failure is not None:
                raise self._failure
            try:
                async with asyncio.timeout(TICK_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                continue
            finally:
                self._wake.clear()

    async def close(self) -> None:
        """Stop taking part, flush and close the journal."""
        self._streams.close()
        self._board.close()
        self._fail_pending("this manager is stopping")
        self._snapshots.wait()
        self._core.destroy()

    def _pump(self) -> None:
        """One round: tick, send what may go, sync, send what promises."""
        if self._failure is not None:
            return
        try:
            self._guard.before_tick()
            self._core.doTick(0.0)
            self._send(promises=False)
            self._journal.flush()
            self._send(promises=True)
        except BaseException as error:
            self._failure = error
            self._wake.set()
            raise
        self._look()

    def _send(self, *, promises: bool) -> None:
        ready = [item for item in self._guard.outbox if item[2] == promises or promises]
        self._guard.outbox[:] = [item for item in self._guard.outbox if not (item[2] == promises or promises)]
        for raft_id, message, _ in ready:
            if message.get("serialized"):
                data, is_first, is_last = message["serialized"]
                # Sealed under our key on disk; the receiver seals it under its own.
                plain = open_frame(self._sealer, data) if data else b""
                message = {**message, "serialized": (plain, is_first, is_last)}
            self._streams.send(raft_id, encode(message))

    def _received(self, raft_id: str, body: bytes) -> None:
        """A frame came: show it to the guard, then pump. Runs in the reader's task."""
        if self._failure is not None:
            return
        try:
            message = decode(body)
        except BadFrame as error:
            raise ValueError(f"bad frame: {error}") from error
        if message.get("serialized"):
            plain, is_first, is_last = message["serialized"]
            message["serialized"] = (seal_frame(self._sealer, plain) if plain else b"", is_first, is_last)
        try:
            self._guard.deliver(raft_id, message)
        except BaseException as error:
            self._failure = error
        self._pump_soon()

    def _pump_soon(self) -> None:
        """Pump once in this round of the loop, however many frames and proposals come."""
        if not self._pump_is_due:
            self._pump_is_due = True
            self._loop.call_soon(self._pump_now)

    def _pump_now(self) -> None:
        self._pump_is_due = False
        try:
            self._pump()
        except Exception as error:  # noqa: BLE001 - `_tick` raises it in the owner's task
            log.error("this manager stops taking part in consensus", error=repr(error))
        if self._core.raftCommitIndex > self._core.raftLastApplied or self._guard.outbox:
            self._pump_soon()

    def _link_up(self, raft_id: str) -> None:
        self._guard.link_up(raft_id)
        self._pump_soon()

    def _link_down(self, raft_id: str) -> None:
        self._guard.link_down(raft_id)
        self._pump_soon()

    def _state_changed(self, _old: int, new: int) -> None:
        self._guard.state_changed(is_leader=new == LEADER_STATE, is_candidate=new == CANDIDATE_STATE)
        # The no-op of the new term comes next into the log; leading is ready once it is applied.
        self._lead_from = self._journal.last_index + 1
        if new != LEADER_STATE:
            self._fail_pending("leadership was lost while the write was under way")

    def _membership_changed(self) -> None:
        self._loop.call_soon(lambda: self._streams.set_members(self.members()))

    def _look(self) -> None:
        """Post the present leadership, and wake who waits for something to be applied or confirmed."""
        core = self._core
        node = core._getLeader()
        leads = bool(core._isLeader())
        # The core remembers its last leader for ever; one that has fallen silent is none.
        is_heard = leads or self._guard.silence_seconds() < self._settings.quorum_lost_seconds
        leader = self._known.get(node.id) if node is not None and is_heard else None
        self._board.post(
            Leadership(
                term=core.raftCurrentTerm,
                leader=leader,
                is_leader=leads,
                is_ready=leads and core.raftLastApplied >= self._lead_from,
            )
        )
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    # -- the state machine

    def _apply(self, index: int, body: bytes) -> bytes:
        """Apply one committed entry; never raises into the core (S8): a failure ends this member instead."""
        try:
            kind, rest = body[:1], body[1:]
            if kind == _PROPOSAL:
                return self._machine.apply(index, rest)
            if kind == _MEMBER:
                member = msgpack.decode(rest, type=Member)
                self._known[member.raft_id] = member
                self._write("members.msgpack", msgpack.encode(list(self._known.values())))
                self._membership_changed()
        except BaseException as error:  # noqa: BLE001 - raised by `run`
            self._failure = error
        return b""

    def _begin_snapshot(self, _file: str, data: tuple[Any, Any, Any]) -> None:
        last, before_last, cluster = data
        self._snapshots.begin(
            last, before_last, (node.id for node in cluster), self._known.values(), self._machine.snapshot()
        )

    def _load_snapshot(self, path: str) -> tuple[Any, Any, Any]:
        """Restore a snapshot. What does not verify ends this member before it can answer anything (S11)."""
        try:
            header, pieces = read_snapshot(Path(path), self._sealer)
            with open(path, "rb") as file:
                os.fsync(file.fileno())
            self._machine.restore(header.index, iter(pieces))
            self._known |= {m.raft_id: m for m in header.members}
            self._write("members.msgpack", msgpack.encode(list(self._known.values())))
        except BaseException as error:
            self._failure = error
            raise
        voters = set(header.voters)
        if self._is_booting:
            voters = self._with_logged_changes(voters)
        before_last, last = header.entries()
        self._membership_changed()
        return last, before_last, [Node(raft_id) for raft_id in sorted(voters)]

    # -- port.Consensus

    @property
    def self_member(self) -> Member:
        return self._member

    @property
    def leadership(self) -> Leadership:
        return self._board.present

    @property
    def applied_index(self) -> int:
        return int(self._core.raftLastApplied)

    def members(self) -> tuple[Member, ...]:
        ids = sorted({node.id for node in self._core.otherNodes} | {self._member.raft_id})
        return tuple(self._known[raft_id] for raft_id in ids if raft_id in self._known)

    def reachable(self) -> frozenset[str]:
        return self._guard.reachable()

    def watch_leadership(self) -> AsyncIterator[Leadership]:
        return self._board.watch()

    async def propose(self, payload: bytes, *, timeout_seconds: float = 10.0) -> tuple[int, bytes]:
        if len(payload) > self._settings.payload_bytes_max:
            raise InvalidArgument(
                f"a write of {len(payload)} bytes is too large",
                remedy=f"Write at most {self._settings.payload_bytes_max} bytes at once.",
            )
        return await self._commit(commands.regular(_PROPOSAL + payload), timeout_seconds)

    async def read_barrier(self, *, timeout_seconds: float = 5.0) -> int:
        """As the port. A majority confirms, after the call began, that this member still leads (read index)."""
        self._check_leads()
        term = self.leadership.term
        try:
            async with asyncio.timeout(timeout_seconds):
                while not self.leadership.is_ready:
                    self._check_leads()
                    await self._changed.wait()
                index = int(self._core.raftCommitIndex)
                await self._confirm_leadership(term)
                while self._core.raftLastApplied < index:
                    await self._changed.wait()
        except TimeoutError as error:
            raise Unavailable(
                "no majority of the managers answers",
                remedy="A majority of the managers must run and reach each other; see `pyswarm node ls` on another one.",
            ) from error
        return index

    async def _confirm_leadership(self, term: int) -> None:
        while True:
            number = self._guard.ping_all()
            self._pump_soon()
            try:
                async with asyncio.timeout(CONFIRM_SECONDS):
                    while not self._guard.confirmed(number):
                        self._check_leads(term)
                        await self._changed.wait()
                self._check_leads(term)
                return
            except TimeoutError:
                continue

    async def add_member(self, member: Member) -> None:
        async with self._one_change:
            if member.raft_id in {m.raft_id for m in self.members()}:
                return
            await self._commit(commands.regular(_MEMBER + msgpack.encode(member)), 10.0)
            await self._commit(commands.membership("add", member.raft_id), 10.0)
            self._streams.set_members(self.members())
        log.info("member added", raft_id=member.raft_id, node=member.node_id)

    async def remove_member(self, raft_id: str) -> None:
        async with self._one_change:
            present = {m.raft_id for m in self.members()}
            if raft_id not in present:
                return
            if raft_id == self._member.raft_id:
                raise FailedPrecondition("the leader cannot remove itself", remedy="Transfer leadership first.")
            rest = present - {raft_id}
            alive = len(rest & self.reachable())
            if alive < len(rest) // 2 + 1:
                raise FailedPrecondition(
                    f"only {alive} of the {len(rest)} managers that stay are reachable, which is no quorum",
                    remedy="Bring unreachable managers back, or remove those first.",
                )
            await self._commit(commands.membership("rem", raft_id), 10.0)
            self._streams.set_members(self.members())
        log.info("member removed", raft_id=raft_id)

    async def transfer_leadership(self) -> None:
        self._check_leads()
        if len(self.members()) < 2:
            raise FailedPrecondition("there is no other manager to lead", remedy="Add a manager first.")
        try:
            async with asyncio.timeout(self._settings.quorum_lost_seconds * 2):
                while self._core._isLeader():
                    # Refused until a follower has everything, so it is asked again as they catch up.
                    self._core.transferLeadership()
                    self._pump_soon()
                    await self._changed.wait()
        except TimeoutError as error:
            raise Unavailable("no other manager took leadership over", remedy="Try again.") from error
        log.info("leadership handed over", term=self.leadership.term)

    # -- proposing

    def _check_leads(self, term: int | None = None) -> None:
        leadership = self.leadership
        if not self._core._isLeader() or (term is not None and self._core.raftCurrentTerm != term):
            leader = leadership.leader
            raise NotLeader(leader=leader.api_addr if leader is not None and leader != self._member else "")

    async def _commit(self, command: bytes, timeout_seconds: float) -> tuple[int, bytes]:
        if self._failure is not None:
            raise Unavailable("this manager has stopped taking part in consensus", remedy="See its log.")
        self._check_leads()
        if len(self._pending) >= self._settings.proposals_max:
            raise Unavailable("too many writes are waiting", remedy="Try again.")
        self._pending_number += 1
        number = self._pending_number
        done: asyncio.Future[tuple[int, bytes]] = self._loop.create_future()
        self._pending[number] = done

        def finished(result: Any, reason: int) -> None:
            if done.done():
                return
            if reason == FAIL_REASON.SUCCESS:
                done.set_result((int(self._core.raftLastApplied) + 1, result or b""))
            else:
                done.set_exception(_failure(reason))

        self._core._applyCommand(command, finished)
        self._pump_soon()
        try:
            async with asyncio.timeout(timeout_seconds):
                return await done
        except TimeoutError as error:
            raise OutcomeUnknown("the write was not confirmed in time") from error
        finally:
            self._pending.pop(number, None)

    def _fail_pending(self, why: str) -> None:
        for done in self._pending.values():
            if not done.done():
                done.set_exception(OutcomeUnknown(why))


def _failure(reason: int) -> SwarmError:
    """Return what the core's reason for not committing means."""
    if reason in (FAIL_REASON.NOT_LEADER, FAIL_REASON.MISSING_LEADER):
        return NotLeader()
    if reason == FAIL_REASON.REQUEST_DENIED:
        return FailedPrecondition("the managers are changing already", remedy="Try again in a moment.")
    if reason == FAIL_REASON.QUEUE_FULL:
        return Unavailable("too many writes are waiting", remedy="Try again.")
    if reason == FAIL_REASON.DISCARDED:
        return Unavailable("another leader's entry took the write's place: nothing was written", remedy="Try again.")
    return OutcomeUnknown("leadership changed while the write was under way")
