"""When a service has become what was asked for, and when waiting longer is pointless."""

from typing import Any

import pytest
from lib.builders import a_service, a_task
from msgspec.structs import replace

from pyswarm.manager.cli.progress.bars import bars, news
from pyswarm.manager.cli.progress.convergence import (
    UNPLACED_SECONDS_MAX,
    Goal,
    Memory,
    Observation,
    Outcome,
    Progress,
    Slot,
    Verdict,
    judge,
)
from pyswarm.proto.model.objects import ContainerStatus, JobStatus, Service, Task, UpdateStatus
from pyswarm.proto.model.spec import ReplicatedJob, RestartPolicy
from pyswarm.proto.model.states import JobState, RestartCondition, TaskState, UpdateState

GOAL = Goal("web", "web")
NOTHING = Memory()


def look(
    service: Service | None,
    *tasks: Task,
    desired: int = 2,
    now: float = 0,
    memory: Memory = NOTHING,
    goal: Goal = GOAL,
) -> Verdict:
    return judge(goal, Observation(service, desired, tasks), memory, now)


def running(*slots: int, **of_task: Any) -> list[Task]:
    return [a_task(f"t{slot}", slot=slot, **of_task) for slot in slots]


def failed(slot: int, count: int, **of_task: Any) -> list[Task]:
    return [
        a_task(f"f{slot}-{n}", slot=slot, state=TaskState.FAILED, desired=TaskState.SHUTDOWN, since=n, **of_task)
        for n in range(count)
    ]


def test_a_service_converges_once_all_its_tasks_ran_for_the_monitor_period() -> None:
    web = a_service("web", replicas=2)
    first = look(web, *running(1), now=10)
    assert (first.progress.outcome, first.progress.done, first.look_again_at) == (Outcome.WORKING, 1, None)
    second = look(web, *running(1, 2), now=11, memory=first.memory)
    assert second.progress.note == "Waiting 5 seconds to verify that tasks are stable..."
    assert second.look_again_at == 12
    third = look(web, *running(1, 2), now=15.9, memory=second.memory)
    assert third.look_again_at == 16
    last = look(web, *running(1, 2), now=16, memory=third.memory)
    assert (last.progress.outcome, last.progress.note) == (Outcome.CONVERGED, "Service web converged")


def test_a_task_that_fails_meanwhile_starts_the_period_anew() -> None:
    web = a_service("web", replicas=2)
    stable = look(web, *running(1, 2), now=10)
    broken = look(web, *running(1), *failed(2, 1), now=12, memory=stable.memory)
    assert broken.memory == Memory()
    assert look(web, *running(1, 2), now=16, memory=broken.memory).progress.outcome is Outcome.WORKING


def test_a_task_of_an_older_version_does_not_count() -> None:
    web = a_service("web", replicas=1, spec_version=2)
    assert look(web, *running(1, spec_version=1), desired=1).progress.done == 0
    both = [*running(1, spec_version=1), a_task("new", service=web, slot=1, state=TaskState.STARTING)]
    (slot,) = look(web, *both, desired=1).progress.slots
    assert slot == Slot("1", TaskState.STARTING, False)


def test_a_replacement_that_waits_for_its_delay_is_not_done() -> None:
    waiting = a_task("t1", state=TaskState.RUNNING, desired=TaskState.READY)
    assert look(a_service("web"), waiting, desired=1).progress.done == 0


def test_scaling_to_nothing_is_done_at_once() -> None:
    stopping = a_task("t1", desired=TaskState.REMOVE)
    assert look(a_service("web", replicas=0), stopping, desired=0).progress.outcome is Outcome.CONVERGED


def test_a_task_that_ends_well_and_is_not_restarted_is_done() -> None:
    job = a_service("web", restart=RestartPolicy(RestartCondition.ON_FAILURE))
    ended = a_task("t1", state=TaskState.COMPLETE, desired=TaskState.SHUTDOWN)
    assert look(job, ended, desired=1).progress.done == 1
    assert look(a_service("web"), ended, desired=1).progress.done == 0


@pytest.mark.parametrize(
    ("restart", "failures", "gives_up"),
    [
        pytest.param(RestartPolicy(), 2, False, id="two failures may be chance"),
        pytest.param(RestartPolicy(), 3, True, id="three are not"),
        pytest.param(RestartPolicy(RestartCondition.NONE), 1, True, id="one that is not restarted"),
        pytest.param(RestartPolicy(max_attempts=1), 2, True, id="all attempts used"),
        pytest.param(RestartPolicy(max_attempts=9), 3, True, id="more attempts than patience"),
    ],
)
def test_tasks_that_keep_failing_end_the_wait(restart: RestartPolicy, failures: int, gives_up: bool) -> None:
    web = a_service("web", restart=restart)
    verdict = look(web, *running(1), *failed(2, failures, err="boom"))
    assert (verdict.progress.outcome is Outcome.FAILED) == gives_up
    if gives_up:
        assert verdict.progress.note.startswith("task web.2 failed ")
        assert verdict.progress.note.endswith(": boom")
        assert verdict.progress.remedy == "See `pyswarm service ps --no-trunc web` and `pyswarm service logs web`."


def test_the_exit_status_and_lack_of_memory_are_told() -> None:
    tasks = failed(1, 3)
    status = replace(tasks[2].status, container_status=ContainerStatus(exit_code=137, oom_killed=True))
    verdict = look(a_service("web"), *tasks[:2], replace(tasks[2], status=status))
    assert verdict.progress.note == "task web.1 failed 3 times: task: non-zero exit (137): out of memory"


def test_failures_of_before_and_of_an_older_version_do_not_count() -> None:
    web = a_service("web", spec_version=2)
    old = failed(1, 3, spec_version=1)
    assert look(web, *old, desired=1).progress.outcome is Outcome.WORKING
    before = failed(1, 3, service=web)
    goal = Goal("web", "web", dead_before=frozenset(task.id for task in before))
    assert look(web, *before, desired=1, goal=goal).progress.outcome is Outcome.WORKING


def test_failures_of_a_slot_that_runs_now_do_not_count() -> None:
    assert look(a_service("web"), *failed(1, 4), *running(1), desired=1).progress.outcome is Outcome.WORKING


def test_a_task_that_no_node_suits_is_waited_for_a_while() -> None:
    web = a_service("web")
    stuck = a_task("t1", state=TaskState.PENDING, err="no suitable node: 3 lack memory")
    first = look(web, stuck, desired=1, now=100)
    assert (first.progress.outcome, first.progress.note) == (Outcome.WORKING, "no suitable node: 3 lack memory")
    assert first.look_again_at == 100 + UNPLACED_SECONDS_MAX
    last = look(web, stuck, desired=1, now=100 + UNPLACED_SECONDS_MAX, memory=first.memory)
    assert (last.progress.outcome, last.progress.note) == (Outcome.FAILED, "no suitable node: 3 lack memory")


def test_a_service_that_is_removed_meanwhile_ends_the_wait() -> None:
    verdict = look(None)
    assert (verdict.progress.outcome, verdict.progress.note) == (Outcome.FAILED, "service web was removed")


@pytest.mark.parametrize(
    ("state", "is_rollback", "outcome"),
    [
        (UpdateState.UPDATING, False, Outcome.WORKING),
        (UpdateState.COMPLETED, False, Outcome.CONVERGED),
        (UpdateState.PAUSED, False, Outcome.FAILED),
        (UpdateState.ROLLBACK_STARTED, False, Outcome.WORKING),
        (UpdateState.ROLLBACK_COMPLETED, False, Outcome.FAILED),
        (UpdateState.ROLLBACK_COMPLETED, True, Outcome.CONVERGED),
        (UpdateState.ROLLBACK_PAUSED, True, Outcome.FAILED),
    ],
)
def test_an_update_ends_as_the_cluster_says(state: UpdateState, is_rollback: bool, outcome: Outcome) -> None:
    web = replace(a_service("web"), update_status=UpdateStatus(state, started_at=50))
    verdict = look(web, *running(1), desired=1, goal=Goal("web", "web", is_rollback=is_rollback))
    assert verdict.progress.outcome is outcome


def test_the_status_of_an_earlier_update_says_nothing() -> None:
    status = UpdateStatus(UpdateState.PAUSED, started_at=50)
    web = replace(a_service("web"), update_status=status)
    verdict = look(web, *running(1), desired=1, goal=Goal("web", "web", baseline=status))
    assert verdict.progress.outcome is Outcome.WORKING


def sums(state: JobState, message: str = "") -> Service:
    service = a_service("web", job=ReplicatedJob(2, 3))
    return replace(service, job_status=JobStatus(iteration=2, state=state, message=message))


def job_task(slot: int, state: TaskState, *, run: int = 2) -> Task:
    return replace(a_task(f"t{run}{slot}", slot=slot, state=state, desired=TaskState.COMPLETE), job_iteration=run)


def test_a_job_is_followed_until_its_run_is_over() -> None:
    tasks = [job_task(slot, TaskState.COMPLETE, run=1) for slot in (1, 2, 3)]
    tasks += [job_task(1, TaskState.COMPLETE), job_task(2, TaskState.RUNNING)]
    progress = look(sums(JobState.RUNNING), *tasks).progress
    assert (progress.outcome, progress.done, progress.desired) == (Outcome.WORKING, 1, 3)
    assert news(None, progress)[0] == "web: 1/3 complete"
    over = look(sums(JobState.COMPLETE), *(job_task(slot, TaskState.COMPLETE) for slot in (1, 2, 3))).progress
    assert (over.outcome, over.done, over.note) == (Outcome.CONVERGED, 3, "job complete")


def test_a_job_that_gave_up_says_why() -> None:
    progress = look(sums(JobState.FAILED, "task t ended: exit 1"), job_task(1, TaskState.FAILED)).progress
    assert (progress.outcome, progress.note) == (Outcome.FAILED, "the job failed: task t ended: exit 1")


def test_bars_show_each_slot() -> None:
    progress = Progress(
        "web",
        1,
        3,
        (
            Slot("1", TaskState.RUNNING, True),
            Slot("2", TaskState.PREPARING, False),
            Slot("3", TaskState.PENDING, False, "no suitable node"),
        ),
        "no suitable node",
    )
    assert bars([progress], width=90, height=24) == [
        "overall progress: 1 out of 3 tasks",
        "1/3: running   [=================================================>]",
        "2/3: preparing [==========================>                       ]",
        "3/3: pending   no suitable node",
        "no suitable node",
    ]


def test_bars_fit_the_terminal() -> None:
    many = Progress("web", 0, 20, tuple(Slot(str(n), TaskState.NEW, False) for n in range(1, 21)))
    assert bars([many], width=20, height=10) == ["overall progress: 0"]
    assert bars([many, many], width=60, height=100)[0] == "web: overall progress: 0 out of 20 tasks"
    crowd = Progress("web", 5, 50, many.slots)
    assert bars([crowd], width=80, height=50) == ["overall progress: 5 out of 50 tasks"]


def test_news_tells_only_what_changed() -> None:
    start = Progress("web", 0, 2, (Slot("1", None, False),))
    assert news(None, start) == ["web: 0/2 running"]
    assert news(start, start) == []
    broken = Progress("web", 1, 2, (Slot("1", TaskState.FAILED, False, "boom"),))
    assert news(start, broken) == ["web: 1/2 running", "web.1: boom"]
    assert news(broken, broken) == []
    waits = [Progress("web", 2, 2, (), f"Waiting {n} seconds to verify…") for n in (5, 4)]
    assert news(broken, waits[0]) == ["web: 2/2 running", "web: Waiting 5 seconds to verify…"]
    assert news(*waits) == []
    done = Progress("web", 2, 2, (), "Service web converged", Outcome.CONVERGED)
    assert news(waits[1], done) == ["verify: Service web converged"]


def test_an_update_that_replaces_no_task_is_over_when_the_managers_say_so() -> None:
    web = a_service("web", replicas=2, spec_version=2)
    older = running(1, 2, spec_version=1)
    assert look(web, *older).progress.done == 0
    status = UpdateStatus(UpdateState.COMPLETED, started_at=5.0)
    verdict = look(replace(web, update_status=status), *older)
    assert (verdict.progress.outcome, verdict.progress.done) == (Outcome.CONVERGED, 2)
    earlier = Goal("web", "web", baseline=status)
    assert look(replace(web, update_status=status), *older, goal=earlier).progress.done == 0, "that was another update"
