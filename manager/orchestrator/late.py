"""What of a decision still holds on a later view (pure).

Deciding about a large service takes a while, and its tasks move on meanwhile. What was decided about a slot of which
any task has moved may be wrong now: it is left out and decided again, and so is everything when the service itself has
changed. The rest is written as decided: slots do not depend on each other but for how many may be disturbed at once,
and to disturb fewer is always allowed.
"""

from collections.abc import Collection, Sequence

from pyswarm.manager.orchestrator.slots import SlotKey, slot_key
from pyswarm.manager.store.changes import Change, Create, Update
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.proto.model.objects import Service, Task


def still_valid(
    changes: Sequence[Change], service_id: str, *, then: Snapshot, now: Snapshot, own: Collection[int] = ()
) -> tuple[Change, ...]:
    """Return those of `changes`, decided about a service on the view `then`, that hold on the view `now`.

    What the decision itself has changed meanwhile, in the entries that made the versions `own`, was reckoned with.
    """
    if then.version == now.version:
        return tuple(changes)
    before, service = then.service(service_id), now.service(service_id)
    version = 0 if service is None else service.version
    if version not in (0 if before is None else before.version, *own):
        return ()
    moved = _moved_slots(service, then.tasks_of_service(service_id), now.tasks_of_service(service_id), own)
    return tuple(c for c in changes if (task := _task_of(c, then)) is None or _slot(service, task) not in moved)


def _moved_slots(
    service: Service | None, then: Sequence[Task], now: Sequence[Task], own: Collection[int]
) -> set[SlotKey]:
    """Return the slots of which a task was changed, made or forgotten in between, by others."""
    before = {task.id: task.version for task in then}
    after = {task.id: task.version for task in now}
    tasks = [task for task in now if before.get(task.id) != task.version and task.version not in own]
    tasks += [task for task in then if task.id not in after]
    return {_slot(service, task) for task in tasks}


def _slot(service: Service | None, task: Task) -> SlotKey:
    # What is left of a service that was removed is decided task by task.
    return task.id if service is None else slot_key(service, task)


def _task_of(change: Change, then: Snapshot) -> Task | None:
    """Return the task that a change is about, None for one about something else."""
    if isinstance(change, Create | Update):
        return change.object if isinstance(change.object, Task) else None
    return then.task(change.id) if change.kind == "task" else None
