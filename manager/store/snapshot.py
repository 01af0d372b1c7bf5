"""One immutable view of everything the cluster knows, at one version (pure).

Taking a view costs nothing, keeping it costs what has changed since; a decision reads one view and
cannot be surprised. Everything iterates in a fixed order. Writing is transition.py's matter, following
changes watch.py's.
"""

from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from itertools import islice
from operator import attrgetter
from typing import Final, TypeVar

from immutables import Map

from pyswarm.manager.store.changes import Change, Kind
from pyswarm.manager.store.groups import Group
from pyswarm.manager.store.tables import Draft, Tables, name_key
from pyswarm.manager.store.transition import Event, transition
from pyswarm.proto.model.objects import Cluster, Config, Node, Object, Revision, Secret, Service, Stack, Task

T = TypeVar("T")

SORTED_AT_ONCE: Final = 4096
"""Ids put in order in one go: a millisecond or two."""

_SLOT_ORDER = attrgetter("slot", "created_at", "id")
"""tables.py has a group ordered anew when one of these changes."""


class Snapshot:
    """`version` is the index of the last entry in it. Never changed once made."""

    __slots__ = ("tables", "version")

    def __init__(self, tables: Tables = Tables(), version: int = 0) -> None:  # noqa: B008 - immutable
        self.tables = tables
        self.version = version

    @classmethod
    def of(cls, *objects: Object, version: int = 0) -> "Snapshot":
        """Return a view of exactly these objects, each at the version it carries (of two with one id, the last)."""
        draft = Draft(Tables())
        seen: dict[tuple[type[Object], str], Object] = {}
        for object in objects:
            key = (type(object), object.id)
            draft.put(object, seen.get(key))
            seen[key] = object
        return cls(draft.freeze(), version)

    @property
    def cluster(self) -> Cluster | None:
        """The one cluster object, None only before the bootstrap entry."""
        return next(iter(self.tables.clusters.values()), None)

    def get(self, kind: Kind, id: str) -> Object | None:
        return self.tables.get(kind, id)

    def node(self, id: str) -> Node | None:
        return self.tables.nodes.get(id)

    def service(self, id: str) -> Service | None:
        return self.tables.services.get(id)

    def task(self, id: str) -> Task | None:
        return self.tables.tasks.get(id)

    def revision(self, id: str) -> Revision | None:
        return self.tables.revisions.get(id)

    def nodes(self) -> Iterator[Node]:
        """Every node, by id. (Sorting costs n log n: a loop over all tasks is for the few who need all.)"""
        return _by_id(self.tables.nodes)

    def services(self) -> Iterator[Service]:
        """Every service, by id."""
        return _by_id(self.tables.services)

    def tasks(self) -> Iterator[Task]:
        """Every task, dead ones included, by id."""
        return _by_id(self.tables.tasks)

    def revisions(self) -> Iterator[Revision]:
        """Every revision, by id."""
        return _by_id(self.tables.revisions)

    def secret(self, id: str) -> Secret | None:
        return self.tables.secrets.get(id)

    def secrets(self) -> Iterator[Secret]:
        """Every secret, by id."""
        return _by_id(self.tables.secrets)

    def secret_by_name(self, name: str) -> Secret | None:
        """Return the secret of exactly this name; case does not count."""
        id = self.tables.secret_ids.get(name_key(name))
        return self.tables.secrets.get(id) if id is not None else None

    def secrets_called(self, name: str) -> tuple[Secret, ...]:
        """Return the secret of this name and the versions of what is (or was) called so, by id."""
        return _called(name_key(name), self.tables.secrets, self.tables.secret_ids, self.tables.secret_versions)

    def config(self, id: str) -> Config | None:
        return self.tables.configs.get(id)

    def configs(self) -> Iterator[Config]:
        """Every config, by id."""
        return _by_id(self.tables.configs)

    def config_by_name(self, name: str) -> Config | None:
        """Return the config of exactly this name; case does not count."""
        id = self.tables.config_ids.get(name_key(name))
        return self.tables.configs.get(id) if id is not None else None

    def configs_called(self, name: str) -> tuple[Config, ...]:
        """Return the config of this name and the versions of what is (or was) called so, by id."""
        return _called(name_key(name), self.tables.configs, self.tables.config_ids, self.tables.config_versions)

    def stack(self, name: str) -> Stack | None:
        return self.tables.stacks.get(name)

    def stacks(self) -> Iterator[Stack]:
        """Every stack, by name."""
        return _by_id(self.tables.stacks)

    def count(self, kind: Kind) -> int:
        """Return how many objects of `kind` there are, without walking over them."""
        tables = self.tables
        return len(
            {
                "cluster": tables.clusters,
                "node": tables.nodes,
                "service": tables.services,
                "revision": tables.revisions,
                "task": tables.tasks,
                "secret": tables.secrets,
                "config": tables.configs,
                "stack": tables.stacks,
            }[kind]
        )

    def tasks_of_service(self, service_id: str) -> tuple[Task, ...]:
        """Return the service's tasks, dead ones included, by slot, then age, then id."""
        return self._in_slot_order(self.tables.tasks_by_service.get(service_id))

    def services_with_tasks(self) -> frozenset[str]:
        """Return the ids of services that have tasks, dead ones included: also of those that were removed."""
        return frozenset(self.tables.tasks_by_service)

    def count_of_service(self, service_id: str) -> int:
        """Return how many tasks the service has, without walking over them."""
        return len(self.tables.tasks_by_service.get(service_id, ()))

    def running_of_service(self, service_id: str) -> int:
        """Return how many of the service's tasks run, and shall, without walking over them."""
        return self.tables.running.get(service_id, 0)

    def tasks_of_node(self, node_id: str) -> tuple[Task, ...]:
        """Return the tasks assigned to the node, dead ones included, by slot, then age, then id."""
        return self._in_slot_order(self.tables.tasks_by_node.get(node_id))

    def revisions_of_service(self, service_id: str) -> tuple[Revision, ...]:
        """Return the service's revisions, oldest first."""
        ids, revisions = self.tables.revisions_by_service.get(service_id, ()), self.tables.revisions
        return tuple(sorted((revisions[id] for id in ids), key=lambda r: (r.spec_version, r.id)))

    def revision_of(self, task: Task) -> Revision | None:
        """Return the spec the task was made from; None when it has been reaped."""
        return self.tables.revisions.get(task.revision_id)

    def service_by_name(self, name: str) -> Service | None:
        """Return the service of exactly this name; case does not count."""
        id = self.tables.service_ids.get(name_key(name))
        return self.tables.services.get(id) if id is not None else None

    def _in_slot_order(self, group: Group | None) -> tuple[Task, ...]:
        if group is None:
            return ()
        tasks = self.tables.tasks
        return tuple([tasks[id] for id in group.in_order(self._by_slot)])

    def _by_slot(self, ids: Iterable[str]) -> tuple[str, ...]:
        tasks = self.tables.tasks
        return tuple([t.id for t in sorted([tasks[id] for id in ids], key=_SLOT_ORDER)])

    def with_changes(self, changes: Sequence[Change], *, version: int) -> "Snapshot":
        """Return the view after `changes`; the objects written get `version`.

        Raises:
            Conflict: a check of one of them fails.
            InvalidChanges: one object is written twice, or has no id.
        """
        return self.step(changes, version=version)[0]

    def step(self, changes: Sequence[Change], *, version: int) -> tuple["Snapshot", tuple[Event, ...]]:
        """As `with_changes`, and also return what happened to each object."""
        tables, events = transition(self.tables, changes, version)
        return Snapshot(tables, version), events

    def __repr__(self) -> str:
        return f"<Snapshot version={self.version} nodes={self.count('node')} tasks={self.count('task')}>"


def _called(key: str, objects: Map[str, T], ids: Map[str, str], versions: Map[str, Group]) -> tuple[T, ...]:
    found = set(versions.get(key, ()))
    if (named := ids.get(key)) is not None:
        found.add(named)
    return tuple([objects[id] for id in sorted(found)])


def _by_id(objects: Map[str, T]) -> Iterator[T]:
    if len(objects) <= SORTED_AT_ONCE:
        return (objects[id] for id in sorted(objects))
    # One sort of a million ids would keep every other thread waiting for a second: the interpreter cannot be left
    # inside it, and a snapshot is written in a thread beside the event loop.
    ids = iter(objects)
    runs: list[list[str]] = []
    while run := sorted(islice(ids, SORTED_AT_ONCE)):
        runs.append(run)
    return (objects[id] for id in merge(*runs))
