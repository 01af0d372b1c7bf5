"""Decide which running tasks of a replicated service to move elsewhere now, and which moves are over (pure).

A task is moved that runs on a drained node, or that carries the mark of a move (rebalance.py, overcommit.py). Its slot
gets a new task first and keeps the old one until the new one runs; stop-first services do without for that while. No
more slots are disturbed at once than the service's move configuration allows, however they came to be disturbed. A
drained node is left in any case once its timeout is over (reconcile.py); a marked task that could not be moved in time
stays where it is.
"""

from collections.abc import Iterable, Mapping

from msgspec import Struct

from pyswarm.manager.orchestrator.placement import is_being_emptied, is_drained, is_lost
from pyswarm.manager.orchestrator.restart import after_death
from pyswarm.manager.orchestrator.slots import Slot, SlotKey
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.proto.model.objects import Node, Service, Task
from pyswarm.proto.model.states import TaskState, UpdateOrder

MARKED_SECONDS = 300.0
"""How long a marked task waits for the one in its place to run."""


class MoveStep(Struct, frozen=True):
    """What to do now: tasks to stop with the reason, slots that get a new task, and tasks that lose their mark."""

    stop: tuple[tuple[Task, str], ...] = ()
    replace: tuple[tuple[Slot, str], ...] = ()
    unmark: tuple[Task, ...] = ()
    moments: tuple[float, ...] = ()


def decide_moves(seen: Snapshot, service: Service, slots: Mapping[SlotKey, Slot], *, now: float) -> MoveStep:
    """Return the next step of all moves of a service."""
    stop: list[tuple[Task, str]] = []
    unmark: list[Task] = []
    moments: list[float] = []
    waiting: list[tuple[Slot, str]] = []
    drained = {node.id for node in seen.nodes() if is_drained(node)}
    for slot in slots.values():
        if not slot.live or (len(slot.live) == 1 and slot.live[0].move is None and slot.live[0].node_id not in drained):
            continue
        leaving = {t.id: why for t in slot.live if (why := reason_to_move(seen, t, now=now))}
        if not leaving:
            stop += [(task, "its slot has another running task") for task in _surplus(slot)]
            continue
        why = next(iter(leaving.values()))
        staying = [t for t in slot.live if t.id not in leaving]
        late = [t for t in slot.live if _is_late(seen, t, now)]
        if any(t.state is TaskState.RUNNING for t in staying):
            stop += [(t, leaving[t.id]) for t in slot.live if t.id in leaving]
        elif late:
            unmark += late
            stop += [(t, "what it was to replace stays where it is") for t in staying]
        else:
            moments += [m for t in slot.live if (m := _ends_at(seen, t)) is not None]
            if not staying and len(slot.live) > 1:
                # Both ends of a move are to be left: one of them holds the slot until the next one runs.
                stop += [(task, leaving[task.id]) for task in slot.live[:-1]]
            # While what an earlier move stops may still run, a third container would: its end brings us back here.
            elif not staying and not is_being_emptied(seen, slot.tasks):
                start_after = _may_start_at(service, slot, now)
                moments += [] if start_after is None else [start_after]
                if start_after is not None and start_after <= now:
                    waiting.append((slot, why))
    room = budget(service, len(slots)) - disturbed(seen, slots.values(), now=now)
    begun = waiting[: max(0, room)]
    if not starts_first(service):
        stop += [(task, why) for slot, why in begun for task in slot.live]
    return MoveStep(tuple(stop), tuple(begun), tuple(unmark), tuple(moments))


def reason_to_move(seen: Snapshot, task: Task, *, now: float) -> str:
    """Return why a running task is to be moved, "" when it may stay, or must leave at once."""
    if task.state is not TaskState.RUNNING or not task.is_live:
        return ""
    node = seen.node(task.node_id)
    if node is None or is_lost(node):
        return ""
    if is_drained(node):
        since = f"node {node.description.hostname or node.id} is drained (index {node.version})"
        return since if now < drained_by(node) else ""
    return task.move.why if task.move is not None else ""


def drained_by(node: Node) -> float:
    """Return when the tasks of a drained node must have left it."""
    return node.availability_since + node.spec.drain_timeout_seconds


def starts_first(service: Service) -> bool:
    """Whether a slot's new task runs before the old one stops."""
    order = service.spec.move_config.order
    if order is not UpdateOrder.UNSET:
        return order is UpdateOrder.START_FIRST
    mode = service.spec.mode.replicated
    is_single = mode is not None and mode.replicas == 1
    return not is_single or service.spec.update_config.order is UpdateOrder.START_FIRST


def budget(service: Service, slots: int) -> int:
    """Return how many slots may be disturbed at once."""
    return service.spec.move_config.parallelism or max(1, -(-slots // 4))


def disturbed(seen: Snapshot, slots: Iterable[Slot], *, now: float) -> int:
    """Return how many slots do not run a task, or are in the middle of a move."""
    return sum(not slot.is_running or _is_moving(seen, slot, now) for slot in slots)


def _is_moving(seen: Snapshot, slot: Slot, now: float) -> bool:
    return len(slot.live) > 1 and any(reason_to_move(seen, task, now=now) for task in slot.live)


def _surplus(slot: Slot) -> list[Task]:
    """Return tasks that a slot has too many: begun for a move that nobody wants any more."""
    if len(slot.live) < 2:
        return []
    newest = max(t.spec_version for t in slot.live)
    alike = [t for t in slot.live if t.spec_version == newest]
    keep = next((t for t in alike if t.state is TaskState.RUNNING), None)
    return [] if keep is None else [t for t in alike if t.id != keep.id]


def _is_late(seen: Snapshot, task: Task, now: float) -> bool:
    ends_at = _ends_at(seen, task)
    return task.move is not None and ends_at is not None and ends_at <= now and task.state is TaskState.RUNNING


def _ends_at(seen: Snapshot, task: Task) -> float | None:
    """Return when a move is given up, or for a drained node must be over; None when the task is not to be moved."""
    node = seen.node(task.node_id)
    if node is not None and is_drained(node):
        return drained_by(node)
    return None if task.move is None else task.move.since + MARKED_SECONDS


def _may_start_at(service: Service, slot: Slot, now: float) -> float | None:
    """Return when a slot's next task may be made: after one that broke in its place, as the restart policy says."""
    newest = slot.newest
    if not newest.state.is_failure:
        return now
    return after_death(slot, newest, service.spec.task_template.restart_policy, now=now).start_after
