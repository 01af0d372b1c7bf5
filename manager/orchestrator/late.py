"""What of a decision still holds on a later view (pure).

Deciding about a large service takes a while, and its tasks move on meanwhile. What was decided about a slot of which
any task has moved may be wrong now: it is left out and decided again, and so is everything when the service itself has
changed. The rest is written as decided: slots do not depend on each other but for how many may be disturbed at once,
and to disturb fewer is always allowed. Canary steps make them depend on each other: a slot may be taken because
another lost its canary, so of such a service all is decided again. How far a task has come on its way to RUNNING is no
such move.
"""

from collections.abc import Collection, Sequence

from msgspec.structs import replace

from pyswarm.manager.orchestrator.slots import SlotKey, slot_key
from pyswarm.manager.orchestrator.update import update_config
from pyswarm.manager.store.changes import Change, Create, Update
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.proto.model.objects import Service, Task
from pyswarm.proto.model.states import TaskState


def still_valid(
    changes: Sequence[Change], service_id: str, *, then: Snapshot, now: Snapshot, own: Collection[int] = ()
) -> tuple[Change, ...]:
    """Return those of `changes`, decided about a service on the view `then`, that hold on the view `now`, made for it.

    What the decision itself has changed meanwhile, in the entries that made the versions `own`, was reckoned with.
    """
    if then.version == now.version:
        return tuple(changes)
    before, service = then.service(service_id), now.service(service_id)
    version = 0 if service is None else service.version
    if version not in (0 if before is None else before.version, *own):
        return ()
    moved = _moved_slots(service, then.tasks_of_service(service_id), now.tasks_of_service(service_id), own)
    holding = [c for c in changes if (task := _task_of(c, then)) is None or _slot(service, task) not in moved]
    if len(holding) < len(changes) and service is not None and update_config(service).canary:
        return ()
    return tuple(made for change in holding if (made := _made_for(now, change, then)) is not None)


def is_news(old: Task, new: Task) -> bool:
    """Whether a change of a task may change what is decided about its service.

    How far a task has come on its way to RUNNING does not: most of what agents report says only that.
    """
    if old.version == new.version:
        return False
    if not (_is_on_its_way(old) and _is_on_its_way(new)):
        return True
    return replace(new, status=old.status, version=old.version, updated_at=old.updated_at) != old


def _is_on_its_way(task: Task) -> bool:
    return TaskState.ASSIGNED <= task.state <= TaskState.STARTING


def _made_for(now: Snapshot, change: Change, then: Snapshot) -> Change | None:
    """Return a change of a task that has come further on its way as a change of what it is now.

    None for one that was to change how far it has come.
    """
    if not isinstance(change, Update) or not isinstance(change.object, Task):
        return change
    old, current = then.task(change.object.id), now.task(change.object.id)
    if old is None or current is None or current.version == change.object.version:
        return change
    if change.object.status not in (old.status, current.status):
        return None
    return Update(replace(change.object, status=current.status, version=current.version))


def _moved_slots(
    service: Service | None, then: Sequence[Task], now: Sequence[Task], own: Collection[int]
) -> set[SlotKey]:
    """Return the slots of which a task was changed, made or forgotten in between, by others."""
    before = {task.id: task for task in then}
    tasks = [
        task for task in now if task.version not in own and ((old := before.get(task.id)) is None or is_news(old, task))
    ]
    after = {task.id for task in now}
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
