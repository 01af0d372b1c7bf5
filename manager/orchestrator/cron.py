"""Decide when a scheduled job runs next, and what its runs need (pure).

A run begins with a change of the service that also says up to which moment the schedule has been followed: whoever
leads, no moment is dealt with twice. Each run is then carried out as a job's (jobs.py). A moment that comes while an
earlier run is active is skipped, run beside it, or takes its place; one that nobody could follow in time is skipped
once the window for missed runs is over. Runs that ended are remembered as far as the schedule says.
"""

from collections.abc import Iterable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from pyswarm.manager.orchestrator.jobs import plan_run
from pyswarm.manager.orchestrator.moves import desire
from pyswarm.manager.orchestrator.slots import NewId
from pyswarm.manager.store.changes import Change, Plan, Update
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.proto.codec.cron import last_moment, next_moment
from pyswarm.proto.model.objects import CronStatus, JobStatus, Service, Task
from pyswarm.proto.model.spec import CronSchedule
from pyswarm.proto.model.states import Concurrency, JobState, TaskState


class _Turn(Struct, frozen=True):
    """The service as the schedule wants it now; `look_again_at` is the schedule's next moment."""

    service: Service
    look_again_at: float | None
    why: str = ""


def reconcile_scheduled(seen: Snapshot, service: Service, *, now: float, new_id: NewId) -> Plan:
    """Return the next changes of a scheduled job. Deciding again on the result settles until its next moment."""
    schedule = service.spec.schedule
    assert schedule is not None
    turn = _turn(service, schedule, now)
    if turn.service != service:
        return Plan((Update(turn.service),), turn.look_again_at, turn.why)
    changes: list[Change] = []
    moments = [] if turn.look_again_at is None else [turn.look_again_at]
    whys: list[str] = []
    runs: list[JobStatus] = []
    tasks = seen.tasks_of_service(service.id)
    for run in (*service.runs, service.job_status):
        mine = {t.id: t for t in tasks if t.job_iteration == run.iteration}
        if run.is_active:
            plan = plan_run(seen, replace(service, job_status=run), mine, now=now, new_id=new_id)
            changes += plan.changes
            moments += [] if plan.look_again_at is None else [plan.look_again_at]
            whys += [plan.why] if plan.changes else []
            runs.append(plan.status)
        else:
            changes += _stopped(mine.values(), f"run {run.iteration} has ended")
            runs.append(run)
    known = {run.iteration for run in runs}
    changes += _stopped([t for t in tasks if t.job_iteration not in known], "its run is forgotten")
    after = replace(service, runs=_remembered(schedule, runs[:-1]), job_status=runs[-1])
    if after != service:
        changes.insert(0, Update(after))
    return Plan(tuple(changes), min(moments, default=None), "; ".join(whys))


def _turn(service: Service, schedule: CronSchedule, now: float) -> _Turn:
    """Follow the schedule up to now."""
    status = service.cron
    if service.spec.task_template.force_update > status.forced:
        forced = replace(status, forced=service.spec.task_template.force_update)
        return _Turn(_begun(replace(service, cron=forced), schedule, 0.0, now), None, "the operator runs it by hand")
    if schedule.suspended:
        # Moments of the suspension are not missed: counting begins anew when it ends.
        return _Turn(replace(service, cron=CronStatus(forced=status.forced)), None, "the schedule is suspended")
    if not status.since:
        return _Turn(replace(service, cron=replace(status, since=now)), next_moment(schedule, now), "it is scheduled")
    look_again_at = next_moment(schedule, now)
    moment = last_moment(schedule, now)
    if moment <= max(status.since, status.last_at):
        return _Turn(service, look_again_at)
    followed = replace(service, cron=replace(status, last_at=moment, message=""))
    if why_not := _why_not(service, schedule, moment, now):
        skipped = replace(followed, cron=replace(followed.cron, message=why_not))
        return _Turn(skipped, look_again_at, f"no run: {why_not}")
    return _Turn(_begun(followed, schedule, moment, now), look_again_at, "a run is due")


def _why_not(service: Service, schedule: CronSchedule, moment: float, now: float) -> str:
    late = now - moment
    if late > schedule.missed_run_window_seconds:
        return f"it was missed by {late:.0f} s, and the window is {schedule.missed_run_window_seconds:g} s"
    active = [run.iteration for run in (*service.runs, service.job_status) if run.is_active]
    if active and schedule.concurrency is Concurrency.FORBID:
        return f"run {active[0]} was still active"
    return ""


def _begun(service: Service, schedule: CronSchedule, moment: float, now: float) -> Service:
    number = service.job_status.iteration + 1
    earlier = [run for run in (*service.runs, service.job_status) if run.iteration]
    if schedule.concurrency is Concurrency.REPLACE:
        message = f"run {number} took its place"
        earlier = [
            replace(run, state=JobState.FAILED, ended_at=now, message=message) if run.is_active else run
            for run in earlier
        ]
    return replace(
        service,
        runs=_remembered(schedule, earlier),
        job_status=JobStatus(iteration=number, scheduled_at=moment),
    )


def _remembered(schedule: CronSchedule, runs: Sequence[JobStatus]) -> tuple[JobStatus, ...]:
    """Return the runs that are active, and the last ones that ended well or badly, in their order."""
    kept = {run.iteration for run in runs if run.is_active}
    for state, count in ((JobState.COMPLETE, schedule.keep_completed), (JobState.FAILED, schedule.keep_failed)):
        ended = [run.iteration for run in runs if run.state is state]
        kept |= set(ended[len(ended) - count :] if count < len(ended) else ended)
    return tuple(run for run in runs if run.iteration in kept)


def _stopped(tasks: Iterable[Task], why: str) -> list[Change]:
    """Tell tasks to stop that still run, and let go those that ended badly: the reaper counts them."""
    found = [t for t in tasks if t.is_wanted and t.state is not TaskState.COMPLETE]
    return [Update(desire(task, TaskState.SHUTDOWN, why)) for task in found]
