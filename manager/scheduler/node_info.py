"""What the scheduler knows of one node: capacity left, tasks by service, host ports, recent failures.

Mutable, and changed by nodes.py alone; knows nothing of time but what it is told.
"""

from collections import Counter
from dataclasses import dataclass, field

from pyswarm.manager.scheduler.generic import Pieces
from pyswarm.proto.codec.affinity import parse_affinity
from pyswarm.proto.model.objects import Node, Revision, Task
from pyswarm.proto.model.resources import GenericResource, Resources
from pyswarm.proto.model.spec import PortConfig
from pyswarm.proto.model.states import PublishMode, TaskState

FAILURES_MAX = 5
FAILURE_WINDOW_SECONDS = 300.0
"""A node where this version of a service failed so often lately is tried last (SwarmKit scheduler.go)."""

Rank = tuple[bool, int, int, str]
"""Whether it fails lately, active tasks of the service, active tasks in all, node id."""


@dataclass(slots=True)
class NodeInfo:
    node: Node
    free: Resources
    active_total: int = 0
    active_of_service: dict[str, int] = field(default_factory=dict)
    """Tasks that are to stay: what a newcomer is spread by. One that was told to stop is as good as gone."""
    tasks_of_service: dict[str, int] = field(default_factory=dict)
    """Tasks that hold resources here, told to stop or not: what the filters go by."""
    failed_at: dict[str, list[float]] = field(default_factory=dict)
    """When tasks of a revision failed here, oldest first, at most `FAILURES_MAX`."""
    host_ports: Counter[tuple[int, str]] = field(default_factory=Counter)
    pieces: Pieces | None = None
    """Its generic resources; None when it has none."""
    keeps_away: Counter[str] = field(default_factory=Counter)
    """The affinities of its tasks that keep others away, which a newcomer must heed as well."""

    def take(
        self, service_id: str, revision: Revision, pieces: tuple[GenericResource, ...] = (), *, is_active: bool = True
    ) -> None:
        self.free -= revision.task_template.resources.reservations
        self.tasks_of_service[service_id] = self.tasks_of_service.get(service_id, 0) + 1
        if is_active:
            self.active_total += 1
            self.active_of_service[service_id] = self.active_of_service.get(service_id, 0) + 1
        if revision.ports:
            self.host_ports.update(host_ports(revision.ports))
        if pieces and self.pieces is not None:
            self.pieces.take(pieces)
        if revision.task_template.placement.affinities:
            self.keeps_away.update(kept_away_by(revision))

    def give_back(
        self, service_id: str, revision: Revision, pieces: tuple[GenericResource, ...] = (), *, is_active: bool = True
    ) -> None:
        if pieces and self.pieces is not None:
            self.pieces.give_back(pieces)
        if revision.task_template.placement.affinities:
            self.keeps_away.subtract(kept_away_by(revision))
            self.keeps_away = +self.keeps_away
        self.free += revision.task_template.resources.reservations
        _count_down(self.tasks_of_service, service_id)
        if is_active:
            self.active_total -= 1
            _count_down(self.active_of_service, service_id)
        if revision.ports:
            self.host_ports.subtract(host_ports(revision.ports))

    def is_failing(self, revision_id: str, now: float) -> bool:
        moments = self.failed_at.get(revision_id)
        return moments is not None and len(moments) >= FAILURES_MAX and moments[0] > now - FAILURE_WINDOW_SECONDS

    def rank(self, service_id: str, revision_id: str, now: float) -> Rank:
        """Lower is better: not failing, few tasks of this service, few tasks at all, then by id."""
        return (
            self.is_failing(revision_id, now),
            self.active_of_service.get(service_id, 0),
            self.active_total,
            self.node.id,
        )

    @property
    def fullness(self) -> float:
        """The share of the node that is reserved: of CPUs or of memory, whichever is more."""
        has = self.node.description.resources
        cpus = 1 - self.free.nano_cpus / has.nano_cpus if has.nano_cpus else 0.0
        memory = 1 - self.free.memory_bytes / has.memory_bytes if has.memory_bytes else 0.0
        return max(cpus, memory)

    def uses(self, port: tuple[int, str]) -> bool:
        return self.host_ports[port] > 0


def _count_down(counts: dict[str, int], key: str) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]


def host_ports(ports: tuple[PortConfig, ...]) -> set[tuple[int, str]]:
    return {(p.published_port, p.protocol) for p in ports if p.publish_mode is PublishMode.HOST and p.published_port}


def kept_away_by(revision: Revision) -> set[str]:
    return {text for text in revision.task_template.placement.affinities if not parse_affinity(text).is_near}


def holds_resources(task: Task) -> bool:
    """Whether a task counts on its node. One that was told to stop holds its resources until it has."""
    return bool(task.node_id) and TaskState.ASSIGNED <= task.status.state <= TaskState.RUNNING
