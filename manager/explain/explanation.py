"""Put together why a task, a service or a node is as it is (pure).

An explanation says how things stand, what every filter says of every node where that matters, what led there, and what
would help. It reads what the deciders read; it changes nothing.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from msgspec import Struct

from pyswarm.manager.explain.story import Commits, Step, stories_of, story_of
from pyswarm.manager.explain.verdicts import NodeGroup, node_groups, node_name, remedies, verdicts_on
from pyswarm.manager.orchestrator.placement import is_drained
from pyswarm.manager.orchestrator.relocate import budget, drained_by, starts_first
from pyswarm.manager.orchestrator.services import service_counts
from pyswarm.manager.orchestrator.slots import slots_of
from pyswarm.manager.scheduler.company import company_for
from pyswarm.manager.scheduler.nodes import NodeTable
from pyswarm.manager.store.changes import Delete
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.proto.model.objects import Node, Service, Task, revision_id
from pyswarm.proto.model.states import TaskState, UpdateState

STEPS_MAX = 30
"""Steps of a service's tasks that are told: the last ones."""

WAITING_MAX = 10


class Explanation(Struct, frozen=True):
    """`state` in one line, then facts; `groups` are nodes by what the filters say; `remedies` are sentences."""

    kind: str
    id: str
    name: str
    state: str
    facts: tuple[str, ...] = ()
    groups: tuple[NodeGroup, ...] = ()
    steps: tuple[Step, ...] = ()
    remedies: tuple[str, ...] = ()


def explain_task(seen: Snapshot, task: Task, commits: Commits) -> Explanation:
    """Return why a task is where and how it is."""
    revision = seen.revision_of(task)
    waits = _waits(task)
    facts = [f"created because: {task.why}"] if task.why else []
    if task.stop_why:
        facts.append(f"to be {_word(task.desired_state)} because: {task.stop_why}")
    if task.is_live and task.move is not None:
        facts.append(f"to be moved elsewhere because: {task.move.why}")
    if task.start_after and task.desired_state is TaskState.READY:
        facts.append("prepared, and started once its predecessor has stopped and its delay is over")
    groups: tuple[NodeGroup, ...] = ()
    help_: tuple[str, ...] = ()
    if revision is not None and task.is_live:
        # Where it could be: as if it were nowhere yet.
        others = seen if waits else seen.with_changes((Delete("task", task.id),), version=seen.version + 1)
        groups = node_groups(others, revision)
        help_ = remedies(others, revision, groups) if waits else ()
    if task.state.is_failure:
        help_ = (f"Read its output: `pyswarm service logs {_service_name(seen, task)}`.",)
    return Explanation(
        kind="task",
        id=task.id,
        name=task_name(seen, task),
        state=_task_state(seen, task),
        facts=tuple(facts),
        groups=groups,
        steps=story_of(task, commits),
        remedies=help_,
    )


def explain_service(seen: Snapshot, service: Service, commits: Commits) -> Explanation:
    """Return why a service has the tasks that it has, and lacks others."""
    counts = service_counts(seen, service)
    tasks = seen.tasks_of_service(service.id)
    facts: list[str] = []
    status = service.update_status
    if status.state is not UpdateState.UNSET:
        facts.append(f"update {_word(status.state)}{': ' + status.message if status.message else ''}")
    if service.spec.mode.is_job:
        run = service.job_status
        facts.append(f"run {run.iteration} {_word(run.state)}{': ' + run.message if run.message else ''}")
    facts += [*_schedule_facts(service), *_move_facts(seen, service, tasks)]
    waiting = [t for t in tasks if _waits(t)]
    facts += [f"{count} waiting: {reason}" for reason, count in _told(t.status.err for t in waiting)]
    failed = [t for t in tasks if t.state.is_failure]
    facts += [f"{count} failed: {reason}" for reason, count in _told(t.status.err for t in failed)]
    groups: tuple[NodeGroup, ...] = ()
    help_: list[str] = []
    revision = seen.revision(revision_id(service.id, service.spec_version))
    if revision is not None:
        groups = node_groups(seen, revision)
        help_ += remedies(seen, revision, groups) if waiting else ()
    if status.state in (UpdateState.PAUSED, UpdateState.ROLLBACK_PAUSED):
        help_.append(f"Mend it and update again, or go back: `pyswarm service rollback {service.spec.name}`.")
    if failed and counts.running < counts.desired:
        help_.append(f"Read its output: `pyswarm service logs {service.spec.name}`.")
    steps = list(story_of(service, commits))
    stories = stories_of(tasks, commits)
    for task in tasks:
        name = task_name(seen, task)
        steps += [Step(s.index, s.at, f"{name} {s.what}", s.cause) for s in stories[task.id]]
    steps.sort(key=lambda step: (step.index, step.at))
    return Explanation(
        kind="service",
        id=service.id,
        name=service.spec.name,
        state=f"{counts.running} of {counts.desired} tasks run",
        facts=tuple(facts),
        groups=groups,
        steps=tuple(steps[-STEPS_MAX:]),
        remedies=tuple(help_),
    )


def explain_node(seen: Snapshot, node: Node, commits: Commits) -> Explanation:
    """Return why a node has the tasks that it has, and which of those that wait it refuses."""
    tasks = seen.tasks_of_node(node.id)
    held = [t for t in tasks if TaskState.ASSIGNED <= t.state <= TaskState.RUNNING]
    stopping = sum(not t.is_wanted for t in held)
    facts = [f"holds {len(held)} tasks" + (f", {stopping} of which are to stop" if stopping else "")]
    if is_drained(node) and held:
        facts.append(f"drained: tasks may stay until {_moment(drained_by(node))}, if others cannot run in their place")
    waiting = [t for t in seen.tasks() if _waits(t)]
    table = NodeTable(seen)
    facts += [line for t in waiting[:WAITING_MAX] if (line := _refuses(seen, node, t, table))]
    if len(waiting) > WAITING_MAX:
        facts.append(f"{len(waiting) - WAITING_MAX} more tasks wait for a node")
    state = f"{_word(node.status.state)}, availability {_word(node.spec.availability)}"
    if node.status.message:
        state += f" ({node.status.message})"
    return Explanation(
        kind="node", id=node.id, name=node_name(node), state=state, facts=tuple(facts), steps=story_of(node, commits)
    )


def _schedule_facts(service: Service) -> list[str]:
    schedule, status = service.spec.schedule, service.cron
    if schedule is None:
        return []
    if schedule.suspended:
        return ["its schedule is suspended"]
    found = [f"runs at {schedule.expression} ({schedule.time_zone})"]
    if status.message:
        found.append(f"no run at {_moment(status.last_at)}: {status.message}")
    return found


def _move_facts(seen: Snapshot, service: Service, tasks: Sequence[Task]) -> list[str]:
    """What is to be moved, and whether the budget leaves room for it."""
    drained = {node.id for node in seen.nodes() if is_drained(node)}
    leaving = [t for t in tasks if t.is_live and (t.move is not None or t.node_id in drained)]
    if not leaving or service.spec.mode.replicated is None:
        return []
    slots = slots_of(service, tasks)
    allowed = budget(service, len(slots))
    idle = sum(not slot.is_running for slot in slots.values())
    order = "the new one first" if starts_first(service) else "the old one stops first"
    return [
        f"{len(leaving)} tasks are to be moved, {order}; at most {allowed} slots may be disturbed at once, "
        f"and {idle} do not run now"
    ]


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def task_name(seen: Snapshot, task: Task) -> str:
    return f"{_service_name(seen, task)}.{task.slot or task.node_id}"


def _service_name(seen: Snapshot, task: Task) -> str:
    service, revision = seen.service(task.service_id), seen.revision_of(task)
    return service.spec.name if service else revision.service_name if revision else task.service_id


def _task_state(seen: Snapshot, task: Task) -> str:
    node = seen.node(task.node_id)
    where = f" on {node_name(node)}" if node is not None else ""
    err = f": {task.status.err}" if task.status.err else ""
    return f"{_word(task.state)}{where}, to be {_word(task.desired_state)}{err}"


def _refuses(seen: Snapshot, node: Node, task: Task, table: NodeTable) -> str:
    revision = seen.revision_of(task)
    if revision is None:
        return ""
    verdicts = verdicts_on(table.infos[node.id], revision, company_for(seen, revision, table))
    said = ", ".join(f"{v.filter} ({v.refusal})" for v in verdicts if v.refusal)
    return f"{task_name(seen, task)} waits for a node; " + (f"refused here by {said}" if said else "may come here")


def _waits(task: Task) -> bool:
    return task.is_live and task.state <= TaskState.PENDING


def _told(reasons: Iterable[str]) -> list[tuple[str, int]]:
    return Counter(reason or "no reason yet" for reason in reasons).most_common(3)


def _word(value: object) -> str:
    return str(getattr(value, "name", "")).lower().replace("_", " ")
