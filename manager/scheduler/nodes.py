"""What the scheduler knows of a node while it decides: capacity left, tasks by service, host ports.

Mutable, and local to one pass: filters must see what was decided earlier in it (swarm mistake 39), so `take` books each
decision at once.
"""

from collections import Counter
from dataclasses import dataclass, field

from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.proto.model.objects import Node, Revision, Task
from pyswarm.proto.model.resources import Resources
from pyswarm.proto.model.spec import PortConfig
from pyswarm.proto.model.states import PublishMode, TaskState

FAILURES_MAX = 5
FAILURE_WINDOW_SECONDS = 300.0
"""A node where this version of a service failed so often lately is tried last (SwarmKit scheduler.go)."""


@dataclass
class NodeInfo:
    node: Node
    free: Resources
    tasks_total: int = 0
    tasks_of_service: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    host_ports: set[tuple[int, str]] = field(default_factory=set)

    def take(self, task: Task, revision: Revision) -> None:
        """Book a task on this node."""
        self.free -= revision.task_template.resources.reservations
        self.tasks_total += 1
        self.tasks_of_service[task.service_id] += 1
        self.host_ports |= host_ports(revision.ports)

    def rank(self, service_id: str, revision_id: str) -> tuple[bool, int, int, str]:
        """Lower is better: not failing, few tasks of this service, few tasks at all, then by id."""
        return (
            self.failures[revision_id] >= FAILURES_MAX,
            self.tasks_of_service[service_id],
            self.tasks_total,
            self.node.id,
        )


def host_ports(ports: tuple[PortConfig, ...]) -> set[tuple[int, str]]:
    return {(p.published_port, p.protocol) for p in ports if p.publish_mode is PublishMode.HOST and p.published_port}


def node_infos(seen: Snapshot, *, now: float) -> dict[str, NodeInfo]:
    """Return what is known of every node, with the tasks that hold or will hold its resources booked."""
    infos = {node.id: NodeInfo(node, node.description.resources) for node in seen.nodes()}
    for info in infos.values():
        for task in seen.tasks_of_node(info.node.id):
            if task.state.is_failure and task.status.timestamp > now - FAILURE_WINDOW_SECONDS:
                info.failures[task.revision_id] += 1
            # A task that was told to stop holds its resources until it has.
            if TaskState.ASSIGNED <= task.state <= TaskState.RUNNING:
                revision = seen.revision_of(task)
                if revision is not None:
                    info.take(task, revision)
    return infos
