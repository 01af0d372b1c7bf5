"""One cluster of one size from its first agent to its last figure: join, fill, rest, update, failures.

`measure` returns the figures of one size; what they mean is in docs/reference/performance.md.
"""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib.scale.fleet import Fleet, fleet
from lib.scale.managers import Managers, first_manager
from lib.scale.probe import Probe, percentile

from pyswarm.proto.codec.messages import to_message
from pyswarm.proto.errors import NotLeader, Unavailable
from pyswarm.proto.model.resources import Resources
from pyswarm.proto.model.spec import (
    ContainerSpec,
    ReplicatedMode,
    ResourceRequirements,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
)
from pyswarm.proto.rpc.client import open_unix_channel
from pyswarm.proto.v1 import control_pb2 as pb
from pyswarm.proto.v1 import control_pb2_grpc, types_pb2

REPLICAS_OF_A_SERVICE = 500
SERVICES_PER_WRITE = 10
UPDATED_REPLICAS_MAX = 10_000
UPDATE_STEPS = 20
AT_ONCE_MIN = 5
UPDATED = "rolling"
LOOK_SECONDS = 0.5
FAILURES_MAX = 200


@dataclass(frozen=True)
class Size:
    agents: int
    tasks: int
    rest_seconds: float = 20.0
    failing_seconds: float = 60.0
    failures_per_minute: float = 0.01
    """Part of the agents that lose power each minute."""

    patience_seconds: float = 900.0

    @property
    def updated_replicas(self) -> int:
        return min(UPDATED_REPLICAS_MAX, self.tasks // 3)


@dataclass
class Phase:
    """What one phase cost: seconds, processor time of each manager, entries and reports committed."""

    name: str
    seconds: float
    cpu: list[float]
    entries: int
    reports: int
    api_seconds: dict[str, list[float]]

    @property
    def api_all(self) -> list[float]:
        return [seconds for kind in self.api_seconds.values() for seconds in kind]


@dataclass
class Run:
    size: Size
    managers: Managers
    fleet: Fleet
    controls: list[Any]
    probe: Probe
    phases: list[Phase] = field(default_factory=list)
    lost_tasks: int = 0

    async def phase(self, name: str, work: Any) -> Phase:
        """Await `work` and note what it cost."""
        self.probe.seconds = {}
        cpu = [manager.cpu_seconds for manager in self.managers.all]
        entries, reports, began = await self._version(), self.fleet.reports, time.monotonic()
        await work
        await self.fleet.look()
        seconds = time.monotonic() - began
        spent = [manager.cpu_seconds - before for manager, before in zip(self.managers.all, cpu, strict=True)]
        found = Phase(
            name,
            seconds,
            [round(part / seconds, 2) for part in sorted(spent, reverse=True)],
            await self._version() - entries,
            self.fleet.reports - reports,
            self.probe.seconds,
        )
        self.phases.append(found)
        print(row(found, self.managers), flush=True)
        return found

    async def _version(self) -> int:
        infos = await asyncio.gather(*(control.GetInfo(pb.GetInfoRequest(), timeout=30) for control in self.controls))
        return int(max(info.applied_version for info in infos))

    async def term(self) -> int:
        """Return the consensus group's term: it grows with each election."""
        infos = await asyncio.gather(*(control.GetInfo(pb.GetInfoRequest(), timeout=30) for control in self.controls))
        return int(max(info.term for info in infos))

    # -- the phases

    async def join(self, cluster: types_pb2.Cluster) -> None:
        root = cluster.root_ca
        await self.fleet.join(
            self.size.agents,
            token=root.join_tokens.worker,
            root_pem=root.certificate_pem,
            managers=self.managers.addresses,
        )
        await self.fleet.start()

    async def fill(self) -> None:
        """Create all services on one stream of writes, and wait until every task runs."""
        size = self.size
        specs = [service(UPDATED, size.updated_replicas, version=1)]
        left = size.tasks - size.updated_replicas
        while left > 0:
            replicas = min(REPLICAS_OF_A_SERVICE, left)
            specs.append(service(f"service-{len(specs):04}", replicas, version=1))
            left -= replicas
        stream = self.controls[0].Write(timeout=size.patience_seconds)
        requests = [pb.ClusterWrite(create_service=pb.CreateServiceRequest(spec=spec)) for spec in specs]
        for at in range(0, len(requests), SERVICES_PER_WRITE):
            await stream.write(pb.WriteRequest(writes=requests[at : at + SERVICES_PER_WRITE]))
            answer = await stream.read()
            failed = [result.error.message for result in answer.results if result.HasField("error")]
            assert not failed, failed
        await stream.done_writing()
        self.probe.service = specs[-1].name
        await self.fleet.until(lambda f: f.running == size.tasks, "all tasks to run", size.patience_seconds)

    async def update(self) -> None:
        """Roll a new version of the biggest service out, in twenty steps, and wait until the managers call it done."""
        found = await self._service(UPDATED)
        request = pb.UpdateServiceRequest(
            id=found.id, version=found.version, spec=service(UPDATED, self.size.updated_replicas, version=2)
        )
        await self._ask(lambda control: control.UpdateService(request, timeout=30))
        deadline = time.monotonic() + self.size.patience_seconds
        while (state := (await self._service(UPDATED)).update_status.state) != types_pb2.UpdateState.COMPLETED:
            assert time.monotonic() < deadline, f"the update is {types_pb2.UpdateState.Name(state)}"
            await asyncio.sleep(LOOK_SECONDS)

    async def _service(self, name: str) -> types_pb2.Service:
        request = pb.ListServicesRequest(ids=[name])
        answer = await self._ask(lambda control: control.ListServices(request, timeout=30))
        return answer.services[0]

    async def _ask(self, call: Callable[[Any], Awaitable[Any]]) -> Any:
        """Return what the first manager to answer says; every failure is noted with those of the probe."""
        for control in itertools.cycle(self.controls):
            try:
                return await call(control)
            except (Unavailable, NotLeader) as error:
                self.probe.failures.append(error.message)
                assert len(self.probe.failures) < FAILURES_MAX, self.probe.failures
                await asyncio.sleep(LOOK_SECONDS)
        raise AssertionError("unreachable: the managers come round and round")

    async def failures(self) -> None:
        """Cut the power of agents at the rate that was asked for, then wait until all tasks run again elsewhere."""
        size = self.size
        number = max(1, round(size.agents * size.failures_per_minute * size.failing_seconds / 60))
        pause = size.failing_seconds / number
        for _ in range(number):
            self.lost_tasks += await self.fleet.kill(1)
            await asyncio.sleep(pause)
        await self.fleet.until(lambda f: f.running == size.tasks, "lost tasks to run again", size.patience_seconds)


def service(name: str, replicas: int, *, version: int) -> types_pb2.ServiceSpec:
    steps = UpdateConfig(parallelism=max(AT_ONCE_MIN, replicas // UPDATE_STEPS), monitor_seconds=1.0)
    template = TaskSpec(
        container_spec=ContainerSpec(image=f"registry:5000/app:{version}", env=("MODE=production", "PORT=8080")),
        resources=ResourceRequirements(reservations=Resources(nano_cpus=50_000_000, memory_bytes=64 << 20)),
    )
    mode = ServiceMode(replicated=ReplicatedMode(replicas=replicas))
    spec = ServiceSpec(name=name, task_template=template, mode=mode, update_config=steps)
    return to_message(spec, types_pb2.ServiceSpec)


HEADER = (
    f"{'phase':10} {'s':>7} {'entries/s':>9} {'reports/s':>9} {'api p50':>8} {'p99':>8} {'max':>8}  "
    "cpu of each / RSS MiB"
)


def row(phase: Phase, managers: Managers) -> str:
    api = phase.api_all
    return (
        f"{phase.name:10} {phase.seconds:7.1f} "
        f"{phase.entries / phase.seconds:9.0f} {phase.reports / phase.seconds:9.0f} "
        f"{percentile(api, 50):8.3f} {percentile(api, 99):8.3f} {max(api, default=0):8.3f}  "
        f"{'/'.join(f'{part:.2f}' for part in phase.cpu)} "
        f"{'/'.join(f'{manager.rss_mib:.0f}' for manager in managers.all)}"
    )


@asynccontextmanager
async def cluster(size: Size, directory: Path) -> AsyncIterator[Run]:
    """Three managers and the processes for the agents, with the API watched all the time."""
    async with AsyncExitStack() as stack:
        managers = stack.enter_context(first_manager(directory))
        controls = []
        for number in range(3):
            if number:
                managers.join((await _cluster(controls[0])).root_ca.join_tokens.manager)
            channel = await stack.enter_async_context(open_unix_channel(managers.all[-1].paths.manager_socket))
            controls.append(control_pb2_grpc.ControlStub(channel))
        agents = await stack.enter_async_context(fleet(size.agents))
        probe = Probe(controls)
        async with asyncio.TaskGroup() as group:
            probing = group.create_task(probe.run())
            yield Run(size, managers, agents, controls, probe)
            probing.cancel()


async def _cluster(control: Any) -> types_pb2.Cluster:
    return await control.GetCluster(pb.GetClusterRequest(), timeout=30)


async def measure(size: Size, directory: Path) -> dict[str, Any]:
    """Run a cluster of this size through all phases; print a row for each and return the figures."""
    async with cluster(size, directory) as run:
        print(f"\n{size.agents} agents, {size.tasks} tasks\n{HEADER}", flush=True)
        await run.phase("join", run.join(await _cluster(run.controls[0])))
        filling = await run.phase("fill", run.fill())
        delays, run.fleet.dispatch_seconds = run.fleet.dispatch_seconds, []
        resting = await run.phase("rest", asyncio.sleep(size.rest_seconds))
        updating = await run.phase("update", run.update())
        failing = await run.phase("failures", run.failures())
        api: dict[str, list[float]] = {}
        for phase in run.phases:
            for kind, seconds in phase.api_seconds.items():
                api.setdefault(kind, []).extend(seconds)
        for kind, seconds in sorted(api.items()):
            print(
                f"  {kind:14} {len(seconds):6} calls, "
                f"p50 {percentile(seconds, 50):.3f}, p99 {percentile(seconds, 99):.3f} s"
            )
        for failure, times in Counter(run.probe.failures).items():
            print(f"  failed {times} times: {failure}")
        everything = [value for kind in api.values() for value in kind]
        return {
            "agents": size.agents,
            "tasks": size.tasks,
            "api_p50_s": round(percentile(everything, 50), 4),
            "api_p99_s": round(percentile(everything, 99), 3),
            "api_failures": len(run.probe.failures),
            "elections": await run.term() - 1,
            "fill_tasks_per_s": round(size.tasks / filling.seconds),
            "fill_entries_per_s": round(filling.entries / filling.seconds),
            "dispatch_p50_s": round(percentile(delays, 50), 3),
            "dispatch_p99_s": round(percentile(delays, 99), 3),
            "rest_leader_cpu": resting.cpu[0],
            "update_s": round(updating.seconds, 1),
            "failures_s": round(failing.seconds, 1),
            "lost_tasks": run.lost_tasks,
            "manager_rss_mib": round(max(manager.rss_mib for manager in run.managers.all)),
        }
