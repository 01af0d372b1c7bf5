"""The persistent maps behind a snapshot, and the draft in which the next ones are prepared (pure).

`Tables` is what a `Snapshot` reads: objects by kind and id, and the indexes. A `Draft` costs as much as
the objects it touches, never as much as the store; it keeps the indexes true to the objects and checks
nothing else (transition.py does). Maps iterate in an order that depends on the process: readers sort.
"""

from typing import NamedTuple

from immutables import Map, MapMutation
from msgspec.structs import replace

from pyswarm.manager.store.changes import Kind
from pyswarm.manager.store.groups import Group, GroupsDraft
from pyswarm.proto.model.objects import (
    VERSION_OF_LABEL,
    Cluster,
    Config,
    Node,
    Object,
    Revision,
    Secret,
    Service,
    Stack,
    Task,
)
from pyswarm.proto.model.states import TaskState

_KINDS: dict[type[Object], Kind] = {
    Cluster: "cluster",
    Node: "node",
    Service: "service",
    Revision: "revision",
    Task: "task",
    Secret: "secret",
    Config: "config",
    Stack: "stack",
}


Named = Service | Secret | Config
"""Objects whose names are unique among their kind."""


def kind_of(object: Object) -> Kind:
    return _KINDS[type(object)]


def name_key(name: str) -> str:
    """Names of services, of secrets and of configs are unique whatever their case."""
    return name.casefold()


class Tables(NamedTuple):
    """Objects by id; ids of tasks and revisions by what they belong to, and of what has a name by its name key.

    Ids of later versions of secrets and configs are also found by the name key of what they are versions of. `running`
    is how many tasks of a service run as they shall.
    """

    clusters: Map[str, Cluster] = Map()
    nodes: Map[str, Node] = Map()
    services: Map[str, Service] = Map()
    revisions: Map[str, Revision] = Map()
    tasks: Map[str, Task] = Map()
    tasks_by_service: Map[str, Group] = Map()
    tasks_by_node: Map[str, Group] = Map()
    revisions_by_service: Map[str, Group] = Map()
    service_ids: Map[str, str] = Map()
    secrets: Map[str, Secret] = Map()
    configs: Map[str, Config] = Map()
    secret_ids: Map[str, str] = Map()
    config_ids: Map[str, str] = Map()
    secret_versions: Map[str, Group] = Map()
    config_versions: Map[str, Group] = Map()
    stacks: Map[str, Stack] = Map()
    running: Map[str, int] = Map()

    def ids_of(self, kind: Kind) -> Map[str, str] | None:
        """Return the ids by name key of a kind whose objects have unique names."""
        if kind == "service":
            return self.service_ids
        if kind == "secret":
            return self.secret_ids
        return self.config_ids if kind == "config" else None

    def get(self, kind: Kind, id: str) -> Object | None:
        if kind == "task":
            return self.tasks.get(id)
        if kind == "node":
            return self.nodes.get(id)
        if kind == "service":
            return self.services.get(id)
        if kind == "revision":
            return self.revisions.get(id)
        if kind == "secret":
            return self.secrets.get(id)
        if kind == "config":
            return self.configs.get(id)
        if kind == "stack":
            return self.stacks.get(id)
        return self.clusters.get(id)


class Draft:
    """Tables under change; `freeze` ends it."""

    def __init__(self, base: Tables) -> None:
        self._clusters = base.clusters.mutate()
        self._nodes = base.nodes.mutate()
        self._services = base.services.mutate()
        self._revisions = base.revisions.mutate()
        self._tasks = base.tasks.mutate()
        self._tasks_by_service = GroupsDraft(base.tasks_by_service)
        self._tasks_by_node = GroupsDraft(base.tasks_by_node)
        self._revisions_by_service = GroupsDraft(base.revisions_by_service)
        self._service_ids = base.service_ids.mutate()
        self._secrets = base.secrets.mutate()
        self._configs = base.configs.mutate()
        self._secret_ids = base.secret_ids.mutate()
        self._config_ids = base.config_ids.mutate()
        self._secret_versions = GroupsDraft(base.secret_versions)
        self._config_versions = GroupsDraft(base.config_versions)
        self._stacks = base.stacks.mutate()
        self._running = base.running.mutate()

    def put(self, object: Object, old: Object | None) -> None:
        """Store `object` in place of `old`, which is what the draft holds under its id."""
        if isinstance(object, Task):
            before = old if isinstance(old, Task) else None
            self._tasks[object.id] = object
            self._tasks_by_service.move(object.id, before.service_id if before else "", object.service_id)
            self._tasks_by_node.move(object.id, before.node_id if before else "", object.node_id)
            if before:
                self._count(before.service_id, -_runs(before))
            self._count(object.service_id, _runs(object))
            if before and (before.slot, before.created_at) != (object.slot, object.created_at):
                self._tasks_by_service.reorder(object.service_id)
                self._tasks_by_node.reorder(object.node_id)
        elif isinstance(object, Node):
            self._nodes[object.id] = object
        elif isinstance(object, Service):
            self._services[object.id] = object
            _rename(self._service_ids, old, object)
        elif isinstance(object, Revision):
            self._revisions[object.id] = self._sharing_template(object)
            self._revisions_by_service.move(
                object.id, old.service_id if isinstance(old, Revision) else "", object.service_id
            )
        elif isinstance(object, Secret):
            self._secrets[object.id] = object
            _rename(self._secret_ids, old, object)
            self._secret_versions.move(object.id, _version_key(old), _version_key(object))
        elif isinstance(object, Config):
            self._configs[object.id] = object
            _rename(self._config_ids, old, object)
            self._config_versions.move(object.id, _version_key(old), _version_key(object))
        elif isinstance(object, Stack):
            self._stacks[object.id] = object
        else:
            self._clusters[object.id] = object

    def remove(self, old: Object) -> None:
        """Forget `old`, which is what the draft holds under its id."""
        if isinstance(old, Task):
            del self._tasks[old.id]
            self._tasks_by_service.move(old.id, old.service_id, "")
            self._tasks_by_node.move(old.id, old.node_id, "")
            self._count(old.service_id, -_runs(old))
        elif isinstance(old, Node):
            del self._nodes[old.id]
        elif isinstance(old, Service):
            del self._services[old.id]
            _rename(self._service_ids, old, None)
        elif isinstance(old, Revision):
            del self._revisions[old.id]
            self._revisions_by_service.move(old.id, old.service_id, "")
        elif isinstance(old, Secret):
            del self._secrets[old.id]
            _rename(self._secret_ids, old, None)
            self._secret_versions.move(old.id, _version_key(old), "")
        elif isinstance(old, Config):
            del self._configs[old.id]
            _rename(self._config_ids, old, None)
            self._config_versions.move(old.id, _version_key(old), "")
        elif isinstance(old, Stack):
            del self._stacks[old.id]
        else:
            del self._clusters[old.id]

    def _count(self, service_id: str, more: int) -> None:
        if not more:
            return
        running = self._running.get(service_id, 0) + more
        if running:
            self._running[service_id] = running
        else:
            del self._running[service_id]

    def _sharing_template(self, revision: Revision) -> Revision:
        """Return the revision with its service's own task template when they are equal: most are, and it is large."""
        service = self._services.get(revision.service_id)
        if service is None or service.spec.task_template != revision.task_template:
            return revision
        return replace(revision, task_template=service.spec.task_template)

    def freeze(self) -> Tables:
        return Tables(
            self._clusters.finish(),
            self._nodes.finish(),
            self._services.finish(),
            self._revisions.finish(),
            self._tasks.finish(),
            self._tasks_by_service.freeze(),
            self._tasks_by_node.freeze(),
            self._revisions_by_service.freeze(),
            self._service_ids.finish(),
            self._secrets.finish(),
            self._configs.finish(),
            self._secret_ids.finish(),
            self._config_ids.finish(),
            self._secret_versions.freeze(),
            self._config_versions.freeze(),
            self._stacks.finish(),
            self._running.finish(),
        )


def _runs(task: Task) -> bool:
    """Whether a task runs, and shall."""
    return task.status.state is TaskState.RUNNING and TaskState.RUNNING <= task.desired_state <= TaskState.COMPLETE


def _version_key(object: Object | None) -> str:
    """Return the name key of what this is a version of, "" for what is no version of anything."""
    base = object.spec.labels.get(VERSION_OF_LABEL) if isinstance(object, Secret | Config) else None
    return name_key(base) if base else ""


def _rename(ids: MapMutation[str, str], old: Object | None, new: Named | None) -> None:
    """Let the name of `old` go and give `new` its own."""
    if isinstance(old, Named):
        key = name_key(old.spec.name)
        # Another object of the same entry may have taken the name already.
        if ids.get(key) == old.id:
            del ids[key]
    if new is not None and new.spec.name:
        ids[name_key(new.spec.name)] = new.id
