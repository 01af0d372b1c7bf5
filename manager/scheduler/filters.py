"""Which nodes can take a task, and in which words the others cannot (pure).

Each filter answers for one reason. The first one that refuses a node names it in the explanation. What only a change
of the node itself can alter (`FIXED`) is judged once for all tasks that ask for the same; the rest changes
with every task that is placed (`has_room`).
"""

from collections import Counter
from collections.abc import Callable

from pyswarm.manager.orchestrator.placement import normal_architecture, satisfies
from pyswarm.manager.scheduler.company import Company
from pyswarm.manager.scheduler.node_info import NodeInfo, host_ports
from pyswarm.manager.scheduler.nodes import NodeTable
from pyswarm.proto.model.objects import Revision
from pyswarm.proto.model.resources import NO_RESOURCES, Resources
from pyswarm.proto.model.states import Availability, NodeState

Filter = Callable[[NodeInfo, Revision], bool]


def _ready(info: NodeInfo, revision: Revision) -> bool:
    return info.node.status.state is NodeState.READY and info.node.spec.availability is Availability.ACTIVE


def _resources(info: NodeInfo, revision: Revision) -> bool:
    wanted = revision.task_template.resources.reservations
    if wanted == NO_RESOURCES:
        return True
    return not lacking(info, wanted)


def lacking(info: NodeInfo, wanted: Resources) -> tuple[str, ...]:
    """Return which of the wanted resources a node has too little of, in plain words."""
    free = info.free
    has_pids = bool(info.node.description.resources.pids)
    short = [
        ("CPUs", wanted.nano_cpus > max(0, free.nano_cpus)),
        ("memory", wanted.memory_bytes > max(0, free.memory_bytes)),
        # A node that does not say how many processes it can hold is believed to hold enough.
        ("processes", has_pids and wanted.pids > max(0, free.pids)),
    ]
    found = [name for name, is_short in short if is_short]
    pieces = info.pieces
    return (*found, *(need.kind for need in wanted.generic if pieces is None or pieces.left(need.kind) < need.count))


def _constraints(info: NodeInfo, revision: Revision) -> bool:
    return satisfies(info.node, revision.task_template.placement.constraints)


def _platform(info: NodeInfo, revision: Revision) -> bool:
    platforms = revision.task_template.placement.platforms
    here = info.node.description.platform
    return not platforms or any(
        (not p.os or p.os == here.os)
        and (not p.architecture or normal_architecture(p.architecture) == normal_architecture(here.architecture))
        for p in platforms
    )


def _host_port(info: NodeInfo, revision: Revision) -> bool:
    return not revision.ports or not any(map(info.uses, host_ports(revision.ports)))


def _max_replicas(info: NodeInfo, revision: Revision) -> bool:
    limit = revision.task_template.placement.max_replicas
    return not limit or info.tasks_of_service.get(revision.service_id, 0) < limit


READY = ("not available for new tasks", _ready)
RESOURCES = ("insufficient resources", _resources)
CONSTRAINTS = ("scheduling constraints not satisfied", _constraints)
PLATFORM = ("unsupported platform", _platform)
HOST_PORT = ("host-mode port already in use", _host_port)
MAX_REPLICAS = ("max replicas per node limit exceed", _max_replicas)

AFFINITY = "service affinity not satisfied"

ALL: tuple[tuple[str, Filter], ...] = (READY, RESOURCES, CONSTRAINTS, PLATFORM, HOST_PORT, MAX_REPLICAS)
"""In the order in which they are asked for a reason; affinity comes last, as it depends on other nodes as well."""

FIXED = (READY, CONSTRAINTS, PLATFORM)


def refusal(info: NodeInfo, revision: Revision, company: Company | None = None) -> str:
    """Return why a node cannot take a task of this revision, or "" when it can."""
    why_not = next((reason for reason, admits in ALL if not admits(info, revision)), "")
    if not why_not and company is not None and not company.admits(info):
        return AFFINITY
    return why_not


def admits_by_nature(info: NodeInfo, revision: Revision) -> bool:
    """Whether a node can take such a task as long as it has room."""
    return all(admits(info, revision) for _, admits in FIXED)


def has_room(info: NodeInfo, revision: Revision, company: Company | None = None) -> bool:
    """Whether a node that can take such a task has room for another one: the filters that are not `FIXED`."""
    return (
        _resources(info, revision)
        and _host_port(info, revision)
        and _max_replicas(info, revision)
        and (company is None or company.admits(info))
    )


def explain_all(table: NodeTable, revision: Revision, company: Company | None) -> str:
    """Return the sentence for a task of this revision that no node can take."""
    return explain(Counter(refusal(info, revision, company) for info in table.infos.values()))


def explain(refusals: Counter[str]) -> str:
    """Return the sentence for a task that fits nowhere, most frequent reason first."""
    if not refusals:
        return "no suitable node (the cluster has no nodes)"
    ordered = sorted(refusals.items(), key=lambda item: (-item[1], item[0]))
    parts = [f"{reason} on {count} node{'s' if count != 1 else ''}" for reason, count in ordered]
    return f"no suitable node ({'; '.join(parts)})"
