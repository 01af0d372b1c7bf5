"""Has a service become what was asked for? Decides from what the cluster says now, and for how long it said so.

Pure: `judge` maps (goal, observation, memory, now) to a verdict, which tells when to look again even if no event
comes. Converged means: as many tasks of the newest version run as are wanted, no update is under way, and so it
stayed for the update's monitor period. Waiting for ever helps nobody, so it gives up, with the reason, on tasks
that keep failing, on tasks that no node can take, and on updates that were paused or rolled back.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from enum import Enum

from msgspec import Struct
from msgspec.structs import replace

from pyswarm.manager.cli.view.tasks import natural, task_error
from pyswarm.proto.model.objects import Service, Task, UpdateStatus
from pyswarm.proto.model.states import JobState, RestartCondition, TaskState, UpdateState

FAILURES_MAX = 3
"""Tasks of one slot that may fail before waiting longer is pointless."""

UNPLACED_SECONDS_MAX = 20.0
"""How long no node may suit a task; a node that is just joining deserves that much."""


class Goal(Struct, frozen=True):
    """What to wait for. `baseline` and `dead_before` were there before the request, and so say nothing about it."""

    service_id: str
    name: str
    baseline: UpdateStatus = UpdateStatus()
    dead_before: frozenset[str] = frozenset()
    is_rollback: bool = False


class Observation(Struct, frozen=True):
    """`service` is None when it is gone; `desired` is the number of tasks wanted now."""

    service: Service | None
    desired: int = 0
    tasks: tuple[Task, ...] = ()
    hostnames: Mapping[str, str] = {}


class Memory(Struct, frozen=True):
    """Since when (monotonic seconds) something has been so without interruption."""

    stable_since: float | None = None
    unplaced_since: float | None = None


class Outcome(Enum):
    WORKING = "working"
    CONVERGED = "converged"
    FAILED = "failed"


class Slot(Struct, frozen=True):
    """What one slot does now; `state` is None while it has no task."""

    name: str
    state: TaskState | None
    is_done: bool
    error: str = ""


class Progress(Struct, frozen=True):
    name: str
    done: int
    desired: int
    slots: tuple[Slot, ...] = ()
    note: str = ""
    outcome: Outcome = Outcome.WORKING
    remedy: str = ""
    aim: str = "running"
    """What a task that is done is: running, or complete."""


class Verdict(Struct, frozen=True):
    progress: Progress
    memory: Memory
    look_again_at: float | None = None


def judge(goal: Goal, seen: Observation, memory: Memory, now: float) -> Verdict:
    """Return how far the service is; `now` is in monotonic seconds."""
    service = seen.service
    if service is None:
        return _failed(Progress(goal.name, 0, 0), f"service {goal.name} was removed", "")
    if service.spec.mode.is_job:
        return _judge_job(goal, service, seen, memory, now)
    update = _fresh_update(service, goal)
    slots = _slots(service, seen, is_updated=update in (UpdateState.COMPLETED, UpdateState.ROLLBACK_COMPLETED))
    progress = Progress(goal.name, sum(slot.is_done for slot in slots), seen.desired, slots)
    why = _update_failure(update, service.update_status.message, goal) or _task_failure(service, seen, goal, slots)
    if why:
        return _failed(progress, why, _remedy(goal.name))
    if (unplaced := _unplaced(seen)) is not None:
        return _wait_for_a_node(progress, unplaced, memory, now, goal)
    is_settled = progress.done >= seen.desired and update not in (UpdateState.UPDATING, UpdateState.ROLLBACK_STARTED)
    if not is_settled:
        note = f"rolling back: {service.update_status.message}" if update is UpdateState.ROLLBACK_STARTED else ""
        return Verdict(_with(progress, note), Memory())
    since = now if memory.stable_since is None else memory.stable_since
    monitored = update in (UpdateState.COMPLETED, UpdateState.ROLLBACK_COMPLETED) or seen.desired == 0
    period = 0.0 if monitored else service.spec.update_config.monitor_seconds
    if now - since >= period:
        return Verdict(_with(progress, f"Service {goal.name} converged", Outcome.CONVERGED), Memory(since))
    left = f"{max(1, round(period - (now - since)))}"
    note = f"Waiting {left} second{'s' * (left != '1')} to verify that tasks are stable..."
    # Once a second for the countdown, and exactly at the end.
    return Verdict(_with(progress, note), Memory(since), min(since + period, now + 1.0))


def _failed(progress: Progress, why: str, remedy: str) -> Verdict:
    return Verdict(_with(progress, why, Outcome.FAILED, remedy), Memory())


def _with(progress: Progress, note: str, outcome: Outcome = Outcome.WORKING, remedy: str = "") -> Progress:
    return replace(progress, note=note, outcome=outcome, remedy=remedy)


def _remedy(name: str) -> str:
    return f"See `pyswarm service ps --no-trunc {name}` and `pyswarm service logs {name}`."


# -- jobs


def _judge_job(goal: Goal, service: Service, seen: Observation, memory: Memory, now: float) -> Verdict:
    """A job is done when its present run has ended: the cluster says whether well."""
    status = service.job_status
    if service.spec.schedule is not None:
        # It runs when its time has come; a run that ended badly is told of by `service ls` and `inspect`.
        return Verdict(
            Progress(goal.name, 0, 0, (), aim="complete", note="scheduled", outcome=Outcome.CONVERGED), Memory()
        )
    slots = _job_slots(service, seen)
    done = sum(slot.is_done for slot in slots)
    job = service.spec.mode.replicated_job
    total = job.total_completions if job is not None else done + seen.desired
    progress = Progress(goal.name, done, total, slots, aim="complete")
    if status.state is JobState.FAILED:
        return _failed(progress, f"the job failed: {status.message}", _remedy(goal.name))
    if status.state is JobState.COMPLETE:
        return Verdict(_with(progress, "job complete", Outcome.CONVERGED), Memory())
    if (unplaced := _unplaced(seen)) is not None:
        return _wait_for_a_node(progress, unplaced, memory, now, goal)
    return Verdict(progress, Memory())


def _job_slots(service: Service, seen: Observation) -> tuple[Slot, ...]:
    by_slot: dict[str, list[Task]] = defaultdict(list)
    for task in seen.tasks:
        if task.job_iteration == service.job_status.iteration:
            by_slot[_slot_name(task, seen)].append(task)
    found = []
    for name in sorted(by_slot, key=natural):
        tasks = sorted(by_slot[name], key=lambda t: (t.created_at, t.id))
        is_done = any(t.state is TaskState.COMPLETE for t in tasks)
        error = next((task_error(t) for t in reversed(tasks) if task_error(t)), "")
        found.append(Slot(name, TaskState.COMPLETE if is_done else tasks[-1].state, is_done, "" if is_done else error))
    return tuple(found)


# -- slots


def _slots(service: Service, seen: Observation, *, is_updated: bool) -> tuple[Slot, ...]:
    """Return every slot that fills or is to fill, in the order of their names.

    `is_updated`: the managers say that the update is complete, so a task of an earlier version is one that fits.
    """
    by_slot: dict[str, list[Task]] = defaultdict(list)
    for task in seen.tasks:
        by_slot[_slot_name(task, seen)].append(task)
    found = []
    for name in sorted(by_slot, key=natural):
        tasks = sorted(by_slot[name], key=lambda t: (t.spec_version, t.created_at, t.id))
        wanted = [task for task in tasks if task.is_wanted]
        newest = wanted[-1] if wanted else tasks[-1]
        error = task_error(newest) or next((task_error(t) for t in reversed(tasks) if task_error(t)), "")
        if wanted:
            is_current = newest.spec_version == service.spec_version or is_updated
            is_done = is_current and newest.state is TaskState.RUNNING and newest.desired_state is TaskState.RUNNING
            found.append(Slot(name, newest.state, is_done, "" if is_done else error))
        elif _has_finished(service, newest):
            found.append(Slot(name, newest.state, True))
    return tuple(found)


def _slot_name(task: Task, seen: Observation) -> str:
    return str(task.slot) if task.slot else seen.hostnames.get(task.node_id, task.node_id)


def _has_finished(service: Service, task: Task) -> bool:
    """Whether the task ended well and its restart policy leaves it at that."""
    condition = service.spec.task_template.restart_policy.condition
    restarts = condition in (RestartCondition.ANY, RestartCondition.UNSET)
    return task.state is TaskState.COMPLETE and not restarts and task.spec_version == service.spec_version


# -- reasons to give up


def _fresh_update(service: Service, goal: Goal) -> UpdateState:
    """Return the state of an update that began with, or after, our request."""
    status, before = service.update_status, goal.baseline
    is_old = (status.state, status.started_at) == (before.state, before.started_at)
    return UpdateState.UNSET if is_old else status.state


def _update_failure(update: UpdateState, message: str, goal: Goal) -> str:
    told = f": {message}" if message else ""
    if update is UpdateState.PAUSED:
        return f"the update is paused{told}"
    if update is UpdateState.ROLLBACK_PAUSED:
        return f"the rollback is paused{told}"
    if update is UpdateState.ROLLBACK_COMPLETED and not goal.is_rollback:
        return "the update failed and was rolled back"
    return ""


def _task_failure(service: Service, seen: Observation, goal: Goal, slots: Sequence[Slot]) -> str:
    """Return why tasks will not run, however long one waits; "" while they may."""
    policy = service.spec.task_template.restart_policy
    ends = {TaskState.FAILED, TaskState.REJECTED}
    if policy.condition is RestartCondition.ANY:
        ends.add(TaskState.COMPLETE)
    failures: dict[str, list[Task]] = defaultdict(list)
    for task in seen.tasks:
        if task.state in ends and task.spec_version == service.spec_version and task.id not in goal.dead_before:
            failures[_slot_name(task, seen)].append(task)
    done = {slot.name for slot in slots if slot.is_done}
    for name in sorted(failures, key=natural):
        tasks = failures[name]
        gives_up_after = 1 if policy.condition is RestartCondition.NONE else FAILURES_MAX
        if policy.max_attempts:
            gives_up_after = min(gives_up_after, policy.max_attempts + 1)
        if name in done or len(tasks) < gives_up_after or len(slots) > seen.desired:
            continue
        last = max(tasks, key=lambda t: (t.status.timestamp, t.id))
        times = f"{len(tasks)} times" if len(tasks) > 1 else "once and is not restarted"
        return f"task {goal.name}.{name} failed {times}: {_end_of(last)}"
    return ""


def _end_of(task: Task) -> str:
    return task_error(task) or task.status.message or f"it is {task.state.name.lower()}"


def _unplaced(seen: Observation) -> str | None:
    """Return why some task fits on no node, or None when every task has one or may still get one."""
    for task in seen.tasks:
        if task.is_wanted and task.state is TaskState.PENDING and not task.node_id and task.status.err:
            return task.status.err
    return None


def _wait_for_a_node(progress: Progress, why: str, memory: Memory, now: float, goal: Goal) -> Verdict:
    since = now if memory.unplaced_since is None else memory.unplaced_since
    if now - since >= UNPLACED_SECONDS_MAX:
        remedy = f"Change what the service asks for, or the nodes: `pyswarm service ps --no-trunc {goal.name}`."
        return _failed(progress, why, remedy)
    return Verdict(_with(progress, why), Memory(unplaced_since=since), since + UNPLACED_SECONDS_MAX)
