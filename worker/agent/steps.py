"""Decide what to do next for one task: the table of a task's life on its node (pure).

Given what managers want, how far the task got, and what the runtime says of its container. The edge (`controller.py`)
does it, notes the new state and asks again, until the answer is WAIT.
"""

from enum import Enum

from pyswarm.proto.model.states import TaskState
from pyswarm.proto.v1 import runtime_pb2 as pb
from pyswarm.worker.agent.health import Verdict


class Step(Enum):
    ACCEPT = "accept"
    PREPARE = "prepare"
    START = "start"
    RUN = "note that it runs, and let connections in"
    OPEN = "let connections in again"
    SHUT = "let no connections in until it is ready again"
    UNHEALTHY = "stop it because it is not well"
    WATCH_END = "note that the container ended"
    LOST = "note that the container is gone"
    STOP = "stop"
    CANCEL = "end without ever having run"
    CLEAN = "take away what a stopped task held"
    WAIT = "wait"


def next_step(
    desired: TaskState,
    state: TaskState,
    container: pb.Container | None,
    *,
    holds_network: bool,
    health: Verdict = Verdict.PASSING,
    is_ready: bool = True,
    is_open: bool = True,
) -> Step:
    """Return the next step.

    `state` is the task's observed state, `container` its container if there is one, `health` and `is_ready` what the
    probes say of it, `is_open` whether connections are let in.
    """
    if state.is_terminal:
        return Step.CLEAN if holds_network else Step.WAIT
    runs = container is not None and container.state in (pb.CONTAINER_RUNNING, pb.CONTAINER_PAUSED)
    has_ended = container is not None and container.state == pb.STOPPED
    if desired > TaskState.COMPLETE:
        # A container that ended by itself before we could stop it is told as what it was.
        if has_ended and state is TaskState.RUNNING:
            return Step.WATCH_END
        return Step.STOP if runs else Step.CANCEL
    if state < TaskState.ACCEPTED:
        return Step.ACCEPT
    if state < TaskState.READY or (state is TaskState.READY and container is None):
        # Also after a restart in the middle: preparing is idempotent.
        return Step.PREPARE
    if state in (TaskState.READY, TaskState.STARTING):
        if has_ended:
            return Step.WATCH_END
        if desired < TaskState.RUNNING:
            return Step.WAIT
        return _next_of_starting(health, is_ready=is_ready) if runs and state is TaskState.STARTING else Step.START
    if container is None:
        return Step.LOST
    if has_ended:
        return Step.WATCH_END
    if health is Verdict.FAILING:
        return Step.UNHEALTHY
    if is_ready == is_open:
        return Step.WAIT
    return Step.OPEN if is_ready else Step.SHUT


def _next_of_starting(health: Verdict, *, is_ready: bool) -> Step:
    """A container that runs is a RUNNING task only once its probes pass (swarm mistake 57)."""
    if health is Verdict.FAILING:
        return Step.UNHEALTHY
    return Step.RUN if health is Verdict.PASSING and is_ready else Step.WAIT


def final_status(container: pb.Container, *, was_asked: bool) -> tuple[TaskState, str, str]:
    """Return (state, message, err) of a task whose container has stopped."""
    if was_asked:
        return TaskState.SHUTDOWN, "shutdown", ""
    if container.exit_code == 0 and not container.error:
        return TaskState.COMPLETE, "finished", ""
    if container.oom_killed:
        return TaskState.FAILED, "failed", f"out of memory: task: non-zero exit ({container.exit_code})"
    if container.error:
        return TaskState.FAILED, "failed", container.error
    return TaskState.FAILED, "failed", f"task: non-zero exit ({container.exit_code})"
