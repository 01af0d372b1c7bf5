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
        status = furthest[task_id].status
        if not may_move(task.state, status.state, Actor.AGENT):
            continue
        if status.state == task.state and _same(status, task.status):
            continue
        # Within RUNNING only details change: the moment it began to run stays.
        timestamp = task.status.timestamp if status.state == task.state else now
        changes.append(Update(replace(task, status=replace(status, timestamp=timestamp))))
    return Plan(tuple(changes), why=f"{len(changes)} status reports")


def _same(one: TaskStatus, other: TaskStatus) -> bool:
    return replace(one, timestamp=0.0) == replace(other, timestamp=0.0)
