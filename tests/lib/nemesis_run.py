"""A nemesis run: a lab of managers, clients that write and read, rounds of faults, and the judgement.

    report = run_nemesis(NemesisOptions(seed=1, rounds=20, managers=3), directory)

The registers are made anew every few rounds, so that the history of each stays short enough to be judged however many
outcomes are unknown. At the end every fault is ended, each manager must answer a linearizable read within a deadline,
and those reads are part of the history.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import grpc.aio
from lib.linearizability import Violation
from lib.nemesis_clients import (
    CALL_SECONDS,
    LABEL,
    Client,
    LabelledConfig,
    NamedConfig,
    Register,
    ScaledService,
    impossible_service,
)
from lib.nemesis_driver import NemesisDriver
from lib.nemesis_faults import Round, name_of, plan
from lib.nemesis_history import History
from lib.nemesis_host import NemesisHost

from pyswarm.deploy.lab.lab import Lab
from pyswarm.proto.errors import AlreadyExists, NotFound, NotLeader, SwarmError, Unavailable
from pyswarm.proto.rpc.client import open_unix_channel
from pyswarm.proto.v1 import control_pb2 as pb
from pyswarm.proto.v1 import control_pb2_grpc, types_pb2

RECOVERY_SECONDS = 30.0
"""Within this time after the last fault every manager must answer: the supervisor's pause before it starts a daemon
again that keeps dying is at most 5 s, and one of them may have to be sent a snapshot."""

T = TypeVar("T")
Say = Callable[[str], None]


@dataclass(frozen=True)
class NemesisOptions:
    seed: int
    rounds: int
    managers: int = 3
    clients: int = 8
    rounds_of_a_register: int = 8
    has_jumping_clocks: bool = True
    kinds: frozenset[str] = frozenset()
    """Only faults whose name begins with one of these words; empty: all."""

    seconds_max: float = 3600.0
    """No round begins later than this after the first."""


@dataclass
class NemesisReport:
    options: NemesisOptions
    rounds: int
    seconds: float
    brought: Counter[str]
    ends: Counter[str]
    acknowledged_writes: int
    terms: int
    """By how many terms consensus moved on."""

    recovery_seconds: float
    unexpected: list[str]
    violation: Violation | None
    operations: int
    slowest_rounds: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        ends = ", ".join(f"{end} {count}" for end, count in sorted(self.ends.items()))
        brought = ", ".join(f"{kind} {count}" for kind, count in sorted(self.brought.items()))
        return (
            f"seed {self.options.seed}: {self.rounds} rounds on {self.options.managers} managers in"
            f" {self.seconds:.0f} s, {self.terms} terms, recovered in {self.recovery_seconds:.1f} s\n"
            f"  faults: {brought}\n  operations: {self.operations} ({ends})"
        )


@contextmanager
def nemesis_lab(options: NemesisOptions, directory: Path) -> Iterator[list[NemesisHost]]:
    """A formed lab of managers with disks and clocks of their own; nothing is left of it afterwards."""
    lab = Lab.create(f"nem{options.seed}", managers=options.managers, workers=0, labs=directory)
    hosts = [NemesisHost(host, lab.directory) for host in lab.hosts.values()]
    try:
        lab.start_network()
        for host in hosts:
            if options.has_jumping_clocks:
                host.prepare_clock()
            lab.boot(host.name)
            host.mount_disk()
        lab.form_cluster()
        yield hosts
    except BaseException:
        # The lab takes its hosts' disks with it: what the managers said of a run that failed would be lost.
        for host in hosts:
            log = host.host.state / "var/log/pyswarm/pyswarm-manager.log"
            if log.exists():
                (directory / f"manager-{options.seed}-{host.name}.log").write_bytes(log.read_bytes())
        raise
    finally:
        lab.down()


def run_nemesis(options: NemesisOptions, directory: Path, say: Say = lambda _: None) -> NemesisReport:
    """Run it all and judge. The history is saved in `directory` when it is not what it should be."""
    with nemesis_lab(options, directory / "labs") as hosts:
        return asyncio.run(_run(options, hosts, directory, say))


async def _run(options: NemesisOptions, hosts: Sequence[NemesisHost], directory: Path, say: Say) -> NemesisReport:
    async with AsyncExitStack() as stack:
        channels = [open_unix_channel(host.socket) for host in hosts]
        for channel in channels:
            stack.push_async_callback(channel.close, None)
        run = _Run(options, hosts, channels, say)
        try:
            report = await run.all_rounds()
        except BaseException:
            run.history.save(directory / f"history-{options.seed}.jsonl")
            raise
    if report.violation is not None or report.unexpected:
        run.history.save(directory / f"history-{options.seed}.jsonl")
    return report


class _Run:
    def __init__(
        self,
        options: NemesisOptions,
        hosts: Sequence[NemesisHost],
        channels: Sequence[grpc.aio.Channel],
        say: Say,
    ) -> None:
        self._options = options
        self._hosts = hosts
        self._controls = [control_pb2_grpc.ControlStub(channel) for channel in channels]
        self._say = say
        self.history = History(now=asyncio.get_running_loop().time)
        self._driver = NemesisDriver(hosts, self._leader)
        source = random.Random(options.seed ^ 0xC11E)
        self._clients = [
            Client(number, self.history, channels, random.Random(source.random()))
            for number in range(1, options.clients + 1)
        ]
        self._registers: list[Register] = []

    async def all_rounds(self) -> NemesisReport:
        options = self._options
        first_term = (await self._eventually(self._info)).term
        started = time.monotonic()
        done = 0
        planned = plan(options.seed, options.rounds, options.managers, kinds=options.kinds)
        for number in range(0, options.rounds, options.rounds_of_a_register):
            if time.monotonic() - started > options.seconds_max:
                break
            block = planned[number : number + options.rounds_of_a_register]
            await self._block(block)
            done += len(block)
        seconds = time.monotonic() - started
        recovery = self._recovered_in
        return NemesisReport(
            options=options,
            rounds=done,
            seconds=seconds,
            brought=self._driver.brought,
            ends=self.history.ends,
            acknowledged_writes=self.history.acknowledged_writes,
            terms=(await self._eventually(self._info)).term - first_term,
            recovery_seconds=recovery,
            unexpected=self.history.unexpected,
            violation=await asyncio.to_thread(self.history.violation),
            operations=len(self.history.operations),
        )

    _recovered_in = 0.0

    async def _block(self, rounds: Sequence[Round]) -> None:
        """Some rounds on fresh registers, which end healed, read through every manager and removed."""
        self._registers = await self._make_registers(rounds[0].number)
        try:
            async with asyncio.TaskGroup() as group:
                clients = [group.create_task(client.run(lambda: self._registers)) for client in self._clients]
                for planned in rounds:
                    self._say(f"round {planned.number}: {', '.join(map(name_of, planned.faults))}")
                    await self._driver.run(planned)
                for client in clients:
                    client.cancel()
        finally:
            await self._driver.heal()
        started = time.monotonic()
        for control in self._controls:
            for register in self._registers:
                await self._eventually(lambda r=register, c=control: self._final_read(r, c))  # type: ignore[misc]
        self._recovered_in = max(self._recovered_in, time.monotonic() - started)
        await self._remove_registers()

    async def _final_read(self, register: Register, control: control_pb2_grpc.ControlStub) -> None:
        if await self._clients[0].read(register, control) is None:
            raise Unavailable(f"{register.key} could not be read: {self.history.last_failure}")

    # -- registers

    async def _make_registers(self, number: int) -> list[Register]:
        made: list[Register] = [NamedConfig(f"name-{number}", f"name-{number}")]
        for kind in ("cas-a", "cas-b", "blind"):
            key = f"{kind}-{number}"
            id = await self._eventually(lambda key=key: self._make_config(key))  # type: ignore[misc]
            made.append(LabelledConfig(key, id, is_conditional=kind != "blind"))
        key = f"service-{number}"
        made.append(ScaledService(key, await self._eventually(lambda: self._make_service(key))))
        return made

    async def _make_config(self, name: str) -> str:
        spec = types_pb2.ConfigSpec(name=name, data=b"-")
        control = self._any_control()
        try:
            return (await control.CreateConfig(pb.CreateConfigRequest(spec=spec), timeout=CALL_SECONDS)).id
        except AlreadyExists:
            # By an attempt of ours whose outcome was unknown.
            return (await control.ListConfigs(pb.ListConfigsRequest(ids=[name]), timeout=CALL_SECONDS)).configs[0].id

    async def _make_service(self, name: str) -> str:
        spec = impossible_service(name, "", replicas=1)
        del spec.labels[LABEL]
        control = self._any_control()
        try:
            return (await control.CreateService(pb.CreateServiceRequest(spec=spec), timeout=CALL_SECONDS)).id
        except AlreadyExists:
            listed = await control.ListServices(pb.ListServicesRequest(ids=[name]), timeout=CALL_SECONDS)
            return listed.services[0].id

    async def _remove_registers(self) -> None:
        for register in self._registers:
            await self._eventually(lambda r=register: self._remove(r))  # type: ignore[misc]

    async def _remove(self, register: Register) -> None:
        control = self._any_control()
        try:
            if isinstance(register, ScaledService):
                await control.RemoveService(pb.RemoveServiceRequest(id=register.id), timeout=CALL_SECONDS)
            else:
                id = register.id if isinstance(register, LabelledConfig) else register.key
                await control.RemoveConfig(pb.RemoveConfigRequest(id=id), timeout=CALL_SECONDS)
        except NotFound:
            pass  # a name that was free, or an attempt whose outcome was unknown

    # -- asking, with a deadline

    def _any_control(self) -> control_pb2_grpc.ControlStub:
        return self._clients[0].random.choice(self._controls)

    async def _info(self) -> pb.Info:
        return await self._any_control().GetInfo(pb.GetInfoRequest(), timeout=0.3)

    async def _leader(self) -> str | None:
        """Return the name of the host that says it leads in the highest term; None when nobody does."""

        async def ask(control: control_pb2_grpc.ControlStub) -> pb.Info | None:
            try:
                return await control.GetInfo(pb.GetInfoRequest(), timeout=0.3)
            except SwarmError:
                return None

        infos = await asyncio.gather(*map(ask, self._controls))
        leading = [
            (info.term, host.name) for info, host in zip(infos, self._hosts, strict=True) if info and info.is_leader
        ]
        return max(leading)[1] if leading else None

    async def _eventually(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask until it succeeds. Raises TimeoutError with the last failure after RECOVERY_SECONDS."""
        deadline = time.monotonic() + RECOVERY_SECONDS
        while True:
            try:
                return await ask()
            except (Unavailable, NotLeader) as error:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"not within {RECOVERY_SECONDS:g} s of the last fault: {error}") from error
                await asyncio.sleep(0.05)
