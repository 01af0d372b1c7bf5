"""Who may move a task's observed state from where: the table is the documentation, and everybody goes through it.

Managers write `desired_state`; `status` belongs to the orchestrator and scheduler until a task is ASSIGNED, to
the agent of its node after that, and to the reaper when that node is gone for good. Both states only grow.
"""

from enum import Enum

from msgspec.structs import replace

from pyswarm.proto.model.objects import Task, TaskStatus
from pyswarm.proto.model.states import TaskState


class Actor(Enum):
    ORCHESTRATOR = "orchestrator"
    SCHEDULER = "scheduler"
    AGENT = "agent"
    REAPER = "reaper"


OWNER: dict[TaskState, Actor] = {
    TaskState.NEW: Actor.ORCHESTRATOR,
    TaskState.PENDING: Actor.SCHEDULER,
    TaskState.ASSIGNED: Actor.AGENT,
    TaskState.ACCEPTED: Actor.AGENT,
    TaskState.PREPARING: Actor.AGENT,
    TaskState.READY: Actor.AGENT,
    TaskState.STARTING: Actor.AGENT,
    TaskState.RUNNING: Actor.AGENT,
}
"""The one component that may move a task out of each state. Terminal states have no way out."""

REACH: dict[Actor, frozenset[TaskState]] = {
    Actor.ORCHESTRATOR: frozenset({TaskState.PENDING}),
    Actor.SCHEDULER: frozenset({TaskState.PENDING, TaskState.ASSIGNED}),
    Actor.AGENT: frozenset(
        {
            TaskState.ACCEPTED,
            TaskState.PREPARING,
            TaskState.READY,
            TaskState.STARTING,
            TaskState.RUNNING,
            TaskState.COMPLETE,
            TaskState.SHUTDOWN,
            TaskState.FAILED,
            TaskState.REJECTED,
        }
    ),
    Actor.REAPER: frozenset({TaskState.ORPHANED}),
}
"""The states each component may move a task into."""


def may_move(at: TaskState, to: TaskState, by: Actor) -> bool:
    """Whether `by` may move a task from `at` to `to`. The reaper may orphan whatever has not ended."""
    if to not in REACH[by] or at.is_terminal or to < at:
        return False
    return by is Actor.REAPER or OWNER[at] is by


def observe(task: Task, status: TaskStatus, *, by: Actor, node_id: str | None = None) -> Task:
    """Return the task with a new observed status, and on a node when one is given.

    Raises AssertionError for a move the table does not give to `by`.
    """
    assert may_move(task.state, status.state, by), (
        f"{by.value} may not move task {task.id} from {task.state.name} to {status.state.name}"
    )
    return replace(task, status=status) if node_id is None else replace(task, status=status, node_id=node_id)


def desire(task: Task, state: TaskState, why: str = "") -> Task:
    """Return the task with a desired state at least as high as `state`: wishes only grow.

    `why` is remembered when it is to stop; the first reason stays.
    """
    if task.desired_state >= state:
        return task
    return replace(task, desired_state=state, stop_why=task.stop_why or why)
