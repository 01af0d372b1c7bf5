"""Decide what removing a node changes (pure).

The node, its tasks and its certificate go in one plan (swarm mistake 49).
"""

from msgspec.structs import replace

from pyswarm.manager.orchestrator.placement import is_lost
from pyswarm.manager.store.changes import Change, Delete, Plan, Update
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.proto.errors import FailedPrecondition, NotFound
from pyswarm.proto.model.spec import ClusterSpec
from pyswarm.proto.model.states import TaskState

BLACKLIST_GRACE_SECONDS = 7 * 24 * 3600.0


def remove_node(seen: Snapshot, node_id: str, *, force: bool, now: float) -> Plan:
    """Raises NotFound, and FailedPrecondition while the node is up and `force` is not given."""
    node = seen.node(node_id)
    if node is None:
        raise NotFound(f"no such node: {node_id}", remedy="`pyswarm node ls` lists what there is.")
    name = node.description.hostname or node.id
    if not force and not is_lost(node):
        raise FailedPrecondition(
            f"node {name} is not down and can't be removed",
            remedy="Run `pyswarm leave` on it first, or remove it with --force.",
        )
    changes: list[Change] = [Delete("node", node.id, node.version)]
    for task in seen.tasks_of_node(node.id):
        if not task.state.is_terminal:
            status = replace(task.status, state=TaskState.ORPHANED, timestamp=now, message="its node was removed")
            desired = max(task.desired_state, TaskState.SHUTDOWN)
            changes.append(Update(replace(task, status=status, desired_state=desired)))
    if seen.cluster is not None:
        spec = seen.cluster.spec if seen.cluster else ClusterSpec()
        until = now + spec.node_cert_expiry_seconds + BLACKLIST_GRACE_SECONDS
        blacklist = {id: end for id, end in seen.cluster.blacklist.items() if end > now} | {node.id: until}
        changes.append(Update(replace(seen.cluster, blacklist=blacklist)))
    return Plan(tuple(changes), why=f"node {name} was removed")
