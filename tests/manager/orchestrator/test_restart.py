"""When a dead task's slot gets a new one, from what is stored alone."""

import pytest
from lib.builders import a_service, a_task
from msgspec.structs import replace

from pyswarm.manager.orchestrator.restart import after_death, delay_of
from pyswarm.manager.orchestrator.slots import slot_of
from pyswarm.proto.model.objects import Task, TaskStatus
from pyswarm.proto.model.spec import RestartPolicy
from pyswarm.proto.model.states import RestartCondition, TaskState

WEB = a_service("web")


def dead(number: int, *, at: float, ran: float = 1.0, state: TaskState = TaskState.FAILED, version: int = 1) -> Task:
    task = a_task(f"t{number}", service=WEB, slot=1, node="n1", state=state)
    status = TaskStatus(state=state, timestamp=at, running_at=at - ran if ran else 0.0)
    return replace(task, status=status, created_at=at - ran - 1.0, spec_version=version)


def waits(policy: RestartPolicy, *tasks: Task) -> float | None:
    """How long after the last one's death the next task starts."""
    last = tasks[-1]
    verdict = after_death(slot_of(1, tasks), last, policy, now=last.status.timestamp)
    return None if verdict.start_after is None else verdict.start_after - last.status.timestamp


@pytest.mark.parametrize(("crashes", "seconds"), [(1, 5), (2, 10), (3, 20), (4, 40), (5, 60), (9, 60)])
def test_a_crash_loop_waits_twice_as_long_each_time_up_to_a_limit(crashes: int, seconds: float):
    assert waits(RestartPolicy(), *(dead(n, at=1000.0 + 100 * n) for n in range(crashes))) == seconds


def test_a_policy_without_delay_restarts_at_once_and_backs_off_all_the_same():
    crashes = [dead(n, at=1000.0 + 100 * n) for n in range(3)]
    assert waits(RestartPolicy(delay_seconds=0), crashes[0]) == 0
    assert waits(RestartPolicy(delay_seconds=0), *crashes) == 4


def test_a_task_that_ran_for_long_is_no_crash_loop():
    crashes = [dead(n, at=1000.0 + 200 * n) for n in range(3)]
    assert waits(RestartPolicy(), *crashes, dead(4, at=2000.0, ran=61.0)) == 5


def test_a_task_that_was_stopped_or_is_of_another_version_begins_anew():
    crashes = [dead(n, at=1000.0 + 100 * n) for n in range(3)]
    assert waits(RestartPolicy(), *crashes, dead(4, at=1400.0, version=2)) == 5
    stopped = dead(4, at=1400.0, state=TaskState.SHUTDOWN)
    assert waits(RestartPolicy(), *crashes, stopped, dead(5, at=1500.0)) == 5


def test_back_off_can_be_turned_off():
    crashes = [dead(n, at=1000.0 + 100 * n) for n in range(5)]
    assert waits(RestartPolicy(max_delay_seconds=0), *crashes) == 5


def test_a_delay_longer_than_the_limit_stays_what_it_is():
    assert delay_of(RestartPolicy(delay_seconds=300), 4) == 300


def test_a_new_leader_goes_on_with_a_delay_that_has_begun():
    """Swarm mistake 23: it is counted from the death, not from when somebody looked."""
    task = dead(1, at=1000.0)
    assert after_death(slot_of(1, (task,)), task, RestartPolicy(), now=1003.0).start_after == 1005.0
    assert after_death(slot_of(1, (task,)), task, RestartPolicy(), now=1009.0).start_after == 1009.0


@pytest.mark.parametrize(
    ("policy", "state", "restarts"),
    [
        (RestartPolicy(condition=RestartCondition.NONE), TaskState.FAILED, False),
        (RestartPolicy(condition=RestartCondition.ON_FAILURE), TaskState.COMPLETE, False),
        (RestartPolicy(condition=RestartCondition.ON_FAILURE), TaskState.REJECTED, True),
        (RestartPolicy(condition=RestartCondition.ANY), TaskState.COMPLETE, True),
    ],
)
def test_the_condition_decides_whether_at_all(policy: RestartPolicy, state: TaskState, restarts: bool):
    assert (waits(policy, dead(1, at=1000.0, state=state)) is not None) == restarts


def test_attempts_are_counted_within_the_window_from_what_is_kept():
    """Swarm mistake 24: the history is in the store, so a new leader counts the same."""
    policy = RestartPolicy(max_attempts=2, window_seconds=100)
    old = [dead(n, at=1000.0 + n) for n in range(3)]
    assert waits(policy, *old) is None
    assert waits(policy, *old, dead(4, at=2000.0)) is not None, "those of long ago no longer count"
    assert waits(replace(policy, window_seconds=0), *old, dead(4, at=2000.0)) is None
