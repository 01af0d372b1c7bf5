"""What an agent does next for a task, for each wish, state and container."""

import pytest

from pyswarm.proto.model.states import TaskState
from pyswarm.proto.v1 import runtime_pb2 as pb
from pyswarm.worker.agent.health import Verdict
from pyswarm.worker.agent.steps import Step, final_status, next_step

S = TaskState
CREATED = pb.Container(id="t", state=pb.CREATED)
RUNS = pb.Container(id="t", state=pb.CONTAINER_RUNNING, pid=7)
ENDED = pb.Container(id="t", state=pb.STOPPED, exit_code=1)


@pytest.mark.parametrize(
    ("desired", "state", "container", "step"),
    [
        pytest.param(S.RUNNING, S.ASSIGNED, None, Step.ACCEPT, id="a new task is accepted"),
        pytest.param(S.RUNNING, S.ACCEPTED, None, Step.PREPARE, id="then prepared"),
        pytest.param(S.RUNNING, S.PREPARING, None, Step.PREPARE, id="again after a restart in the middle"),
        pytest.param(S.READY, S.READY, CREATED, Step.WAIT, id="a replacement waits for its turn"),
        pytest.param(S.RUNNING, S.READY, CREATED, Step.START, id="and starts when it comes"),
        pytest.param(S.RUNNING, S.STARTING, CREATED, Step.START, id="also after a restart in the middle"),
        pytest.param(S.RUNNING, S.STARTING, RUNS, Step.RUN, id="then it runs"),
        pytest.param(S.RUNNING, S.STARTING, ENDED, Step.WATCH_END, id="it ended before it was seen to run"),
        pytest.param(S.RUNNING, S.RUNNING, RUNS, Step.WAIT, id="a running task is left alone"),
        pytest.param(S.RUNNING, S.RUNNING, ENDED, Step.WATCH_END, id="its end is noted"),
        pytest.param(S.RUNNING, S.RUNNING, None, Step.LOST, id="a container that vanished is told"),
        pytest.param(S.SHUTDOWN, S.RUNNING, RUNS, Step.STOP, id="it is stopped when it shall not run"),
        pytest.param(S.SHUTDOWN, S.RUNNING, ENDED, Step.WATCH_END, id="unless it ended by itself first"),
        pytest.param(S.REMOVE, S.ACCEPTED, None, Step.CANCEL, id="one that never ran just ends"),
        pytest.param(S.SHUTDOWN, S.READY, CREATED, Step.CANCEL, id="also when it was prepared"),
        pytest.param(S.SHUTDOWN, S.SHUTDOWN, ENDED, Step.CLEAN, id="what it held is given back"),
    ],
)
def test_the_table(desired, state, container, step):
    assert next_step(desired, state, container, holds_network=True) is step


V = Verdict


@pytest.mark.parametrize(
    ("state", "health", "is_ready", "is_open", "step"),
    [
        pytest.param(S.STARTING, V.STARTING, True, False, Step.WAIT, id="it runs only once it is healthy"),
        pytest.param(S.STARTING, V.PASSING, False, False, Step.WAIT, id="and ready"),
        pytest.param(S.STARTING, V.PASSING, True, False, Step.RUN, id="and then it does"),
        pytest.param(S.STARTING, V.FAILING, True, False, Step.UNHEALTHY, id="one that never gets well is stopped"),
        pytest.param(S.RUNNING, V.FAILING, True, True, Step.UNHEALTHY, id="one that fell ill is stopped"),
        pytest.param(S.RUNNING, V.PASSING, False, True, Step.SHUT, id="one that is not ready gets no connections"),
        pytest.param(S.RUNNING, V.PASSING, False, False, Step.WAIT, id="until it is"),
        pytest.param(S.RUNNING, V.PASSING, True, False, Step.OPEN, id="and gets them again"),
    ],
)
def test_what_the_probes_say_decides(state, health, is_ready, is_open, step):
    assert (
        next_step(S.RUNNING, state, RUNS, holds_network=True, health=health, is_ready=is_ready, is_open=is_open) is step
    )


def test_an_unhealthy_container_that_shall_stop_is_stopped_as_any_other():
    assert next_step(S.SHUTDOWN, S.RUNNING, RUNS, holds_network=True, health=V.FAILING) is Step.STOP


def test_an_ended_task_that_holds_nothing_waits_to_be_forgotten():
    assert next_step(S.REMOVE, S.FAILED, None, holds_network=False) is Step.WAIT


def test_how_an_end_is_told():
    assert final_status(pb.Container(exit_code=0), was_asked=False)[0] is S.COMPLETE
    assert final_status(pb.Container(exit_code=137), was_asked=True)[0] is S.SHUTDOWN
    state, _, err = final_status(pb.Container(exit_code=137, oom_killed=True), was_asked=False)
    assert state is S.FAILED
    assert "out of memory" in err
    assert final_status(pb.Container(exit_code=127, error="no such file: /x"), was_asked=False)[2] == "no such file: /x"
