"""Whether a task may be on its node at all: availability, liveness and constraints (pure).

Used by the orchestrators (is a task lost, is a node eligible) and by the scheduler's filters, so that they never
disagree.
"""

import ipaddress
from collections.abc import Iterable, Sequence

from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.proto.codec.constraint import Constraint, parse_constraint
from pyswarm.proto.model.objects import Node, Task
from pyswarm.proto.model.spec import Placement
from pyswarm.proto.model.states import Availability, NodeState, TaskState


def is_lost(node: Node | None) -> bool:
    """Whether what ran on the node must be taken for dead: it is gone, or the dispatcher declared it down."""
    return node is None or node.status.state in (NodeState.DOWN, NodeState.DISCONNECTED)


def is_being_emptied(seen: Snapshot, tasks: Iterable[Task]) -> bool:
    """Whether one of a slot's tasks that was told to stop may still run: its work must not be done once more."""
    return any(
        not t.is_wanted and TaskState.ASSIGNED <= t.state <= TaskState.RUNNING and not is_lost(seen.node(t.node_id))
        for t in tasks
    )


def is_drained(node: Node) -> bool:
    return node.spec.availability is Availability.DRAIN


def reason_to_leave(task: Task, node: Node | None, placement: Placement) -> str:
    """Return why a live task must not stay where it is, or "" when it may.

    A paused node keeps its tasks. A node that is UNKNOWN (after a change of leader) is given the benefit of the doubt.
    """
    if task.state < TaskState.ASSIGNED and not task.node_id:
        return ""
    if node is None:
        return f"node {task.node_id} was removed"
    told = f"node {node.description.hostname or node.id}"
    at = f"(index {node.version})"
    if is_lost(node):
        return f"{told} is {node.status.state.name.lower()} {at}"
    if is_drained(node):
        return f"{told} is drained {at}"
    if not satisfies(node, placement.constraints):
        return f"{told} no longer meets the placement constraints {at}"
    return ""


def satisfies(node: Node, constraints: Sequence[str]) -> bool:
    return all(matches(node, parse_constraint(text)) for text in constraints)


def matches(node: Node, constraint: Constraint) -> bool:
    """Whether a node meets one constraint. Values compare without case; a missing label equals the empty string."""
    return _equals(node, constraint) is constraint.is_equal


def _equals(node: Node, constraint: Constraint) -> bool:
    key, wanted = constraint.key, constraint.value
    if key == "node.ip":
        return _address_in(node.status.addr, wanted)
    if key.startswith("node.labels."):
        value = node.spec.labels.get(constraint.label or "", "")
    elif key.startswith("engine.labels."):
        value = node.description.engine_labels.get(constraint.label or "", "")
    elif key == "node.platform.arch":
        return normal_architecture(node.description.platform.architecture) == normal_architecture(wanted)
    else:
        value = {
            "node.id": node.id,
            "node.hostname": node.description.hostname,
            "node.role": node.role.name,
            "node.platform.os": node.description.platform.os,
        }[key]
    return value.casefold() == wanted.casefold()


def _address_in(address: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


_ARCHITECTURES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64"}


def normal_architecture(name: str) -> str:
    """Return one name for an architecture: uname says x86_64 and aarch64 where images say amd64 and arm64."""
    return _ARCHITECTURES.get(name.lower(), name.lower())
