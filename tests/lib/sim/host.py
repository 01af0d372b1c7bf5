"""One host of the simulation: a clock, a disk, and the real engine as a process that can be killed and started.

What runs here is `RaftEngine` with its core, guard, journal and snapshots; only its network, its disk, its clock and
its threads are simulated. A crash takes the process's disk and network away in that instant, and lets the rest of it
run into the void.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from contextvars import Context, copy_context
from pathlib import Path
from typing import Any, Protocol

from lib.sim.disk import MountedDisk, SimDisk
from lib.sim.network import SimNetwork, SimTransport
from lib.sim.oracle import InvariantBroken, Oracle
from lib.sim.virtual_time import HOST, VirtualDiskThread
from msgspec.structs import replace

from pyswarm.manager.raft.core import LEADER
from pyswarm.manager.raft.engine import RaftEngine
from pyswarm.manager.raft.port import Member, StateMachine
from pyswarm.manager.raft.settings import RaftSettings
from pyswarm.manager.raft.snapshots import SnapshotHeader, SnapshotStore
from pyswarm.manager.raft.state import FIRST_INDEX, open_state
from pyswarm.manager.sealing.sealer import Sealer
from pyswarm.proto.entropy import SeededEntropy


class World(Protocol):
    """What all hosts share."""

    rng: random.Random
    network: SimNetwork
    oracle: Oracle
    settings: RaftSettings

    def new_machine(self) -> StateMachine: ...

    def trace(self, *event: object) -> None: ...

    def broken(self, failure: BaseException) -> None:
        """A host met something that must never be: end the run."""


class SimEngine(RaftEngine):
    """The engine, overheard."""

    process: "Process"

    def _on_state_changed(self, _old: int, new: int) -> None:
        super()._on_state_changed(_old, new)
        if new == LEADER:
            self.process.elected(self._guard.term)

    def _fail(self, error: BaseException) -> None:
        self.process.failed(error)
        super()._fail(error)


class Overheard:
    """A state machine that tells the oracle what it is given."""

    def __init__(self, machine: StateMachine, process: "Process") -> None:
        self.machine = machine
        self._process = process
        self._at = (0, 0)

    def apply(self, index: int, payload: bytes) -> bytes:
        at, place = self._at
        if index < at:
            raise InvariantBroken(f"{self._process.host.name} applied index {index} after {at}")
        place = place + 1 if index == at else 0
        self._at = (index, place)
        self._process.applied(index, place, payload)
        return self.machine.apply(index, payload)

    def snapshot(self) -> Iterable[bytes]:
        return self.machine.snapshot()

    def restore(self, index: int, pieces: Iterable[bytes]) -> None:
        self.machine.restore(index, pieces)
        self._at = (index, 1 << 30)


class Process:
    """One incarnation: from start to stop, crash or failure."""

    def __init__(self, host: "SimHost", disk: MountedDisk) -> None:
        self.host = host
        self.disk = disk
        self.machine: Overheard
        self.engine: SimEngine
        self.transport: SimTransport
        self.is_alive = True
        self.failure: BaseException | None = None
        self.tasks: set[asyncio.Task[Any]] = set()
        self._observed: list[Any] = []

    def elected(self, term: int) -> None:
        if self.is_alive:
            self.host.world.trace("elected", self.host.name, term)
            self._judge(lambda: self.host.world.oracle.elected(term, self.host.member.raft_id))

    def applied(self, index: int, place: int, payload: bytes) -> None:
        if self.is_alive:
            self.host.world.trace("apply", self.host.name, index, payload)
            self._judge(lambda: self.host.world.oracle.apply(self.host.name, index, place, payload))

    def failed(self, error: BaseException) -> None:
        """The engine stops itself: it may do so for its disk's sake only."""
        if not self.is_alive:
            return
        self.failure = error
        self.host.world.trace("failed", self.host.name, type(error).__name__)
        if not self.host.may_fail:
            self.host.world.broken(InvariantBroken(f"{self.host.name} stopped for no fault of its disk: {error!r}"))

    def observe(self) -> None:
        """Show the oracle what is new in this member's log."""
        if not self.is_alive or not hasattr(self, "engine"):
            return
        entries = self.engine._journal._entries
        seen = {(index, term) for _, index, term in self._observed[-64:]}
        start = len(entries)
        while start > 0 and entries[start - 1][1:] not in seen:
            start -= 1
        self._observed = list(entries[-64:])
        self._judge(lambda: self.host.world.oracle.observed(entries[max(0, start - 1) :]))

    def _judge(self, judge: Callable[[], None]) -> None:
        try:
            judge()
        except InvariantBroken as broken:
            self.host.world.broken(broken)


class SimHost:
    """Implements `virtual_time.Machine` and `network.Place`."""

    def __init__(self, world: World, name: str, directory: Path) -> None:
        self.world = world
        self.name = name
        self.is_paused = False
        self.backlog: deque[asyncio.Handle] = deque()
        self.disk = SimDisk(random.Random(world.rng.random()))
        self.disk.blow = lambda: self.crash(power=True)
        self.process: Process | None = None
        self.starting: asyncio.Task[None] | None = None
        self.may_fail = False
        """Its disk has been tampered with since it started, so that it may stop itself."""
        self.is_damaged = False
        """A bit of its disk was flipped: it must refuse to start."""
        self.stall_until = 0.0
        self.clock_rate = 1.0
        self._clock_offset = world.rng.uniform(0, 1000)
        self._births = 0
        self._moves = 0
        self._directory = directory
        self.member = self._new_member()
        self.sealer = Sealer(world.rng.randbytes(32))
        self.context: Context = copy_context()
        self.context.run(HOST.set, self)

    def _new_member(self) -> Member:
        self._births += 1
        raft_id = f"{self.name}{self._births}"
        return Member(raft_id, f"node-{self.name}", f"{self.name}:7946", f"{self.name}:2377")

    def move(self) -> None:
        """Be found under another address from the next start on."""
        self._moves += 1
        self.member = replace(self.member, raft_addr=f"{self.name}-{self._moves}:7946")

    # -- its clock and its threads

    def monotonic(self) -> float:
        return self._clock_offset + asyncio.get_running_loop().time() * self.clock_rate

    def now(self) -> float:
        return 1.7e9 + self.monotonic()

    def job_seconds(self) -> tuple[float, float]:
        rng = self.world.rng
        stall = max(0.0, self.stall_until - asyncio.get_running_loop().time())
        return rng.uniform(0.0, 0.001) + stall, rng.uniform(0.0001, 0.002)

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_at(when, callback, *args, context=self.context)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        return asyncio.get_running_loop().create_task(work, context=self.context)

    # -- its life

    @property
    def is_up(self) -> bool:
        return self.process is not None and self.process.is_alive

    @property
    def engine(self) -> SimEngine | None:
        process = self.process
        return process.engine if process is not None and process.is_alive and hasattr(process, "engine") else None

    def found(self, members: tuple[Member, ...]) -> None:
        """Lay down the first snapshot of a group whose `members` are there from the beginning."""
        directory = self._directory / self._births_name()
        (directory / "snapshots").mkdir(parents=True)
        noop = b"\x01"
        header = SnapshotHeader((noop, FIRST_INDEX - 1, 0), (noop, FIRST_INDEX, 0), members)
        store = SnapshotStore(directory / "snapshots", self.sealer, SeededEntropy(1), disk=self.disk.mount())
        store.write(header, self.world.new_machine().snapshot())

    def start(self) -> "asyncio.Task[None]":
        assert self.process is None, f"{self.name} runs already"
        # The process takes its share of the disk at once: a crash may come before it has opened anything.
        self.process = Process(self, self.disk.mount())
        self.starting = self.spawn(self._start(self.process))
        return self.starting

    async def _start(self, process: Process) -> None:
        world = self.world
        self.may_fail = self.disk.is_treacherous
        directory = self._directory / self._births_name()
        (directory / "snapshots").mkdir(parents=True, exist_ok=True)
        process.machine = Overheard(world.new_machine(), process)
        threads = VirtualDiskThread()
        entropy = SeededEntropy(world.rng.getrandbits(32))
        try:
            state = await asyncio.get_running_loop().run_in_executor(
                threads,
                lambda: open_state(
                    directory, sealer=self.sealer, member=self.member, members=(), machine=process.machine,
                    settings=world.settings, entropy=entropy, disk=process.disk,
                ),
            )  # fmt: skip
            if not process.is_alive:
                return
            if self.is_damaged:
                raise InvariantBroken(f"{self.name} believes a disk on which a bit has flipped")
            engine = SimEngine(
                member=self.member, state=state, state_machine=process.machine, disk=threads,
                settings=world.settings, clock=self, entropy=entropy,
            )  # fmt: skip
            engine.process = process
            process.transport = SimTransport(world.network, self, self.member, engine)
            engine._assemble(process.transport)  # type: ignore[arg-type]
            engine._job._pace.hurry()
            process.engine = engine
            world.trace("start", self.name, engine.applied_index)
            running = self.spawn(engine.run())
            process.tasks.add(running)
            running.add_done_callback(lambda done: self._ended(process, done))
        except InvariantBroken as broken:
            world.broken(broken)
        except Exception as refusal:  # noqa: BLE001 - judged right here
            self._refused(process, refusal)

    def _refused(self, process: Process, refusal: Exception) -> None:
        if not process.is_alive:
            return
        process.is_alive = False
        self.process = None
        self.world.trace("refused", self.name, type(refusal).__name__)
        if not (self.is_damaged or self.may_fail):
            broken = InvariantBroken(f"{self.name} refuses to start on a disk that lost nothing: {refusal!r}")
            broken.__cause__ = refusal
            self.world.broken(broken)

    def _ended(self, process: Process, done: "asyncio.Task[None]") -> None:
        """The engine's own end: a stop, or a failure it has told of."""
        if not process.is_alive:
            # What a dead process thinks of its end does not matter; it is looked at so that nobody wonders.
            _ = done.cancelled() or done.exception()
            return
        process.is_alive = False
        process.disk.is_gone = True
        self.process = None
        failure = None if done.cancelled() else done.exception()
        if failure is not None and process.failure is None:
            self.world.broken(InvariantBroken(f"{self.name}: {failure!r}"))

    def crash(self, *, power: bool) -> None:
        """SIGKILL, or the loss of power."""
        process, self.process = self.process, None
        if process is None:
            return
        self.world.trace("crash", self.name, power)
        process.is_alive = False
        process.disk.is_gone = True
        # What was held up while it was paused runs into the void as well.
        self.resume()
        if hasattr(process, "transport"):
            process.transport.close()
        if power:
            self.disk.cut_power()
        for task in list(process.tasks):
            task.cancel()

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        if self.is_paused:
            self.is_paused = False
            asyncio.get_running_loop().resume(self)  # type: ignore[attr-defined]

    def reborn(self) -> None:
        """Forget everything and be a new member: what an operator does with a damaged or removed one."""
        assert self.process is None
        self.disk.wipe()
        self.is_damaged = False
        self.member = self._new_member()
        self.sealer = Sealer(self.world.rng.randbytes(32))

    def serve(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Do a client's work in this process; it dies with it."""
        process = self.process
        assert process is not None
        task = self.spawn(work)
        process.tasks.add(task)
        task.add_done_callback(process.tasks.discard)
        return task

    def _births_name(self) -> str:
        return f"{self.name}-{self._births}"


def process_of(host: SimHost) -> Process:
    assert host.process is not None, f"{host.name} is down"
    return host.process
