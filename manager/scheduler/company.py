"""Which nodes a task may share with the tasks of other services: the filter of affinities (pure).

An affinity works both ways when it keeps apart: a task that keeps others away is heeded by those that come later. A
service that shall be near to itself may begin anywhere. A node without the label that is to be shared shares nothing.
Only services with affinities, and those that meet nodes of tasks that keep others away, pay for this.
"""

from collections.abc import Iterable

from pyswarm.manager.scheduler.node_info import NodeInfo
from pyswarm.manager.scheduler.nodes import NodeTable
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.proto.codec.affinity import Affinity, parse_affinity
from pyswarm.proto.model.objects import Revision, Service


class Company:
    """The affinities that concern tasks of one revision. Told of each task that is placed, it stays true."""

    def __init__(self, seen: Snapshot, revision: Revision, table: NodeTable) -> None:
        affinities = [parse_affinity(text) for text in revision.task_template.placement.affinities]
        self._own = [_Rule(affinity, _services_meant(seen, affinity), table) for affinity in affinities]
        self._service_id = revision.service_id
        self._refused_nodes, self._refused_values = _kept_away(seen.service(revision.service_id), table)

    def admits(self, info: NodeInfo) -> bool:
        if info.node.id in self._refused_nodes:
            return False
        if any(label_value(info, key) == value for key, value in self._refused_values):
            return False
        return all(rule.admits(info, self._service_id) for rule in self._own)

    def took(self, info: NodeInfo) -> None:
        """A task of the revision was placed there."""
        for rule in self._own:
            rule.took(info, self._service_id)


class _Rule:
    def __init__(self, affinity: Affinity, services: frozenset[str], table: NodeTable) -> None:
        self._affinity = affinity
        self._services = services
        nodes = [table.infos[id] for service in services for id in table.nodes_of_service.get(service, ())]
        self._is_anywhere = bool(nodes)
        self._values = {label_value(info, affinity.domain) for info in nodes} if affinity.domain else set()

    def admits(self, info: NodeInfo, service_id: str) -> bool:
        if self._affinity.is_near and not self._is_anywhere:
            return service_id in self._services
        return self._is_near(info) is self._affinity.is_near

    def took(self, info: NodeInfo, service_id: str) -> None:
        if service_id in self._services:
            self._is_anywhere = True
            if self._affinity.domain:
                self._values.add(label_value(info, self._affinity.domain))

    def _is_near(self, info: NodeInfo) -> bool:
        if not self._affinity.domain:
            return not self._services.isdisjoint(info.tasks_of_service)
        value = label_value(info, self._affinity.domain)
        return bool(value) and value in self._values


def company_for(seen: Snapshot, revision: Revision, table: NodeTable) -> Company | None:
    """Return the affinities to heed for tasks of a revision, None when there are none."""
    if not revision.task_template.placement.affinities and not table.keepers_away:
        return None
    return Company(seen, revision, table)


def label_value(info: NodeInfo, key: str) -> str:
    """Return the value of `node.labels.NAME` or `engine.labels.NAME`, "" where the node has no such label."""
    if key.startswith("engine.labels."):
        return info.node.description.engine_labels.get(key.removeprefix("engine.labels."), "")
    return info.node.spec.labels.get(key.removeprefix("node.labels."), "")


def _services_meant(seen: Snapshot, affinity: Affinity) -> frozenset[str]:
    if not affinity.label:
        service = seen.service_by_name(affinity.value)
        return frozenset() if service is None else frozenset({service.id})
    return frozenset(service.id for service in seen.services() if _is_meant(service, affinity))


def _is_meant(service: Service, affinity: Affinity) -> bool:
    told = service.spec.labels.get(affinity.label, "") if affinity.label else service.spec.name
    return told.casefold() == affinity.value.casefold()


def _kept_away(service: Service | None, table: NodeTable) -> tuple[frozenset[str], frozenset[tuple[str, str]]]:
    """Return the nodes, and the values of labels, that tasks there keep this service away from."""
    if service is None or not table.keepers_away:
        return frozenset(), frozenset()
    nodes: set[str] = set()
    values: set[tuple[str, str]] = set()
    for info, affinity in _keepers(table):
        if not _is_meant(service, affinity):
            continue
        if not affinity.domain:
            nodes.add(info.node.id)
        elif value := label_value(info, affinity.domain):
            values.add((affinity.domain, value))
    return frozenset(nodes), frozenset(values)


def _keepers(table: NodeTable) -> Iterable[tuple[NodeInfo, Affinity]]:
    for id in table.keepers_away:
        info = table.infos[id]
        for text in info.keeps_away:
            yield info, parse_affinity(text)
