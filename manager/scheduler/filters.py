"""Which nodes can take a task, and in which words the others cannot (pure).

Each filter answers for one reason. The first one that refuses a node names it in the explanation.
"""

from collections import Counter
from collections.abc import Callable

from pyswarm.manager.orchestrator.placement import normal_architecture, satisfies
from pyswarm.manager.scheduler.nodes import NodeInfo, host_ports
from pyswarm.proto.model.objects import Revision, Task
from pyswarm.proto.model.states import Availability, NodeState

Filter = Callable[[NodeInfo, Task, Revision], bool]


def _ready(info: NodeInfo, task: Task, revision: Revision) -> bool:
    return info.node.status.state is NodeState.READY and info.node.spec.availability is Availability.ACTIVE


def _resources(info: NodeInfo, task: Task, revision: Revision) -> bool:
    wanted, free = revision.task_template.resources.reservations, info.free
    return wanted.nano_cpus <= max(0, free.nano_cpus) and wanted.memory_bytes <= max(0, free.memory_bytes)


def _constraints(info: NodeInfo, task: Task, revision: Revision) -> bool:
    return satisfies(info.node, revision.task_template.placement.constraints)


def _platform(info: NodeInfo, task: Task, revision: Revision) -> bool:
    platforms = revision.task_template.placement.platforms
    here = info.node.description.platform
    return not platforms or any(
        (not p.os or p.os == here.os)
        and (not p.architecture or normal_architecture(p.architecture) == normal_architecture(here.architecture))
        for p in platforms
    )


def _host_port(info: NodeInfo, task: Task, revision: Revision) -> bool:
    return not (host_ports(revision.ports) & info.host_ports)


def _max_replicas(info: NodeInfo, task: Task, revision: Revision) -> bool:
    limit = revision.task_template.placement.max_replicas
    return not limit or info.tasks_of_service[task.service_id] < limit


FILTERS: tuple[tuple[str, Filter], ...] = (
    ("not available for new tasks", _ready),
    ("insufficient resources", _resources),
    ("scheduling constraints not satisfied", _constraints),
    ("unsupported platform", _platform),
    ("host-mode port already in use", _host_port),
    ("max replicas per node limit exceed", _max_replicas),
)


def refusal(info: NodeInfo, task: Task, revision: Revision) -> str:
    """Return why a node cannot take a task, or "" when it can."""
    return next((reason for reason, admits in FILTERS if not admits(info, task, revision)), "")


def explain(refusals: Counter[str]) -> str:
    """Return the sentence for a task that fits nowhere, most frequent reason first."""
    if not refusals:
        return "no suitable node (the cluster has no nodes)"
    ordered = sorted(refusals.items(), key=lambda item: (-item[1], item[0]))
    parts = [f"{reason} on {count} node{'s' if count != 1 else ''}" for reason, count in ordered]
    return f"no suitable node ({'; '.join(parts)})"
