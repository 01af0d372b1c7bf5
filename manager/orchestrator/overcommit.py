"""Decide which tasks a node has too many of, when it has less than it had (pure).

Reservations are kept when a task is placed; a node may shrink afterwards: a machine with less memory, a GPU taken out.
What no longer fits is moved elsewhere as by a rebalance: the lowest priority and the newest first. Every kind of
resource is judged for every task (swarm mistake 38). Tasks of global services and jobs stay: they have no other place.
"""

from msgspec.structs import replace

from pyswarm.manager.scheduler.generic import Pieces
from pyswarm.manager.scheduler.node_info import holds_resources
from pyswarm.manager.store.changes import Plan, Update
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.proto.model.objects import Move, Node, Revision, Task
from pyswarm.proto.model.resources import NO_RESOURCES, Resources
from pyswarm.proto.model.states import TaskState


def relieve(seen: Snapshot, node: Node, *, now: float) -> Plan:
    """Return the marks on the tasks that do not fit the node any more."""
    held = [
        (t, r) for t in seen.tasks_of_node(node.id) if holds_resources(t) and (r := seen.revision_of(t)) is not None
    ]
    held.sort(key=lambda one: (-one[1].task_template.placement.priority, one[0].created_at, one[0].id))
    free, pieces = node.description.resources, Pieces(node.description.resources.generic)
    surplus: list[Task] = []
    for task, revision in held:
        wanted = revision.task_template.resources.reservations
        if wanted == NO_RESOURCES:
            continue
        if _fits(wanted, free, has_pids=bool(node.description.resources.pids)) and pieces.hold(task.assigned_generic):
            free -= wanted
            pieces.take(task.assigned_generic)
        elif _can_be_moved(seen, task, revision):
            surplus.append(task)
    why = f"node {node.description.hostname or node.id} has less than is reserved on it (index {node.version})"
    marks = tuple(Update(replace(task, move=Move(why, now))) for task in surplus)
    return Plan(marks, why=why if marks else "")


def _fits(wanted: Resources, free: Resources, *, has_pids: bool) -> bool:
    return (
        wanted.nano_cpus <= max(0, free.nano_cpus)
        and wanted.memory_bytes <= max(0, free.memory_bytes)
        and not (has_pids and wanted.pids > max(0, free.pids))
    )


def _can_be_moved(seen: Snapshot, task: Task, revision: Revision) -> bool:
    service = seen.service(revision.service_id)
    is_replicated = service is not None and service.spec.mode.replicated is not None
    return is_replicated and task.is_live and task.state is TaskState.RUNNING and task.move is None
