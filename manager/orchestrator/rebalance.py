"""Decide which tasks to move so that services are spread evenly over their nodes again, and no more (pure).

Each move is tried on the table of nodes with the scheduler's own decision: a task is taken from where the service has
most, and moved only if where it would be placed now is better by more than one task: of the service, or else in all.
So every move makes the cluster more even, and there is an end. relocate.py carries moves out, under the budget.
"""

from collections import Counter
from collections.abc import Iterable

from msgspec import Struct
from msgspec.structs import replace

from pyswarm.manager.orchestrator.placement import satisfies
from pyswarm.manager.orchestrator.slots import Slot, slots_of
from pyswarm.manager.scheduler.company import label_value
from pyswarm.manager.scheduler.node_info import NodeInfo
from pyswarm.manager.scheduler.nodes import NodeTable
from pyswarm.manager.scheduler.schedule import place_one
from pyswarm.manager.store.changes import Plan, Update
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.proto.errors import FailedPrecondition
from pyswarm.proto.model.objects import Move, Revision, Service, Task
from pyswarm.proto.model.states import Availability, NodeState, PlacementStrategy, TaskState, UpdateState

SETTLED_SECONDS = 10.0
"""A node that came this short a time ago may go again: services that rebalance by themselves wait."""


class PlannedMove(Struct, frozen=True):
    task: Task
    to_node: str


def rebalance(seen: Snapshot, services: Iterable[Service], *, now: float) -> tuple[Plan, tuple[PlannedMove, ...]]:
    """Return the marks that make services even, and where their tasks would go if that happened now."""
    table = NodeTable(seen)
    moves = [move for service in services for move in _moves(seen, service, table, now)]
    marks = [Update(replace(move.task, move=Move("to spread the service evenly", now))) for move in moves]
    return Plan(tuple(marks), why=f"{len(moves)} tasks are to be moved" if moves else ""), tuple(moves)


def looks_uneven(seen: Snapshot, service: Service, *, now: float) -> tuple[bool, float | None]:
    """Whether a look at the whole table is worth while, and when to look again: new nodes settle first."""
    counts: list[int] = []
    moments: list[float] = []
    for node in seen.nodes():
        if node.status.state is not NodeState.READY or node.spec.availability is not Availability.ACTIVE:
            continue
        if not satisfies(node, service.spec.task_template.placement.constraints):
            continue
        settled_at = node.status.changed_at + SETTLED_SECONDS
        if settled_at > now:
            moments.append(settled_at)
        counts.append(sum(t.service_id == service.id and t.is_live for t in seen.tasks_of_node(node.id)))
    is_uneven = bool(counts) and max(counts) - min(counts) > 1
    return is_uneven and not moments, min(moments, default=None) if is_uneven else None


def can_be_rebalanced(service: Service) -> bool:
    """Whether a service is one that spreads and is not in the middle of an update."""
    return (
        service.spec.mode.replicated is not None
        and service.spec.task_template.placement.strategy is not PlacementStrategy.BINPACK
        and service.update_status.state not in (UpdateState.UPDATING, UpdateState.ROLLBACK_STARTED)
    )


def check_can_be_rebalanced(service: Service) -> None:
    """Raises FailedPrecondition saying why a service cannot be spread evenly now."""
    name = service.spec.name
    if service.spec.mode.replicated is None:
        raise FailedPrecondition(
            f"service {name} is {service.spec.mode.name}: its tasks are not spread",
            remedy="Only replicated services are rebalanced.",
        )
    if service.spec.task_template.placement.strategy is PlacementStrategy.BINPACK:
        raise FailedPrecondition(
            f"service {name} packs its tasks together", remedy="Set `--strategy spread` first, if it shall be spread."
        )
    if not can_be_rebalanced(service):
        raise FailedPrecondition(
            f"service {name} is being updated", remedy="Rebalance it when the update has ended: `pyswarm service ls`."
        )


def _moves(seen: Snapshot, service: Service, table: NodeTable, now: float) -> list[PlannedMove]:
    if not can_be_rebalanced(service):
        return []
    loads = _Loads(service, table)
    left: dict[str, list[Task]] = {}
    for slot in slots_of(service, seen.tasks_of_service(service.id)).values():
        if (task := _movable(slot)) is not None and task.node_id in table.infos:
            left.setdefault(task.node_id, []).append(task)
    moves: list[PlannedMove] = []
    while left:
        # The highest slot of the node that has most of the service.
        node_id = max(left, key=lambda id: (loads.of(table.infos[id]), id))
        task = left[node_id].pop()
        if not left[node_id]:
            del left[node_id]
        revision = seen.revision_of(task)
        to_node = "" if revision is None else _better_node(seen, task, revision, table, loads, now)
        if not to_node:
            break
        moves.append(PlannedMove(task, to_node))
    return moves


def _movable(slot: Slot) -> Task | None:
    """Return the slot's one running task, None when there is more or less to it."""
    if len(slot.live) != 1:
        return None
    (task,) = slot.live
    is_settled = task.state is TaskState.RUNNING and task.desired_state is TaskState.RUNNING
    return task if is_settled and task.move is None else None


def _better_node(seen: Snapshot, task: Task, revision: Revision, table: NodeTable, loads: "_Loads", now: float) -> str:
    """Move the task in the table and return where to, or leave it there and return ""."""
    here = table.infos[task.node_id]
    before = loads.of(here)
    table.lift(task, revision)
    loads.change(here, -1)
    moved = replace(task, node_id="", id=f"{task.id}-moved")
    to_node = place_one(seen, moved, revision, table, now=now)
    if to_node:
        loads.change(table.infos[to_node], 1)
        if loads.of(table.infos[to_node]) < before:
            return to_node
        loads.change(table.infos[to_node], -1)
        table.take_back([moved])
    table.put_back(task, revision)
    loads.change(here, 1)
    return ""


class _Loads:
    """How many tasks there are where a node is: of the service on its branches, outermost first, and on itself; in all.

    A task is better off where this is less with it than it was where it came from: compared in this order, since
    swapping one for one on a level leaves it as it was.
    """

    def __init__(self, service: Service, table: NodeTable) -> None:
        self._preferences = service.spec.task_template.placement.preferences
        self._service_id = service.id
        self._branches: Counter[tuple[str, ...]] = Counter()
        for id in table.nodes_of_service.get(service.id, ()):
            info = table.infos[id]
            self.change(info, info.active_of_service.get(service.id, 0))

    def of(self, info: NodeInfo) -> tuple[int, ...]:
        branches = (self._branches[branch] for branch in self._branches_of(info))
        return (*branches, info.active_of_service.get(self._service_id, 0), info.active_total)

    def change(self, info: NodeInfo, count: int) -> None:
        for branch in self._branches_of(info):
            self._branches[branch] += count

    def _branches_of(self, info: NodeInfo) -> list[tuple[str, ...]]:
        values = [label_value(info, key) for key in self._preferences]
        return [tuple(values[:depth]) for depth in range(1, len(values) + 1)]
