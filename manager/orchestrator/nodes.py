"""Decide what removing nodes, and moving managers, changes (pure).

The node, its tasks and its certificate go in one plan (swarm mistake 49).
"""

from collections.abc import Mapping

from msgspec.structs import replace

from pyswarm.manager.orchestrator.placement import is_lost
from pyswarm.manager.store.changes import Change, Delete, Plan, Update
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.proto.errors import FailedPrecondition, NotFound
from pyswarm.proto.model.objects import Cluster, ManagerStatus, Node
from pyswarm.proto.model.states import Role, TaskState

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
    changes: list[Change] = [Delete("node", node.id, node.version), *_orphaned_tasks(seen, node.id, now)]
    if seen.cluster is not None:
        changes.append(Update(_without_nodes(seen.cluster, [node.id], now)))
    return Plan(tuple(changes), why=f"node {name} was removed")


def keep_only_manager(seen: Snapshot, node_id: str, status: ManagerStatus, *, now: float) -> Plan:
    """Make a node the cluster's only manager: the others are removed as if they had never to come back.

    Their certificates are refused from now on, so that one that comes back after all takes part in nothing until it
    has left and joined again. Raises NotFound when the node is not part of the cluster.
    """
    node = seen.node(node_id)
    if node is None:
        raise NotFound(f"node {node_id} is not part of the cluster whose state it holds")
    others = [n for n in seen.nodes() if n.id != node_id and _is_manager(n)]
    spec = replace(node.spec, role=Role.MANAGER)
    changes: list[Change] = [Update(replace(node, role=Role.MANAGER, spec=spec, manager_status=status))]
    for other in others:
        changes += [Delete("node", other.id, other.version), *_orphaned_tasks(seen, other.id, now)]
    if seen.cluster is not None and others:
        changes.append(Update(_without_nodes(seen.cluster, [other.id for other in others], now)))
    return Plan(tuple(changes), why=f"{len(others)} managers were given up")


def keep_addresses(seen: Snapshot, addresses: Mapping[str, str]) -> Plan:
    """Have the nodes of managers say where those are: `addresses` are API addresses by raft id."""
    changes: list[Change] = []
    for node in seen.nodes():
        status = node.manager_status
        addr = addresses.get(status.raft_id) if status is not None else None
        if status is not None and addr is not None and addr != status.addr:
            changes.append(Update(replace(node, manager_status=replace(status, addr=addr))))
    return Plan(tuple(changes), why="managers have moved")


def _is_manager(node: Node) -> bool:
    return node.manager_status is not None or Role.MANAGER in (node.role, node.spec.role)


def _orphaned_tasks(seen: Snapshot, node_id: str, now: float) -> list[Change]:
    changes: list[Change] = []
    for task in seen.tasks_of_node(node_id):
        if not task.state.is_terminal:
            status = replace(task.status, state=TaskState.ORPHANED, timestamp=now, message="its node was removed")
            # What is wished of it stays: that is how the reconciler sees a slot that has lost its task.
            changes.append(Update(replace(task, status=status)))
    return changes


def _without_nodes(cluster: Cluster, node_ids: list[str], now: float) -> Cluster:
    """Return the cluster with the nodes' certificates refused until they have expired."""
    until = now + cluster.spec.node_cert_expiry_seconds + BLACKLIST_GRACE_SECONDS
    kept = {id: end for id, end in cluster.blacklist.items() if end > now}
    return replace(cluster, blacklist=kept | dict.fromkeys(node_ids, until))
