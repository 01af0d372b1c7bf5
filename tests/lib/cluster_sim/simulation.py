"""Run one seed: a whole cluster on a virtual clock, with faults, changes of its services, and a judge.

The manager is the real one but for consensus and the network: store, writer, dispatcher with its liveness, orchestrator
and scheduler run as they do in a daemon. Consensus is a group of one that is slow and changes its leader; nodes and
their agents are simulated (agent.py). Faults last `FAULT_SECONDS`; then everything heals, and within `PEACE_SECONDS`
exactly what is wanted must run.

Everything random comes from the seed.
"""

import asyncio
import contextlib
import logging
import random
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from lib.builders import a_cluster, a_service_spec
from lib.cluster_sim.agent import BROKEN, UNWELL, Held, SimAgent
from lib.cluster_sim.judge import InvariantBroken, Judge
from lib.sim.virtual_time import VirtualLoop
from msgspec.structs import replace

from pyswarm.manager.api.dispatcher import DispatcherEdge
from pyswarm.manager.dispatcher.liveness import BLIP_SECONDS
from pyswarm.manager.leader.loop import lead
from pyswarm.manager.orchestrator.services import create_service, update_service
from pyswarm.manager.orchestrator.slots import slot_key
from pyswarm.manager.raft.fake import SingleNodeConsensus
from pyswarm.manager.store.changes import Change, Create, Plan, Update
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.manager.store.store import Store
from pyswarm.manager.store.writer import Writer
from pyswarm.proto.entropy import SeededEntropy
from pyswarm.proto.errors import SwarmError
from pyswarm.proto.model.spec import (
    CronSchedule,
    GlobalJob,
    ReplicatedJob,
    RestartPolicy,
    ServiceSpec,
    UpdateConfig,
)
from pyswarm.proto.model.states import Availability, Concurrency, JobState, NodeState, TaskState, UpdateOrder

T = TypeVar("T")

FAULT_SECONDS = 90.0
PEACE_SECONDS = 180.0
"""A stopped update, its delays and the restart back-off of what failed are over long before."""

COMMIT_SECONDS = (0.001, 0.02)
ELECTION_SECONDS = (0.3, 1.5)
DECISION_SECONDS = (0.0, 0.3)
BETWEEN_FAULTS_SECONDS = (0.5, 8.0)
BETWEEN_BLIPS_SECONDS = 8.0
"""Of one node: two blips in quick succession are one longer one."""

STORY_LINES = 80


class Broken(Exception):
    """A seed that shows a defect: what was broken, and the end of the story."""

    def __init__(self, seed: int, why: BaseException, story: Iterable[str]) -> None:
        super().__init__("\n".join([f"seed {seed}: {type(why).__name__}: {why}", *story]))


@dataclass
class Report:
    seed: int
    commits: int = 0
    placements: int = 0
    nodes_lost: int = 0
    scheduled_runs: int = 0
    completions: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    virtual_seconds: float = 0.0
    digest: str = ""


class _LoopClock:
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    monotonic = now


class _SlowConsensus(SingleNodeConsensus):
    """A proposal takes a while each way: it can be lost before it counts, and count without anybody being told."""

    def __init__(self, store: Store, rng: random.Random) -> None:
        super().__init__(store)
        self._rng = rng

    async def propose(self, payload: bytes, *, timeout_seconds: float = 10.0) -> tuple[int, bytes]:
        await asyncio.sleep(self._rng.uniform(*COMMIT_SECONDS))
        outcome = await super().propose(payload, timeout_seconds=timeout_seconds)
        await asyncio.sleep(self._rng.uniform(*COMMIT_SECONDS))
        return outcome


class Simulation:
    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.clock = _LoopClock()
        self.entropy = SeededEntropy(seed)
        self.store = Store()
        self.consensus = _SlowConsensus(self.store, self.rng)
        self.writer = self._new_writer()
        self.edge: DispatcherEdge | None = None
        self.story: deque[str] = deque(maxlen=STORY_LINES)
        self.report = Report(seed)
        self.agents = {
            f"n{n}": SimAgent(
                f"n{n}",
                {"zone": "ab"[n % 2]},
                rng=self.rng,
                edge=lambda: self.edge,
                started=self._container_started,
            )
            for n in range(1, self.rng.randint(3, 6) + 1)
        }
        self.judge = Judge(self.agents)
        self._leading: asyncio.Task[None] | None = None
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._faulty: set[str] = set()
        self._blipped: dict[str, float] = {}

    async def run(self) -> Report:
        work = asyncio.create_task(self._run())
        try:
            await asyncio.wait([work, self._broken], return_when=asyncio.FIRST_COMPLETED)
            if self._broken.done():
                self._broken.result()
            await work
        finally:
            work.cancel()
            for agent in self.agents.values():
                agent.cut_power()
            await self._stop_leading()
            with contextlib.suppress(asyncio.CancelledError):
                await work
        self.report.placements, self.report.nodes_lost = self.judge.placements, self.judge.nodes_lost
        self.report.scheduled_runs = self.judge.runs
        self.report.completions = sum(t.state is TaskState.COMPLETE for t in self.store.view.tasks())
        self.report.commits = self.store.view.version
        self.report.virtual_seconds = asyncio.get_running_loop().time()
        self.report.digest = self.store.digest()
        return self.report

    async def _run(self) -> None:
        await self.writer.write([Create(a_cluster(version=0)), *(Create(a.node) for a in self.agents.values())])
        watching = asyncio.create_task(self._watch())
        self._lead()
        for agent in self.agents.values():
            agent.boot()
        for spec in self._services():
            await self._write(lambda seen, spec=spec: create_service(seen, spec, new_id=self.entropy.new_id))
        loop = asyncio.get_running_loop()
        ends = loop.time() + FAULT_SECONDS
        async with asyncio.TaskGroup() as faults:
            while loop.time() < ends:
                await asyncio.sleep(self.rng.uniform(*BETWEEN_FAULTS_SECONDS))
                faults.create_task(self._fault())
        await self._heal()
        await self._converge()
        watching.cancel()

    # -- the manager

    def _new_writer(self) -> Writer:
        return Writer(self.consensus, self.store, clock=self.clock, entropy=self.entropy)

    def _lead(self) -> None:
        self.writer = self._new_writer()
        self.edge = DispatcherEdge(store=self.store, writer=self.writer, clock=self.clock, entropy=self.entropy)
        leading = lead(
            store=self.store,
            writer=self.writer,
            clock=self.clock,
            entropy=self.entropy,
            consensus=self.consensus,
            aside=self._aside,
            also=[self.edge.run],
        )
        self._leading = asyncio.create_task(leading)
        self._leading.add_done_callback(self._ended)

    async def _aside(self, decide: Callable[[], T], *, tasks: int) -> T:
        """Decide on the view of now, and come late with it: as a thread does that takes its time."""
        decision = decide()
        await asyncio.sleep(self.rng.uniform(*DECISION_SECONDS))
        return decision

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and task.exception() is not None and not self._broken.done():
            self._broken.set_exception(task.exception() or AssertionError("the leader's loops ended"))

    async def _stop_leading(self) -> None:
        leading, self._leading, self.edge = self._leading, None, None
        if leading is not None:
            leading.cancel()
            await asyncio.wait([leading])

    # -- the judge's eyes

    async def _watch(self) -> None:
        _, commits = self.store.view_and_watch(limit=1_000_000)
        with commits:
            async for commit in commits:
                for event in commit.events:
                    self._tell(f"v{commit.version} {event.action} {_short(event.object)}")
                self._judged(lambda commit=commit: self.judge.committed(commit, self.clock.now()))

    def _container_started(self, agent: SimAgent, held: Held) -> None:
        self._tell(f"{agent.node_id}: {held.assigned.task.id[:6]} runs")
        self._judged(lambda: self.judge.started(held, self.store.view, self.clock.now()))

    def _judged(self, look: Any) -> None:
        try:
            look()
        except InvariantBroken as broken:
            if not self._broken.done():
                self._broken.set_exception(broken)

    def _tell(self, what: str) -> None:
        self.story.append(f"{asyncio.get_running_loop().time():10.3f} {what}")

    # -- what people do

    def _services(self) -> list[ServiceSpec]:
        specs = [self._service(f"s{number}") for number in range(self.rng.randint(1, 3))]
        return specs + self.rng.choice([[], [self._job("job")], [self._scheduled("cron")], [self._job("job")]])

    def _job(self, name: str) -> ServiceSpec:
        total = self.rng.randint(1, 8)
        job = self.rng.choice([ReplicatedJob(self.rng.randint(1, 4), total), ReplicatedJob(0, total), GlobalJob()])
        return a_service_spec(name, image="web:1", job=job, restart=RestartPolicy(delay_seconds=1.0))

    def _scheduled(self, name: str) -> ServiceSpec:
        concurrency = self.rng.choice([Concurrency.ALLOW, Concurrency.FORBID, Concurrency.REPLACE])
        schedule = CronSchedule("* * * * *", concurrency=concurrency, missed_run_window_seconds=30.0)
        return replace(self._job(name), schedule=schedule)

    def _service(self, name: str) -> ServiceSpec:
        order = self.rng.choice([UpdateOrder.STOP_FIRST, UpdateOrder.START_FIRST])
        update = UpdateConfig(
            parallelism=self.rng.randint(0, 2),
            delay_seconds=self.rng.choice([0.0, 1.0]),
            order=order,
            monitor_seconds=2.0,
            canary=self.rng.choice([(), (), ("1",), ("1", "2")]),
        )
        return a_service_spec(
            name,
            image="web:1",
            replicas=self.rng.randint(1, 6),
            is_global=self.rng.random() < 0.2,
            constraints=self.rng.choice([(), (), ("node.labels.zone==a",)]),
            reserve_cpus=self.rng.choice([0, 0.1]),
            restart=RestartPolicy(delay_seconds=self.rng.choice([0.0, 1.0, 5.0])),
            update=update,
        )

    async def _write(self, decide: Any) -> None:
        """What a person does, and does again until a leader has taken it."""
        while True:
            try:
                await self.writer.update(decide, attempts=20)
                return
            except SwarmError:
                await asyncio.sleep(0.2)

    async def _change(self) -> None:
        service = self.rng.choice(list(self.store.view.services()))
        spec = service.spec
        kind = self.rng.random()
        if kind < 0.4 and spec.mode.replicated is not None:
            mode = replace(spec.mode, replicated=replace(spec.mode.replicated, replicas=self.rng.randint(0, 6)))
            spec = replace(spec, mode=mode)
        else:
            image = f"{self.rng.choice([BROKEN, UNWELL])}:1" if kind > 0.85 else f"web:{self.rng.randint(1, 9)}"
            spec = self._with_image(spec, image)
        self._tell(f"update {service.spec.name}")
        await self._respecify(service.id, spec)

    @staticmethod
    def _with_image(spec: ServiceSpec, image: str) -> ServiceSpec:
        container = replace(spec.task_template.container_spec, image=image)
        return replace(spec, task_template=replace(spec.task_template, container_spec=container))

    async def _respecify(self, service_id: str, spec: ServiceSpec) -> None:
        def change(seen: Snapshot) -> Plan:
            service = seen.service(service_id)
            assert service is not None
            return update_service(seen, service.id, service.version, spec)

        await self._write(change)

    async def _set_availability(self, node_id: str, availability: Availability) -> None:
        def change(seen: Snapshot) -> Plan:
            node = seen.node(node_id)
            assert node is not None
            spec = replace(node.spec, availability=availability)
            changes: tuple[Change, ...] = (Update(replace(node, spec=spec, availability_since=self.clock.now())),)
            return Plan(() if spec == node.spec else changes)

        await self._write(change)

    # -- faults

    async def _fault(self) -> None:
        name, fault = self.rng.choice(
            [
                ("power", self._power_cut),
                ("blip", self._blip),
                ("blip", self._blip),
                ("cut", self._long_cut),
                ("leader", self._leader_change),
                ("leader", self._leader_change),
                ("update", self._change),
                ("update", self._change),
                ("drain", self._drain),
                ("crash", self._crash),
            ]
        )
        self.report.faults[name] += 1
        await fault()

    def _sound_node(self) -> SimAgent | None:
        now = self.clock.now()
        sound = [id for id in self.agents if id not in self._faulty and self._blipped.get(id, 0.0) <= now]
        return self.agents[self.rng.choice(sound)] if sound else None

    @contextlib.contextmanager
    def _faulty_node(self, what: str) -> Any:
        agent = self._sound_node()
        if agent is None:
            yield None
            return
        self._faulty.add(agent.node_id)
        self._tell(f"{agent.node_id}: {what}")
        yield agent
        self._tell(f"{agent.node_id}: recovers")
        agent.recover()
        self._faulty.discard(agent.node_id)
        self._blipped[agent.node_id] = self.clock.now() + BETWEEN_BLIPS_SECONDS

    async def _power_cut(self) -> None:
        with self._faulty_node("loses power") as agent:
            if agent is not None:
                agent.cut_power()
                await asyncio.sleep(self.rng.uniform(0.5, 20.0))

    async def _blip(self) -> None:
        with self._faulty_node("blip") as agent:
            if agent is not None:
                self.rng.choice([agent.freeze, agent.cut_off])()
                await asyncio.sleep(self.rng.uniform(0.1, BLIP_SECONDS))

    async def _long_cut(self) -> None:
        with self._faulty_node("cut off") as agent:
            if agent is not None:
                self.rng.choice([agent.freeze, agent.cut_off])()
                await asyncio.sleep(self.rng.uniform(5.0, 20.0))

    async def _leader_change(self) -> None:
        if self._leading is None:
            return
        self._tell("the leader dies")
        self.consensus.lose_leadership()
        await self._stop_leading()
        await asyncio.sleep(self.rng.uniform(*ELECTION_SECONDS))
        self.consensus.lead_again()
        self._tell("a new leader")
        self._lead()

    async def _drain(self) -> None:
        node_id = self.rng.choice(sorted(self.agents))
        self._tell(f"{node_id}: drained")
        await self._set_availability(node_id, Availability.DRAIN)
        await asyncio.sleep(self.rng.uniform(1.0, 15.0))
        await self._set_availability(node_id, Availability.ACTIVE)

    async def _crash(self) -> None:
        running = [(a, id) for a in self.agents.values() for id, held in sorted(a.tasks.items()) if held.is_running]
        if running:
            agent, task_id = self.rng.choice(running)
            self._tell(f"{agent.node_id}: {task_id[:6]} crashes")
            agent.crash(task_id)

    # -- peace

    async def _heal(self) -> None:
        self._tell("peace")
        for agent in self.agents.values():
            agent.recover()
        for service in list(self.store.view.services()):
            image = service.spec.task_template.container_spec.image
            if BROKEN in image or UNWELL in image:
                await self._respecify(service.id, self._with_image(service.spec, "web:10"))

    async def _converge(self) -> None:
        loop = asyncio.get_running_loop()
        ends = loop.time() + PEACE_SECONDS
        while wrong := self._what_is_wrong():
            if loop.time() > ends:
                raise InvariantBroken(f"{PEACE_SECONDS:g} s after the last fault: {wrong}")
            await asyncio.sleep(1.0)

    def _what_is_wrong(self) -> str:
        seen = self.store.view
        for node in seen.nodes():
            if node.status.state is not NodeState.READY:
                return f"node {node.id} is {node.status.state.name}"
        running = Counter(
            (held.assigned.task.service_id, held.assigned.task.slot or held.assigned.task.node_id)
            for agent in self.agents.values()
            for held in agent.tasks.values()
            if held.is_running and not self._is_job(seen, held)
        )
        services = [service for service in seen.services() if not service.spec.mode.is_job]
        wanted = Counter(key for service in services for key in self._wanted(service, seen))
        if running != wanted:
            return f"{dict(running)} runs, not {dict(wanted)}"
        jobs = [s for s in seen.services() if s.spec.mode.is_job and s.spec.schedule is None]
        return "; ".join(filter(None, (self._what_is_undone(seen, job) for job in jobs)))

    @staticmethod
    def _is_job(seen: Snapshot, held: Held) -> bool:
        service = seen.service(held.assigned.task.service_id)
        return service is not None and service.spec.mode.is_job

    def _what_is_undone(self, seen: Snapshot, service: Any) -> str:
        """A job's present run is complete when each of its slots has completed, and nothing of it works on."""
        tasks = [t for t in seen.tasks_of_service(service.id) if t.job_iteration == service.job_status.iteration]
        done = {slot_key(service, t) for t in tasks if t.state is TaskState.COMPLETE}
        job = service.spec.mode.replicated_job
        slots = set(range(1, job.total_completions + 1)) if job is not None else set(self.agents)
        is_over = service.job_status.state is JobState.COMPLETE and not any(t.is_live for t in tasks)
        return "" if done == slots and is_over else f"job {service.spec.name}: {sorted(done)} of {sorted(slots)} done"

    def _wanted(self, service: Any, seen: Snapshot) -> list[tuple[str, object]]:
        if service.spec.mode.replicated is not None:
            return [(service.id, slot) for slot in self._slots(service, seen)]
        constraints = service.spec.task_template.placement.constraints
        return [
            (service.id, id) for id, a in self.agents.items() if not constraints or a.node.spec.labels["zone"] == "a"
        ]

    @staticmethod
    def _slots(service: Any, seen: Snapshot) -> list[object]:
        """The slots in use: which numbers they have is not fixed, how many there are is."""
        slots = sorted({slot_key(service, t) for t in seen.tasks_of_service(service.id) if t.is_wanted})
        wanted = service.spec.mode.replicated.replicas
        return list(slots) if len(slots) == wanted else [f"{wanted} slots"]


def _short(subject: Any) -> str:
    status = getattr(subject, "status", None)
    state = getattr(getattr(status, "state", None), "name", "")
    desired = getattr(getattr(subject, "desired_state", None), "name", "")
    where = f"{getattr(subject, 'slot', '')} {getattr(subject, 'node_id', '')}"
    return f"{type(subject).__name__} {subject.id[:6]} {where} {state} {desired}".strip()


def simulate(seed: int) -> Report:
    """Run one seed to its end. Raises Broken."""
    logging.disable(logging.CRITICAL)
    loop = VirtualLoop()
    unexpected: list[str] = []
    loop.set_exception_handler(lambda _, context: unexpected.append(f"{context}"))
    simulation: Simulation | None = None

    async def run() -> Report:
        nonlocal simulation
        simulation = Simulation(seed)
        return await simulation.run()

    try:
        report = loop.run_until_complete(run())
        if unexpected:
            raise InvariantBroken(unexpected[0])
        return report
    except Exception as why:
        raise Broken(seed, why, [] if simulation is None else simulation.story) from why
    finally:
        loop.close()
        logging.disable(logging.NOTSET)
