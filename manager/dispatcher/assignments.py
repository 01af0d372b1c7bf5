"""What a node must hold, and how that differs from what it was told last (pure).

A task is assigned from ASSIGNED on, until it is deleted from the store. What the agent itself reports (its status)
is no difference: only what managers decide is sent.
"""

from collections.abc import Mapping

from msgspec import Struct

from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.proto.model.objects import Revision, Task
from pyswarm.proto.model.states import TaskState


class Assigned(Struct, frozen=True):
    """A task with the revision that says what to run."""

    task: Task
    revision: Revision


class Difference(Struct, frozen=True):
    """`update` holds new and changed assignments, `remove` the ids of tasks to forget. Both sorted by task id."""

    update: tuple[Assigned, ...]
    remove: tuple[str, ...]


Assignments = Mapping[str, Assigned]


def assignments_of(seen: Snapshot, node_id: str) -> Assignments:
    """Return the assignment set of a node by task id: only its own tasks, never another's."""
    found = {}
    for task in seen.tasks_of_node(node_id):
        if task.state < TaskState.ASSIGNED or task.state is TaskState.ORPHANED:
            continue
        # Dead tasks with a place in the history stay known, so that the agent keeps what belongs to them.
        revision = seen.revision_of(task)
        if revision is not None:
            found[task.id] = Assigned(task, revision)
    return found


def difference(old: Assignments, new: Assignments) -> Difference:
    """Return what to tell a node that was told `old`."""
    update = [new[id] for id in sorted(new) if id not in old or _decided(old[id]) != _decided(new[id])]
    return Difference(tuple(update), tuple(sorted(set(old) - set(new))))


def _decided(assigned: Assigned) -> tuple[TaskState, str]:
    return assigned.task.desired_state, assigned.revision.id
