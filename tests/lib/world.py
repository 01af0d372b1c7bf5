"""A cluster on a virtual clock: the real decisions, applied to a snapshot, with simulated agents that obey them.

    world = World(nodes=3); world.create(spec); world.settle()

`settle` lets managers decide and agents act until nothing changes and no moment is left to wait for; it fails
when that takes more rounds than any honest change needs, so a decision that never comes to rest is found.
"""

from collections.abc import Callable
from itertools import count
from math import inf

from lib.builders import FakeClock, a_cluster, a_node
from msgspec.structs import replace

from pyswarm.manager.orchestrator import services
from pyswarm.manager.orchestrator.reaper import reap
from pyswarm.manager.orchestrator.reconcile import reconcile
from pyswarm.manager.scheduler.schedule import schedule
from pyswarm.manager.store.changes import Change, Create, Plan, Update
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.proto.model.objects import Node, Service, Task, TaskStatus
from pyswarm.proto.model.spec import ServiceSpec
from pyswarm.proto.model.states import Availability, NodeState, TaskState

ROUNDS_MAX = 400

WORK_SECONDS = 10.0
"""How long the container of a job works."""


class World:
    """`after_round` hooks see every state the world passes through."""

    def __init__(self, nodes: int = 3) -> None:
        self.clock = FakeClock()
        self.ids = (f"id{n:05}" for n in count(1))
        self.seen = Snapshot.of(a_cluster(), *(a_node(f"n{n}") for n in range(1, nodes + 1)), version=1)
        self.broken: set[str] = set()
        """Images whose containers end at once."""
        self.unwell: set[str] = set()
        """Images whose health checks never pass."""
        self.crash_after: dict[str, float] = {}
        """Images whose containers end badly after so many seconds."""
        self.dead: set[str] = set()
        """Nodes whose agents do nothing."""
        self.after_round: list[Callable[[World], None]] = []

    # -- what people do

    def create(self, spec: ServiceSpec) -> Service:
        self.apply(services.create_service(self.seen, spec, new_id=self.new_id).changes)
        return self.service(spec.name)

    def update(self, spec: ServiceSpec) -> None:
        service = self.service(spec.name)
        self.apply(services.update_service(self.seen, service.id, service.version, spec).changes)

    def scale(self, name: str, replicas: int) -> None:
        spec = self.service(name).spec
        assert spec.mode.replicated is not None
        mode = replace(spec.mode, replicated=replace(spec.mode.replicated, replicas=replicas))
        self.update(replace(spec, mode=mode))

    def kill(self, node_id: str) -> None:
        """The node loses power, and the dispatcher notices."""
        self.dead.add(node_id)
        self._set_node(node_id, NodeState.DOWN)

    def boot(self, node_id: str) -> None:
        """The node comes back; its containers died with it."""
        self.dead.discard(node_id)
        for task in self.seen.tasks_of_node(node_id):
            if TaskState.STARTING <= task.state <= TaskState.RUNNING:
                self._report(task, TaskState.FAILED, "the machine went down")
        self._set_node(node_id, NodeState.READY)

    def drain(
        self, node_id: str, availability: Availability = Availability.DRAIN, *, timeout_seconds: float = 0.0
    ) -> None:
        """Change a node's availability; tasks of a drained one may stay for so long until others run."""
        node = self.seen.node(node_id)
        assert node is not None
        spec = replace(node.spec, availability=availability, drain_timeout_seconds=timeout_seconds)
        self.apply([Update(replace(node, spec=spec, availability_since=self.clock.now()))])

    def join(self, node: Node) -> None:
        self.apply([Create(replace(node, status=replace(node.status, changed_at=self.clock.now())))])

    def fail(self, task: Task) -> None:
        """The task's program breaks."""
        self._report(task, TaskState.FAILED, "task: non-zero exit (1)")

    def end(self, task: Task) -> None:
        """The task's program ends well."""
        self._report(task, TaskState.COMPLETE)

    # -- what is seen

    def service(self, name: str) -> Service:
        found = self.seen.service_by_name(name)
        assert found is not None
        return found

    def tasks(self, name: str) -> tuple[Task, ...]:
        return self.seen.tasks_of_service(self.service(name).id)

    def fresh(self, name: str) -> list[Task]:
        """Live tasks of the service's present version."""
        version = self.service(name).spec_version
        return [t for t in self.tasks(name) if t.is_live and t.spec_version == version]

    def running(self, name: str) -> list[Task]:
        """Tasks that really run: on a live node, whatever is wished of them."""
        return [t for t in self.tasks(name) if t.state is TaskState.RUNNING and t.node_id not in self.dead]

    # -- time

    def settle(self) -> None:
        for _ in range(ROUNDS_MAX):
            moment = self.round()
            if moment is None:
                return
        raise AssertionError(f"the world did not come to rest in {ROUNDS_MAX} rounds")

    def round(self, *, not_after: float = inf) -> float | None:
        """Decide, act, and let time pass to the next moment; return None at rest, else the time."""
        moments = []
        changed = False
        for service_id in sorted({s.id for s in self.seen.services()} | {t.service_id for t in self.seen.tasks()}):
            plan = self._decide(service_id)
            changed |= bool(plan.changes)
            if plan.look_again_at is not None:
                moments.append(plan.look_again_at)
        waiting = [t for t in self.seen.tasks() if t.state is TaskState.PENDING]
        changed |= self.apply(schedule(self.seen, waiting, now=self.clock.now()).changes)
        changed |= self._agents_act()
        for hook in self.after_round:
            hook(self)
        if changed:
            self.clock.advance(0.05)
            return self.clock.now()
        moments += [t.status.timestamp + WORK_SECONDS for t in self._at_work()]
        moments += [moment for t in self.seen.tasks() if (moment := self._crashes_at(t)) is not None]
        later = [m for m in moments if m > self.clock.now()]
        if not later:
            return None
        self.clock.advance(min(*later, not_after) - self.clock.now())
        return self.clock.now()

    def _decide(self, service_id: str) -> Plan:
        service = self.seen.service(service_id)
        now = self.clock.now()
        plan = Plan() if service is None else reconcile(self.seen, service, now=now, new_id=self.new_id)
        if not plan.changes:
            plan = plan + reap(self.seen, service_id, now=now)
        self.apply(plan.changes)
        return plan

    def _agents_act(self) -> bool:
        """Each live agent takes one step for each of its tasks."""
        acted = False
        for task in list(self.seen.tasks()):
            node = self.seen.node(task.node_id)
            if node is None or node.id in self.dead or not TaskState.ASSIGNED <= task.state <= TaskState.RUNNING:
                continue
            acted |= self._agent_step(task)
        return acted

    def _agent_step(self, task: Task) -> bool:
        if task.desired_state > TaskState.COMPLETE:
            return self._report(task, TaskState.SHUTDOWN)
        if task.state < TaskState.READY:
            return self._report(task, TaskState.READY)
        crashes_at = self._crashes_at(task)
        if crashes_at is not None and crashes_at <= self.clock.now():
            return self._report(task, TaskState.FAILED, "task: non-zero exit (2)")
        if task in self._at_work() and task.status.timestamp + WORK_SECONDS <= self.clock.now():
            return self._report(task, TaskState.COMPLETE)
        if task.desired_state >= TaskState.RUNNING and task.state < TaskState.RUNNING:
            image = self._image(task)
            if image in self.broken:
                return self._report(task, TaskState.FAILED, "task: non-zero exit (1)")
            if image in self.unwell:
                return task.state < TaskState.STARTING and self._report(task, TaskState.STARTING)
            return self._report(task, TaskState.RUNNING)
        return False

    def _image(self, task: Task) -> str:
        revision = self.seen.revision_of(task)
        assert revision is not None
        return revision.task_template.container_spec.image

    def _crashes_at(self, task: Task) -> float | None:
        if task.state is not TaskState.RUNNING or task.node_id in self.dead:
            return None
        seconds = self.crash_after.get(self._image(task))
        return None if seconds is None else task.status.timestamp + seconds

    def _at_work(self) -> list[Task]:
        """Tasks of jobs that are running and will complete."""
        return [
            task
            for task in self.seen.tasks()
            if task.desired_state is TaskState.COMPLETE
            and task.state is TaskState.RUNNING
            and task.node_id not in self.dead
        ]

    # -- writing

    def new_id(self) -> str:
        return next(self.ids)

    def apply(self, changes: "tuple[Change, ...] | list[Change]") -> bool:
        if changes:
            stamped = [
                Create(replace(c.object, created_at=self.clock.now())) if isinstance(c, Create) else c for c in changes
            ]
            self.seen = self.seen.with_changes(stamped, version=self.seen.version + 1)
        return bool(changes)

    def _report(self, task: Task, state: TaskState, err: str = "") -> bool:
        now = self.clock.now()
        running_at = now if state is TaskState.RUNNING else task.status.running_at
        status = TaskStatus(state=state, timestamp=now, err=err, running_at=running_at)
        return self.apply([Update(replace(task, status=status))])

    def _set_node(self, node_id: str, state: NodeState) -> None:
        node = self.seen.node(node_id)
        assert node is not None
        status = replace(node.status, state=state, changed_at=self.clock.now())
        self.apply([Update(replace(node, status=status))])
