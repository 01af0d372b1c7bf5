"""What every filter says of every node about a task, nodes with the same verdicts together, and what would help (pure).

For people who ask why: it walks over all nodes and all tasks, which a decision never does. The filters are those that
decide (filters.py), so an explanation cannot differ from what happens.
"""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from pyswarm.manager.orchestrator.placement import is_lost, matches
from pyswarm.manager.scheduler.company import Company, company_for
from pyswarm.manager.scheduler.filters import (
    AFFINITY,
    ALL,
    CONSTRAINTS,
    HOST_PORT,
    MAX_REPLICAS,
    PLATFORM,
    READY,
    RESOURCES,
    lacking,
)
from pyswarm.manager.scheduler.node_info import NodeInfo, host_ports
from pyswarm.manager.scheduler.nodes import NodeTable
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.proto.codec.constraint import parse_constraint
from pyswarm.proto.model.objects import Node, Revision
from pyswarm.proto.model.states import Availability

NAMES: Mapping[str, str] = {
    READY[0]: "ready",
    RESOURCES[0]: "resources",
    CONSTRAINTS[0]: "constraints",
    PLATFORM[0]: "platform",
    HOST_PORT[0]: "host port",
    MAX_REPLICAS[0]: "max replicas",
    AFFINITY: "affinity",
}
"""What the filters are called, in the order in which they are asked."""


class Verdict(Struct, frozen=True):
    """What one filter says; `refusal` is why not, "" when it lets the task in."""

    filter: str
    refusal: str = ""


class NodeGroup(Struct, frozen=True):
    """Nodes of which all filters say the same."""

    nodes: tuple[str, ...]
    verdicts: tuple[Verdict, ...]

    @property
    def refusals(self) -> int:
        return sum(bool(verdict.refusal) for verdict in self.verdicts)


def node_groups(seen: Snapshot, revision: Revision) -> tuple[NodeGroup, ...]:
    """Return the verdicts on every node for one more task of a revision, those that are nearest to a yes first."""
    table = NodeTable(seen)
    company = company_for(seen, revision, table)
    found: dict[tuple[Verdict, ...], list[str]] = {}
    for info in table.infos.values():
        found.setdefault(verdicts_on(info, revision, company), []).append(node_name(info.node))
    groups = [NodeGroup(tuple(sorted(nodes)), verdicts) for verdicts, nodes in found.items()]
    return tuple(sorted(groups, key=lambda group: (group.refusals, -len(group.nodes), group.nodes)))


def remedies(seen: Snapshot, revision: Revision, groups: Sequence[NodeGroup]) -> tuple[str, ...]:
    """Return what would let a task in: for the nodes that the fewest filters refuse, one way for each of these."""
    if not groups:
        return ("Join a node to the cluster: `pyswarm join-token worker` tells how.",)
    if not groups[0].refusals:
        return ()
    by_name = {node_name(node): node for node in seen.nodes()}
    nearest = [group for group in groups if group.refusals == groups[0].refusals]
    found = [
        _remedy(verdict, revision, by_name[group.nodes[0]])
        for group in nearest
        for verdict in group.verdicts
        if verdict.refusal
    ]
    return tuple(dict.fromkeys(found))


def verdicts_on(info: NodeInfo, revision: Revision, company: Company | None) -> tuple[Verdict, ...]:
    """Return what each filter says of one node."""
    found = [
        Verdict(NAMES[reason], "" if admits(info, revision) else _detail(reason, info, revision))
        for reason, admits in ALL
    ]
    is_apart = company is not None and not company.admits(info)
    affinities = ", ".join(revision.task_template.placement.affinities) or "others want to be apart from it"
    return (*found, Verdict(NAMES[AFFINITY], affinities if is_apart else ""))


def _detail(reason: str, info: NodeInfo, revision: Revision) -> str:
    node, template = info.node, revision.task_template
    if reason == READY[0]:
        return node.status.state.name.lower() if is_lost(node) else _availability(node)
    if reason == RESOURCES[0]:
        return f"too little {', '.join(lacking(info, template.resources.reservations))}"
    if reason == CONSTRAINTS[0]:
        return ", ".join(_unmet(node, revision))
    if reason == PLATFORM[0]:
        return f"is {node.description.platform.os}/{node.description.platform.architecture}"
    if reason == HOST_PORT[0]:
        taken = sorted(port for port in host_ports(revision.ports) if info.uses(port))
        return ", ".join(f"{number}/{protocol} is taken" for number, protocol in taken)
    return f"has {template.placement.max_replicas} already"


def _unmet(node: Node, revision: Revision) -> list[str]:
    constraints = revision.task_template.placement.constraints
    return [text for text in constraints if not matches(node, parse_constraint(text))]


def _availability(node: Node) -> str:
    if node.spec.availability is Availability.ACTIVE:
        return node.status.state.name.lower()
    return node.spec.availability.name.lower()


def _remedy(verdict: Verdict, revision: Revision, node: Node) -> str:
    name, service = node_name(node), revision.service_name
    if verdict.filter == NAMES[READY[0]]:
        if is_lost(node):
            return f"Bring node {name} back, or replace it."
        return f"Let node {name} take tasks: `pyswarm node update --availability active {name}`."
    if verdict.filter == NAMES[RESOURCES[0]]:
        return (
            f"Free what is missing on {name} ({verdict.refusal}), add a node, or reserve less: "
            f"`pyswarm service update {service}`."
        )
    if verdict.filter == NAMES[CONSTRAINTS[0]]:
        return _constraint_remedy(verdict.refusal.split(", ")[0], name, service)
    if verdict.filter == NAMES[PLATFORM[0]]:
        return f"Add a node that the image runs on; {name} {verdict.refusal}."
    if verdict.filter == NAMES[HOST_PORT[0]]:
        return f"Publish another port, or free it on {name}: {verdict.refusal}."
    if verdict.filter == NAMES[MAX_REPLICAS[0]]:
        return f"Add a node, or allow more: `pyswarm service update --replicas-max-per-node N {service}`."
    return f"Change what is to be near or apart: `pyswarm service update --affinity-rm … {service}`."


def _constraint_remedy(text: str, node: str, service: str) -> str:
    constraint = parse_constraint(text)
    drop = f"`pyswarm service update --constraint-rm '{text}' {service}`"
    if constraint.key.startswith("node.labels.") and constraint.is_equal:
        return (
            f"Label a node: `pyswarm node update --label-add {constraint.label}={constraint.value} {node}`, or {drop}."
        )
    return f"Add a node with {text}, or drop the constraint: {drop}."


def node_name(node: Node) -> str:
    return node.spec.name or node.description.hostname or node.id
