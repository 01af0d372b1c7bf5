"""What `--filter` keeps. Several values of one key are alternatives; different keys must all match."""

from collections.abc import Iterable, Mapping, Sequence

from pyswarm.manager.cli.records import ServiceRow, TaskList
from pyswarm.manager.cli.view.services import mode_name
from pyswarm.manager.cli.view.tasks import task_name
from pyswarm.proto.errors import InvalidArgument
from pyswarm.proto.model.objects import Node, Task
from pyswarm.proto.model.states import TaskState

Filters = Mapping[str, Sequence[str]]


def keep_nodes(nodes: Iterable[Node], filters: Filters) -> list[Node]:
    return [node for node in nodes if _node_matches(node, filters)]


def keep_services(rows: Iterable[ServiceRow], filters: Filters) -> list[ServiceRow]:
    return [row for row in rows if _service_matches(row, filters)]


def keep_tasks(listed: TaskList, filters: Filters) -> TaskList:
    """Return the list with the tasks that match. Raises InvalidArgument for an unknown desired state."""
    for state in filters.get("desired-state", ()):
        if state not in _DESIRED:
            raise InvalidArgument(
                f'invalid filter "desired-state={state}"', remedy=f"Use one of {', '.join(sorted(_DESIRED))}."
            )
    kept = tuple(task for task in listed.tasks if _task_matches(task, listed, filters))
    return TaskList(kept, listed.revisions, listed.nodes, listed.services)


def labels_match(wanted: Sequence[str], labels: Mapping[str, str]) -> bool:
    """Whether every `name` or `name=value` is among the labels."""
    for text in wanted:
        name, equals, value = text.partition("=")
        if name not in labels or (equals and labels[name] != value):
            return False
    return True


_DESIRED: Mapping[str, frozenset[TaskState]] = {
    "running": frozenset({TaskState.RUNNING}),
    "ready": frozenset({TaskState.READY}),
    "shutdown": frozenset({TaskState.SHUTDOWN, TaskState.REMOVE}),
    "accepted": frozenset({TaskState.READY, TaskState.RUNNING}),
}


def _any(filters: Filters, key: str, matches: Iterable[bool]) -> bool:
    return key not in filters or any(matches)


def _starts(value: str, filters: Filters, key: str) -> bool:
    return _any(filters, key, (value.startswith(wanted) for wanted in filters.get(key, ())))


def _node_matches(node: Node, filters: Filters) -> bool:
    hostname = node.description.hostname
    return (
        _starts(node.id, filters, "id")
        and _any(filters, "name", (wanted in (hostname, node.spec.name) for wanted in filters.get("name", ())))
        and _any(filters, "role", (node.role.name.lower() == wanted for wanted in filters.get("role", ())))
        and _any(filters, "membership", (wanted == "accepted" for wanted in filters.get("membership", ())))
        and labels_match(filters.get("node.label", ()), node.spec.labels)
    )


def _service_matches(row: ServiceRow, filters: Filters) -> bool:
    service = row.service
    return (
        _starts(service.id, filters, "id")
        and _any(filters, "name", (wanted in service.spec.name for wanted in filters.get("name", ())))
        and _any(filters, "mode", (wanted == mode_name(service.spec) for wanted in filters.get("mode", ())))
        and labels_match(filters.get("label", ()), service.spec.labels)
    )


def _task_matches(task: Task, listed: TaskList, filters: Filters) -> bool:
    name, host = task_name(task, listed), listed.hostname(task.node_id)
    return (
        _starts(task.id, filters, "id")
        and _starts(name, filters, "name")
        and _any(filters, "node", (wanted in (task.node_id, host) for wanted in filters.get("node", ())))
        and _any(
            filters, "desired-state", (task.desired_state in _DESIRED[s] for s in filters.get("desired-state", ()))
        )
    )
