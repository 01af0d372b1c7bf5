"""Run one seed: a group of hosts, its clients and its nemesis, from the first message to the verdict.

    build the group · clients and nemesis for `FAULT_SECONDS` · peace · one more write, which everybody must hold

Everything random comes from the seed. What happened is summed up in a digest: the same seed gives the same digest,
in whatever process it runs (with PYTHONHASHSEED=0, because the core keeps its members in sets).
"""

import asyncio
import contextlib
import gc
import hashlib
import logging
import random
import tempfile
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pysyncobj.syncobj as syncobj
from lib.linearizability import Call, CompareAndSet, Operation, Read, Value, Write, find_violation
from lib.sim.disk import PowerLost
from lib.sim.host import SimHost
from lib.sim.mixes import Mix, mix_of
from lib.sim.nemesis import Nemesis
from lib.sim.network import CALM, SimNetwork
from lib.sim.oracle import InvariantBroken, Oracle
from lib.sim.registers import Registers, StoreRegisters, call_registers, call_store, payload_of
from lib.sim.virtual_time import HOST, VirtualLoop

from pyswarm.manager.raft.port import StateMachine
from pyswarm.manager.raft.rules import ALL_RULES, Rules
from pyswarm.manager.raft.settings import RaftSettings
from pyswarm.manager.store.conflict import Conflict
from pyswarm.proto.errors import NotLeader, OutcomeUnknown, Unavailable

FAULT_SECONDS = 5.0
PEACE_SECONDS = 60.0
"""Within which a healed group must make progress. It takes about one; a stalled stream is given up after five."""
CLIENTS = 4
KEYS = "xyz"
STORY_LINES = 60


@dataclass
class Report:
    seed: int
    mix: str
    digest: str
    operations: int = 0
    acknowledged: int = 0
    delivered: int = 0
    virtual_seconds: float = 0.0
    faults: dict[str, int] = field(default_factory=dict)


class Broken(Exception):
    """A seed that shows a defect: what was broken, and the end of the story."""

    def __init__(self, seed: int, mix: str, why: BaseException, story: list[str]) -> None:
        super().__init__(f"seed {seed} ({mix}): {why}")
        self.seed = seed
        self.why = why
        self.story = story


Course = Callable[["Simulation"], Awaitable[None]]


class Simulation:
    """Implements `host.World` and `nemesis.Group`."""

    def __init__(self, seed: int, mix: Mix, directory: Path, rules: Rules = ALL_RULES) -> None:
        self.mix = mix
        self.rng = random.Random(seed)
        self.settings = RaftSettings(
            snapshot_entries=mix.snapshot_entries,
            snapshot_tail_entries=min(5, mix.snapshot_entries // 5),
            segment_bytes=mix.segment_bytes,
            rules=rules,
        )
        self.oracle = Oracle()
        self.network = SimNetwork(random.Random(self.rng.random()), mix.weather, self.trace)
        self.story: deque[tuple[float, tuple[object, ...]]] = deque(maxlen=STORY_LINES)
        self.history: list[Operation] = []
        self._hash = hashlib.blake2b(digest_size=12)
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._numbers = iter(range(1, 1 << 30))
        self._is_over = False
        self.hosts = [SimHost(self, name, directory) for name in "abcdefg"[: mix.members]]
        for host in self.hosts:
            host.clock_rate = 1.0 + self.rng.uniform(-mix.skew, mix.skew)
        self.nemesis = Nemesis(self)

    # -- what the hosts share

    def new_machine(self) -> StateMachine:
        return StoreRegisters() if self.mix.is_store else Registers()

    def trace(self, *event: object) -> None:
        self._hash.update(repr((round(asyncio.get_running_loop().time(), 9), event)).encode())
        if event[0] not in ("deliver", "apply"):
            self.story.append((asyncio.get_running_loop().time(), event))

    def broken(self, failure: BaseException) -> None:
        if not self._broken.done():
            self._broken.set_exception(failure)

    def leader(self) -> SimHost | None:
        """Return whoever is sure to lead: of several, the one of the newest term."""
        leading = [h for h in self.hosts if h.engine is not None and h.engine.leadership.is_leader]
        return max(leading, key=lambda h: h.engine.leadership.term if h.engine is not None else 0, default=None)

    # -- the course of a run

    async def run(self, course: Course | None = None) -> None:
        """Let the seed's faults happen, or, instead, what `course` says."""
        life = asyncio.ensure_future(course(self) if course is not None else self._live())
        try:
            await asyncio.wait({life, self._broken}, return_when=asyncio.FIRST_COMPLETED)
            if self._broken.done():
                await self._broken
            await life
        finally:
            self._is_over = True
            life.cancel()
            self._broken.cancel()
            await self._end()

    def found(self) -> None:
        """Start all hosts as the members of a new group."""
        founders = tuple(host.member for host in self.hosts)
        for host in self.hosts:
            host.found(founders)
            host.start()

    async def elected(self) -> SimHost:
        """Wait until somebody leads, ready or not, and return it."""
        async with asyncio.timeout(PEACE_SECONDS):
            while (leader := self.leader()) is None:  # noqa: ASYNC110 - as fine as virtual time is cheap
                await asyncio.sleep(0.0005)
        return leader

    async def _live(self) -> None:
        self.found()
        clients = [asyncio.ensure_future(self._client(number)) for number in range(CLIENTS)]
        observer = asyncio.ensure_future(self._observe())
        await asyncio.sleep(self.rng.uniform(0.0, 1.5))
        await self.nemesis.rage(FAULT_SECONDS)
        self._is_over = True
        self.trace("peace")
        await asyncio.gather(*clients)
        await self._recover()
        observer.cancel()
        self._judge()

    async def _recover(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(PEACE_SECONDS):
                self.nemesis.make_peace()
                index = 0
                while not (self.nemesis.restore_everybody() and index and self._is_everybody_at(index)):
                    index = index or await self._last_write()
                    await asyncio.sleep(0.1)
        except TimeoutError:
            state = [(h.name, h.process is not None, h.engine and h.engine.report()) for h in self.hosts]
            raise InvariantBroken(f"no progress {PEACE_SECONDS:g} s after all was healed: {state}") from None
        self.trace("recovered", loop.time())

    async def _last_write(self) -> int:
        leader = self.leader()
        if leader is None or leader.engine is None or not leader.engine.leadership.is_ready:
            return 0
        for key in KEYS:
            if leader.engine is None:
                return 0
            await self._operate(99, leader, key, Write(f"last-{next(self._numbers)}"))
            await self._operate(99, leader, key, Read())
        engine = leader.engine
        is_done = len(self.history) >= 2 * len(KEYS) and all(o.end is not None for o in self.history[-2 * len(KEYS) :])
        return engine.applied_index if engine is not None and is_done else 0

    def _is_everybody_at(self, index: int) -> bool:
        places = {host.member for host in self.hosts}
        return all(
            h.engine is not None and h.engine.applied_index >= index and set(h.engine.members()) == places
            for h in self.hosts
        )

    def _judge(self) -> None:
        views: dict[int, str] = {}
        for host in self.hosts:
            process = host.process
            assert process is not None
            process.observe()
            machine: Any = process.machine.machine
            digest = views.setdefault(process.engine.applied_index, machine.digest())
            if digest != machine.digest():
                raise InvariantBroken(f"{host.name}'s state differs from another's at the same index")
        violation = find_violation(self.history)
        if violation is not None:
            raise InvariantBroken(str(violation))

    async def _observe(self) -> None:
        while True:
            await asyncio.sleep(0.25)
            for host in self.hosts:
                if host.process is not None:
                    host.process.observe()

    async def _end(self) -> None:
        """Let everybody end, so that nothing outlives the run."""
        for host in self.hosts:
            host.resume()
            host.crash(power=False)
        this = asyncio.current_task()
        others = {task for task in asyncio.all_tasks() if task is not this}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others)

    # -- clients

    async def _client(self, number: int) -> None:
        rng = random.Random(self.rng.random())
        seen: dict[str, Value] = {}
        while not self._is_over:
            await asyncio.sleep(rng.uniform(0.0, 0.12))
            host = self.leader() if rng.random() < 0.85 else rng.choice(self.hosts)
            if host is None or host.engine is None or host.is_paused:
                continue
            key = rng.choice(KEYS)
            value = f"{number}-{next(self._numbers)}"
            kind = rng.random()
            call: Call = Read() if kind < 0.4 else Write(value) if kind < 0.7 else CompareAndSet(seen.get(key), value)
            result = await self._operate(number, host, key, call)
            if isinstance(call, Read) and result is not False:
                seen[key] = result
            elif result is True and not isinstance(call, Read):
                seen[key] = call.value

    async def _operate(self, client: int, host: SimHost, key: str, call: Call) -> Value | bool:
        """Do one operation and write down what the client was told; False when nothing is known of it."""
        process = host.process
        assert process is not None
        loop = asyncio.get_running_loop()
        number = next(self._numbers)
        start = loop.time()
        perform = call_store if self.mix.is_store else call_registers
        task = host.serve(perform(process, number, key, call))
        await asyncio.wait({task})
        end: float | None = loop.time()
        result: Value | bool = False
        failure = asyncio.CancelledError() if task.cancelled() else task.exception()
        if not process.is_alive or isinstance(failure, asyncio.CancelledError | OutcomeUnknown):
            # Whoever answers for a dead process: the client has heard nothing.
            end = None
        elif failure is None:
            result, index, payload = task.result()
            if payload:
                self.oracle.acknowledge(index, payload)
        elif isinstance(failure, NotLeader | Unavailable | Conflict):
            if not self.mix.is_store and not isinstance(call, Read):
                self._refused(payload_of(number, key, call))
            return False
        else:
            raise failure
        if end is not None or not isinstance(call, Read):
            self.history.append(Operation(client, key, call, result, start, end))
        return result if end is not None else False

    def _refused(self, payload: bytes) -> None:
        try:
            self.oracle.refuse(payload)
        except InvariantBroken as broken:
            self.broken(broken)

    def report(self, seed: int) -> Report:
        known = sum(o.end is not None for o in self.history)
        return Report(
            seed, self.mix.name, self._hash.hexdigest(), len(self.history), known, self.network.delivered,
            asyncio.get_running_loop().time(), self.nemesis.counts,
        )  # fmt: skip


def simulate(seed: int, *, rules: Rules = ALL_RULES, mix: Mix | None = None) -> Report:
    """Run one seed. Raises Broken."""
    return _run(seed, mix or mix_of(seed), rules, None)


def play(course: Course, *, members: int = 3, rules: Rules = ALL_RULES, **of_mix: Any) -> None:
    """Run a script on `members` hosts whose links are calm. Raises Broken."""
    _run(1, Mix(name="script", members=members, weather=CALM, **of_mix), rules, course)


def _run(seed: int, mix: Mix, rules: Rules, course: Course | None) -> Report:
    with _sealed_off(seed) as directory:
        simulation: Simulation | None = None

        async def run() -> Report:
            nonlocal simulation
            simulation = Simulation(seed, mix, directory, rules)
            await simulation.run(course)
            return simulation.report(seed)

        loop = VirtualLoop()
        unexpected: list[str] = []
        # A dead process looks at nothing any more.
        loop.set_exception_handler(
            lambda _, context: (
                None if isinstance(context.get("exception"), PowerLost) else unexpected.append(_described(context))
            )
        )
        try:
            report = loop.run_until_complete(run())
            # What was left behind with nobody to look at it is told when it is collected.
            gc.collect()
            if unexpected:
                raise InvariantBroken(unexpected[0])
            return report
        except Exception as why:
            story = [] if simulation is None else [f"{when:10.4f} {event}" for when, event in simulation.story]
            raise Broken(seed, mix.name, why, story) from why
        finally:
            loop.close()


def _described(context: dict[str, Any]) -> str:
    return f"{context.get('message')}: {context.get('exception')!r}"


@contextlib.contextmanager
def _sealed_off(seed: int) -> Iterator[Path]:
    """Keep everything that is not the seed out of the run, and the run out of everything else."""
    state, clock, level = random.getstate(), syncobj.monotonicTime, logging.root.manager.disable
    random.seed(seed)
    syncobj.monotonicTime = _core_time
    logging.disable(logging.CRITICAL)
    shared = Path("/dev/shm")
    try:
        with tempfile.TemporaryDirectory(prefix="sim-", dir=shared if shared.is_dir() else None) as directory:
            yield Path(directory)
    finally:
        logging.disable(level)
        syncobj.monotonicTime = clock
        random.setstate(state)


def _core_time() -> float:
    host = HOST.get()
    assert isinstance(host, SimHost), "the core runs on some host"
    return host.monotonic()
