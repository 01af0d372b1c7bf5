"""Decide what a job's set of tasks should gain or lose next (pure).

A job runs to completion: a replicated job until each of its `total_completions` slots has a completed task, at most
`max_concurrent` at once; a global job until every matching node has. Each change of its spec begins a new iteration,
whose tasks alone count. A task that fails is run again as the restart policy says ("any" means on-failure here); one
whose node is lost or drained is run elsewhere at once and that is no attempt. Slots are numbered from 1, as
everywhere. Services that run for ever belong to reconcile.py.
"""

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from pyswarm.manager.orchestrator.moves import desire
from pyswarm.manager.orchestrator.placement import is_being_emptied, is_drained, reason_to_leave, satisfies
from pyswarm.manager.orchestrator.restart import after_death, after_loss
from pyswarm.manager.orchestrator.slots import NewId, Slot, SlotKey, slots_of
from pyswarm.manager.store.changes import Change, Create, Plan, Update
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.proto.model.objects import JobStatus, Node, Service, Task, TaskStatus
from pyswarm.proto.model.spec import RestartPolicy
from pyswarm.proto.model.states import Availability, JobState, NodeState, RestartCondition, TaskState


class _Wish(Struct, frozen=True):
    """Whether a slot wants a task; `not_before` (seconds since the epoch) None: never again, for the reason `why`."""

    not_before: float | None
    why: str


class RunPlan(Struct, frozen=True):
    """The next changes of one run's tasks, and how the run stands after them."""

    changes: tuple[Change, ...]
    status: JobStatus
    look_again_at: float | None
    why: str


def reconcile_job(seen: Snapshot, service: Service, *, now: float, new_id: NewId) -> Plan:
    """Return the next changes of one job. Deciding again on the result settles after a few rounds."""
    tasks = {task.id: task for task in seen.tasks_of_service(service.id)}
    run = plan_run(seen, service, tasks, now=now, new_id=new_id)
    changes = run.changes
    if run.status != service.job_status:
        changes = (Update(replace(service, job_status=run.status)), *changes)
    return Plan(changes, run.look_again_at, run.why if changes else "")


def plan_run(seen: Snapshot, service: Service, tasks: Mapping[str, Task], *, now: float, new_id: NewId) -> RunPlan:
    """Return what the service's present run needs; those of `tasks` that are of other runs are told to stop."""
    kept = {id: _kept(seen, service, task) for id, task in tasks.items()}
    changes: list[Change] = [Update(task) for id, task in sorted(kept.items()) if task != tasks[id]]
    slots = _slots_of_iteration(service, kept.values())
    wishes = _wishes(seen, service, slots, now)
    due = [key for key, wish in wishes.items() if wish.not_before is not None and wish.not_before <= now]
    moments = [w.not_before for w in wishes.values() if w.not_before is not None and w.not_before > now]
    for key in due[: _room(seen, service, slots)]:
        changes.append(Create(_new_task(service, key, new_id(), wishes[key].why, now)))
    status = _status(service, [wishes.get(key) for key in _open_slots(seen, service, slots)], now)
    why = f"job {service.spec.name}, run {status.iteration}: {_told(slots, wishes)}"
    return RunPlan(tuple(changes), status, min(moments, default=None), why)


def completed_slots(service: Service, slots: Mapping[SlotKey, Slot]) -> frozenset[SlotKey]:
    """Return the slots of the present iteration that have a completed task."""
    return frozenset(
        key
        for key, slot in slots.items()
        if any(t.state is TaskState.COMPLETE and t.job_iteration == service.job_status.iteration for t in slot.tasks)
    )


def _kept(seen: Snapshot, service: Service, task: Task) -> Task:
    """Return the task as it is to be: told to stop when it is of an earlier run, or may not stay where it is."""
    is_surplus = task.job_iteration != service.job_status.iteration or not _is_wanted_slot(service, task)
    if is_surplus or (task.is_wanted and task.state.is_terminal):
        why = f"run {service.job_status.iteration} of the job has begun" if is_surplus else "it has ended"
        return desire(task, TaskState.SHUTDOWN, why) if task.state is not TaskState.COMPLETE or is_surplus else task
    if not task.is_live:
        return task
    revision = seen.revision_of(task)
    template = revision.task_template if revision is not None else service.spec.task_template
    why = reason_to_leave(task, seen.node(task.node_id), template.placement)
    return desire(task, TaskState.SHUTDOWN, why) if why else task


def _is_wanted_slot(service: Service, task: Task) -> bool:
    job = service.spec.mode.replicated_job
    return job is None or 1 <= task.slot <= job.total_completions


def _slots_of_iteration(service: Service, tasks: Iterable[Task]) -> Mapping[SlotKey, Slot]:
    return slots_of(service, [t for t in tasks if t.job_iteration == service.job_status.iteration])


def _wishes(seen: Snapshot, service: Service, slots: Mapping[SlotKey, Slot], now: float) -> Mapping[SlotKey, _Wish]:
    """Return what each slot wants that is neither complete nor filled nor still being emptied."""
    return {
        key: _wish(service, slots.get(key), now)
        for key in _open_slots(seen, service, slots)
        if key not in slots or not (slots[key].live or is_being_emptied(seen, slots[key].tasks))
    }


def _open_slots(seen: Snapshot, service: Service, slots: Mapping[SlotKey, Slot]) -> list[SlotKey]:
    done = completed_slots(service, slots)
    return [key for key in _all_slots(seen, service) if key not in done]


def _all_slots(seen: Snapshot, service: Service) -> list[SlotKey]:
    job = service.spec.mode.replicated_job
    if job is not None:
        return list(range(1, job.total_completions + 1))
    return sorted(node.id for node in seen.nodes() if _may_run(service, node))


def _may_run(service: Service, node: Node) -> bool:
    may_start = node.spec.availability is Availability.ACTIVE and node.status.state is NodeState.READY
    return may_start and not is_drained(node) and satisfies(node, service.spec.task_template.placement.constraints)


def _wish(service: Service, slot: Slot | None, now: float) -> _Wish:
    if slot is None:
        return _Wish(now, "a task to complete")
    policy = _policy(service)
    newest = slot.newest
    if newest.state.is_failure:
        verdict = after_death(slot, newest, policy, now=now)
    else:
        # It was stopped, or nobody can tell because its node is lost: no fault of its own.
        verdict = after_loss(policy, now=now, why=f"task {newest.id} could not finish where it was")
    return _Wish(verdict.start_after, verdict.why)


def _policy(service: Service) -> RestartPolicy:
    policy = service.spec.task_template.restart_policy
    if policy.condition is RestartCondition.ANY:
        return replace(policy, condition=RestartCondition.ON_FAILURE)
    return policy


def _room(seen: Snapshot, service: Service, slots: Mapping[SlotKey, Slot]) -> int | None:
    """Return how many tasks may be added now, beside those that run, if only until they have stopped; None: any."""
    job = service.spec.mode.replicated_job
    if job is None or job.max_concurrent == 0:
        return None
    at_work = sum(1 for slot in slots.values() if slot.live or is_being_emptied(seen, slot.tasks))
    return max(0, job.max_concurrent - at_work)


def _new_task(service: Service, key: SlotKey, id: str, why: str, now: float) -> Task:
    return Task(
        id=id,
        service_id=service.id,
        slot=0 if isinstance(key, str) else key,
        node_id=key if isinstance(key, str) else "",
        spec_version=service.spec_version,
        status=TaskStatus(state=TaskState.PENDING, timestamp=now, message="waiting for a node"),
        desired_state=TaskState.COMPLETE,
        job_iteration=service.job_status.iteration,
        why=why,
    )


def _status(service: Service, still_open: Sequence[_Wish | None], now: float) -> JobStatus:
    """Return how the run stands; `still_open` has the wish of each slot that is not complete, None while it is busy."""
    status = service.job_status
    started = status.started_at or now
    given_up = [wish for wish in still_open if wish is not None and wish.not_before is None]
    if len(given_up) < len(still_open):
        return replace(status, state=JobState.RUNNING, started_at=started, ended_at=0.0, message="")
    state = JobState.FAILED if given_up else JobState.COMPLETE
    message = given_up[0].why if given_up else "job complete"
    if (status.state, status.message) == (state, message):
        return status
    return replace(status, state=state, started_at=started, ended_at=now, message=message)


def _told(slots: Mapping[SlotKey, Slot], wishes: Mapping[SlotKey, _Wish]) -> str:
    live = sum(1 for slot in slots.values() if slot.live)
    reasons = list(dict.fromkeys(wish.why for wish in wishes.values()))
    return "; ".join([f"{live} active", *reasons[:3]])
