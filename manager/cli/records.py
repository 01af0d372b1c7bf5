"""What the cluster answers, put together for showing (pure)."""

from msgspec import Struct

from pyswarm.proto.model.objects import Node, Revision, Service, Task


class ServiceRow(Struct, frozen=True):
    """A service and how many of its tasks run and should; `completed` counts those of a job's present run."""

    service: Service
    running: int
    desired: int
    completed: int = 0


class TaskList(Struct, frozen=True):
    """Tasks with what is needed to show them."""

    tasks: tuple[Task, ...]
    revisions: dict[str, Revision]
    nodes: dict[str, Node]
    services: dict[str, Service]

    def image(self, task: Task) -> str:
        revision = self.revisions.get(task.revision_id)
        return revision.task_template.container_spec.image if revision else ""

    def hostname(self, node_id: str) -> str:
        node = self.nodes.get(node_id)
        return node.spec.name or node.description.hostname or node_id if node else node_id


class StackChange(Struct, frozen=True):
    """`action` is created, updated, unchanged or removed."""

    id: str
    name: str
    action: str
    kind: str = "service"
