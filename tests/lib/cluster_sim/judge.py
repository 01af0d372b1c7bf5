"""What must hold in every moment of a simulated cluster: judged at every commit and at every start of a container."""

from collections.abc import Mapping

from lib.cluster_sim.agent import Held, SimAgent

from pyswarm.manager.dispatcher.liveness import BLIP_SECONDS
from pyswarm.manager.orchestrator.placement import is_lost, satisfies
from pyswarm.manager.orchestrator.slots import slot_key, slots_of
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.manager.store.store import Commit
from pyswarm.proto.model.objects import Node, Service, Task
from pyswarm.proto.model.states import Availability, Concurrency, NodeState, TaskState, UpdateOrder, UpdateState

MOVE_SECONDS = 60.0
"""A node may be active again before what left it, the new one first, is gone."""

OVERTAKEN_SECONDS = 1.0
"""A node may have changed between a placement and its commit."""


class InvariantBroken(AssertionError):
    """A promise that a run did not keep."""


class Judge:
    def __init__(self, agents: Mapping[str, SimAgent]) -> None:
        self._agents = agents
        self._given_up: set[str] = set()
        """Tasks whose node was lost: a replacement may run beside what runs there still, unheard of."""
        self._begun: dict[str, dict[int, float]] = {}
        """The moments that the runs of schedules were for, by service and run."""
        self.placements = 0
        self.runs = 0
        self.nodes_lost = 0

    # -- at every commit

    def committed(self, commit: Commit, now: float) -> None:
        for event in commit.events:
            subject, old = event.object, event.old
            if event.action == "delete":
                continue
            if isinstance(subject, Service):
                self._service_written(subject)
            elif isinstance(subject, Task):
                if event.action == "create":
                    self._judge_canary(subject, commit.snapshot, now)
                self._task_written(old if isinstance(old, Task) else None, subject, commit.snapshot, now)
            elif isinstance(subject, Node) and is_lost(subject) and not (isinstance(old, Node) and is_lost(old)):
                self._node_lost(subject, commit.snapshot, now)

    def _task_written(self, old: Task | None, new: Task, seen: Snapshot, now: float) -> None:
        if old is not None and (new.desired_state < old.desired_state or new.state < old.state):
            raise InvariantBroken(f"task {new.id} went back: {old.state.name} to {new.state.name}, or its desired one")
        if new.state is TaskState.ASSIGNED and (old is None or old.state < TaskState.ASSIGNED):
            self.placements += 1
            self._judge_placement(new, seen, now)

    def _service_written(self, service: Service) -> None:
        """No moment of a schedule has two runs, and where that is forbidden no two runs are active."""
        if service.spec.schedule is None or not service.job_status.scheduled_at:
            return
        begun = self._begun.setdefault(service.id, {})
        begun[service.job_status.iteration] = service.job_status.scheduled_at
        if len(set(begun.values())) < len(begun):
            raise InvariantBroken(f"a moment of {service.spec.name} has two runs: {begun}")
        self.runs = sum(map(len, self._begun.values()))
        active = [run.iteration for run in (*service.runs, service.job_status) if run.is_active]
        if service.spec.schedule.concurrency is not Concurrency.ALLOW and len(active) > 1:
            raise InvariantBroken(f"runs {active} of {service.spec.name} are active at once")

    def _judge_canary(self, task: Task, seen: Snapshot, now: float) -> None:
        """An update takes no slot beyond a canary step whose slots were not all watched for their monitor time."""
        service = seen.service(task.service_id)
        if service is None or not task.why.startswith("updating to") or task.spec_version != service.spec_version:
            return
        if service.update_status.state is not UpdateState.UPDATING:
            return
        config = service.spec.update_config
        slots = slots_of(service, seen.tasks_of_service(service.id))
        fresh = [t for slot in slots.values() for t in slot.tasks if t.spec_version == service.spec_version]
        known = {slot_key(service, t) for t in fresh if _was_watched(t, config.monitor_seconds, now)}
        # A slot that lost its new task with its node is none that was taken.
        taken = {slot_key(service, t) for t in fresh if t.is_live} | known
        for step in map(int, config.canary):
            if len(taken) > step > len(known):
                raise InvariantBroken(f"{service.spec.name} goes on to {taken}, and {known} are all that is known well")

    def _judge_placement(self, task: Task, seen: Snapshot, now: float) -> None:
        node, revision = seen.node(task.node_id), seen.revision_of(task)
        if node is None or revision is None:
            raise InvariantBroken(f"task {task.id} was placed on {task.node_id}, which is not there")
        placement = revision.task_template.placement
        if not satisfies(node, placement.constraints):
            raise InvariantBroken(f"task {task.id} was placed on {node.id}, against {placement.constraints}")
        is_old = node.status.changed_at < now - OVERTAKEN_SECONDS and node.availability_since < now - OVERTAKEN_SECONDS
        is_open = node.status.state is NodeState.READY and node.spec.availability is Availability.ACTIVE
        if not is_open and is_old:
            raise InvariantBroken(f"task {task.id} was placed on {node.id}, which takes none")
        here = [t for t in seen.tasks_of_node(node.id) if TaskState.ASSIGNED <= t.state <= TaskState.RUNNING]
        reserved = [r.task_template.resources.reservations for t in here if (r := seen.revision_of(t)) is not None]
        if sum(r.nano_cpus for r in reserved) > node.description.resources.nano_cpus:
            raise InvariantBroken(f"more processors are reserved on {node.id} than it has, with task {task.id}")
        fellows = [t for t in here if t.service_id == task.service_id and t.is_wanted]
        if 0 < placement.max_replicas < len(fellows):
            raise InvariantBroken(f"{len(fellows)} replicas on {node.id}, where {placement.max_replicas} may be")

    def _node_lost(self, node: Node, seen: Snapshot, now: float) -> None:
        self.nodes_lost += 1
        self._given_up |= {task.id for task in seen.tasks_of_node(node.id)}
        # The virtual wall clock is the loop's: outages and commits are told by one clock.
        longest = max((end or now) - began for began, end in [*self._agents[node.id].outages[-3:], (now, now)])
        if longest <= BLIP_SECONDS:
            raise InvariantBroken(f"{node.id} was declared down for a blip of {longest:.2f} s")

    # -- at every start of a container

    def started(self, held: Held, seen: Snapshot, now: float) -> None:
        """Never more running containers of one slot than the order of the update, or a move, allows."""
        task = held.assigned.task
        service = seen.service(task.service_id)
        if service is None:
            return
        if service.spec.mode.is_job:
            self._job_started(held, service)
            return
        key = slot_key(service, task)
        running = [
            other.assigned.task.id
            for agent in self._agents.values()
            for other in agent.tasks.values()
            if other.is_running
            and other.assigned.task.service_id == service.id
            and slot_key(service, other.assigned.task) == key
            and other.assigned.task.id not in self._given_up
        ]
        stored = [t for id in running if (t := seen.task(id)) is not None]
        orders = {service.spec.update_config.order}
        if service.previous_spec is not None:
            orders.add(service.previous_spec.update_config.order)
        is_moved = any(t.move is not None or _is_drained(seen.node(t.node_id), now) for t in stored)
        is_doubled = UpdateOrder.START_FIRST in orders or is_moved
        if len(running) > (2 if is_doubled else 1):
            raise InvariantBroken(f"slot {key} of {service.spec.name} runs {sorted(running)} at once")

    def _job_started(self, held: Held, service: Service) -> None:
        """A job never has more containers at work than it may, and never two that do the same work."""
        job, run = service.spec.mode.replicated_job, held.assigned.task.job_iteration
        at_work = [
            other.assigned.task
            for agent in self._agents.values()
            for other in agent.tasks.values()
            if other.is_running
            and other.assigned.task.service_id == service.id
            and other.assigned.task.job_iteration == run
            and other.assigned.task.id not in self._given_up
        ]
        if job is not None and 0 < job.max_concurrent < len(at_work):
            raise InvariantBroken(f"{len(at_work)} tasks of job {service.spec.name} work at once")
        if len({slot_key(service, t) for t in at_work}) < len(at_work):
            raise InvariantBroken(f"a slot of job {service.spec.name} is worked on twice")


def _was_watched(task: Task, monitor_seconds: float, now: float) -> bool:
    """Whether a task ran for the monitor time, or showed within it that it does not."""
    if task.state is TaskState.RUNNING:
        return task.status.timestamp + monitor_seconds <= now
    return task.state.is_terminal


def _is_drained(node: Node | None, now: float) -> bool:
    """Whether what runs on the node is moved away, or was until lately."""
    if node is None:
        return False
    return node.spec.availability is Availability.DRAIN or node.availability_since > now - MOVE_SECONDS
