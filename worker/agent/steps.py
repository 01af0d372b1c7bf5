"""Decide what to do next for one task: the table of a task's life on its node (pure).

Given what managers want, how far the task got, and what the runtime says of its container. The edge (`controller.py`)
does it, notes the new state and asks again, until the answer is WAIT.
"""

from enum import Enum

from pyswarm.proto.model.states import TaskState
from pyswarm.proto.v1 import runtime_pb2 as pb


class Step(Enum):
    ACCEPT = "accept"
    PREPARE = "prepare"
    START = "start"
    WATCH_END = "note that the container ended"
    LOST = "note that the container is gone"
    STOP = "stop"
    CANCEL = "end without ever having run"
    CLEAN = "take away what a stopped task held"
    WAIT = "wait"


def next_step(desired: TaskState, state: TaskState, container: pb.Container | None, *, holds_network: bool) -> Step:
    """Return the next step. `state` is the task's observed state, `container` its container if there is one."""
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
        return Step.START if desired >= TaskState.RUNNING else Step.WAIT
    if container is None:
        return Step.LOST
    return Step.WATCH_END if has_ended else Step.WAIT


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
