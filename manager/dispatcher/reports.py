"""Fold agents' status reports into changes of the store (pure).

Only the node a task is assigned to may report on it, a state is never lowered, and what does not move the task on is
dropped (swarm mistakes 1, 2). The manager's clock stamps the change: decisions compare moments of one clock.
"""

from collections.abc import Iterable

from msgspec import Struct
from msgspec.structs import replace

from pyswarm.manager.orchestrator.moves import Actor, may_move
from pyswarm.manager.store.changes import Plan, Update
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.proto.model.objects import TaskStatus
from pyswarm.proto.model.states import TaskState


class Report(Struct, frozen=True):
    node_id: str
    task_id: str
    status: TaskStatus


def fold(seen: Snapshot, reports: Iterable[Report], *, now: float) -> Plan:
    """Return the changes that the reports justify; of several on one task, the furthest counts."""
    furthest: dict[str, Report] = {}
    for report in reports:
        task = seen.task(report.task_id)
        if task is None or task.node_id != report.node_id:
            continue
        known = furthest.get(report.task_id)
        if known is None or report.status.state > known.status.state:
            furthest[report.task_id] = report
    changes = []
    for task_id in sorted(furthest):
        task = seen.task(task_id)
        assert task is not None
        # The moment it began to run is the manager's to say, and outlives the run.
        status = replace(furthest[task_id].status, running_at=task.status.running_at)
        if not may_move(task.state, status.state, Actor.AGENT):
            continue
        if status.state == task.state and _same(status, task.status):
            continue
        # Within RUNNING only details change: the moment it began to run stays.
        timestamp = task.status.timestamp if status.state == task.state else now
        running_at = now if status.state is TaskState.RUNNING and not status.running_at else status.running_at
        changes.append(Update(replace(task, status=replace(status, timestamp=timestamp, running_at=running_at))))
    return Plan(tuple(changes), why=f"{len(changes)} status reports")


def _same(one: TaskStatus, other: TaskStatus) -> bool:
    return replace(one, timestamp=0.0) == replace(other, timestamp=0.0)
