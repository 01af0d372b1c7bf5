"""What the scheduler knows of the nodes: capacity left, tasks by service, host ports, recent failures.

Built from one view and kept true to the store by its events, so that a decision never walks over all tasks. What a
decision books counts at once, because the filters of the next one must see it (swarm mistake 39); it is confirmed when
its event comes back from the store, or taken back when its write failed. Mutable, owned by whoever schedules; knows
nothing of time but what it is told.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.proto.model.objects import Node, Revision, Task
from pyswarm.proto.model.resources import Resources
from pyswarm.proto.model.spec import PortConfig
from pyswarm.proto.model.states import PublishMode, TaskState

FAILURES_MAX = 5
FAILURE_WINDOW_SECONDS = 300.0
"""A node where this version of a service failed so often lately is tried last (SwarmKit scheduler.go)."""

Rank = tuple[bool, int, int, str]
"""Whether it fails lately, tasks of the service, tasks in all, node id."""


@dataclass(slots=True)
class NodeInfo:
    node: Node
    free: Resources
    tasks_total: int = 0
    tasks_of_service: dict[str, int] = field(default_factory=dict)
    failed_at: dict[str, list[float]] = field(default_factory=dict)
    """When tasks of a revision failed here, oldest first, at most `FAILURES_MAX`."""
    host_ports: Counter[tuple[int, str]] = field(default_factory=Counter)

    def take(self, service_id: str, revision: Revision) -> None:
        self.free -= revision.task_template.resources.reservations
        self.tasks_total += 1
        self.tasks_of_service[service_id] = self.tasks_of_service.get(service_id, 0) + 1
        if revision.ports:
            self.host_ports.update(host_ports(revision.ports))

    def give_back(self, service_id: str, revision: Revision) -> None:
        self.free += revision.task_template.resources.reservations
        self.tasks_total -= 1
        self.tasks_of_service[service_id] -= 1
        if not self.tasks_of_service[service_id]:
            del self.tasks_of_service[service_id]
        if revision.ports:
            self.host_ports.subtract(host_ports(revision.ports))

    def is_failing(self, revision_id: str, now: float) -> bool:
        moments = self.failed_at.get(revision_id)
        return moments is not None and len(moments) >= FAILURES_MAX and moments[0] > now - FAILURE_WINDOW_SECONDS

    def rank(self, service_id: str, revision_id: str, now: float) -> Rank:
        """Lower is better: not failing, few tasks of this service, few tasks at all, then by id."""
        return (
            self.is_failing(revision_id, now),
            self.tasks_of_service.get(service_id, 0),
            self.tasks_total,
            self.node.id,
        )

    def uses(self, port: tuple[int, str]) -> bool:
        return self.host_ports[port] > 0


def host_ports(ports: tuple[PortConfig, ...]) -> set[tuple[int, str]]:
    return {(p.published_port, p.protocol) for p in ports if p.publish_mode is PublishMode.HOST and p.published_port}


def holds_resources(task: Task) -> bool:
    """Whether a task counts on its node. One that was told to stop holds its resources until it has."""
    return bool(task.node_id) and TaskState.ASSIGNED <= task.status.state <= TaskState.RUNNING


class NodeTable:
    """Every node's `NodeInfo`, and where each service runs."""

    def __init__(self, seen: Snapshot) -> None:
        self.infos: dict[str, NodeInfo] = {}
        self.nodes_of_service: dict[str, set[str]] = {}
        """Nodes that hold tasks of a service: all others are equal to it, but for how full they are."""
        self.failing: dict[str, set[str]] = {}
        """Nodes where tasks of a revision have failed, by its id."""
        self._booked: dict[str, tuple[str, Revision]] = {}
        """What was decided and has not come back from the store: (node, revision) by task id."""
        self._pools: dict[object, list[tuple[int, str]]] = {}
        for node in seen.nodes():
            self._read_node(node, seen)

    # -- what the store says

    def node_changed(self, node: Node, seen: Snapshot) -> None:
        """Take a new or changed node; `seen` is the view after the change."""
        self._forget_node(node.id)
        self._read_node(node, seen)
        for node_id, revision in self._booked.values():
            if node_id == node.id:
                self._take(node_id, revision.service_id, revision)
        self._pools.clear()

    def node_removed(self, node_id: str) -> None:
        self._forget_node(node_id)
        self._booked = {task_id: booked for task_id, booked in self._booked.items() if booked[0] != node_id}
        self._pools.clear()

    def task_changed(self, old: Task | None, new: Task | None, seen: Snapshot) -> None:
        """Take one step of a task, either side None when it was created or deleted."""
        before = old if old is not None and holds_resources(old) else None
        after = new if new is not None and holds_resources(new) else None
        if before is not None and after is not None and before.node_id == after.node_id:
            return
        if after is not None and (booked := self._booked.pop(after.id, None)) is not None:
            if booked[0] == after.node_id:
                return  # as we decided
            self._give_back(booked[0], after.service_id, booked[1])
        if before is not None:
            self._unbook(before, seen)
        if after is not None:
            self._book(after, seen)
        if new is not None and new.state.is_failure and (old is None or not old.state.is_failure):
            self._note_failure(new)
        self._pools.clear()

    # -- what the scheduler decides

    def book(self, task: Task, node_id: str, revision: Revision) -> None:
        """Count a task on a node before the store says so."""
        self._booked[task.id] = (node_id, revision)
        self._take(node_id, task.service_id, revision)

    def take_back(self, tasks: Iterable[Task]) -> None:
        """What was decided for these tasks was not written."""
        for task in tasks:
            booked = self._booked.pop(task.id, None)
            if booked is not None:
                self._give_back(booked[0], task.service_id, booked[1])
                self._pools.clear()

    def pool(self, key: object, admits: Callable[[NodeInfo], bool]) -> list[tuple[int, str]]:
        """Return a heap of (tasks in all, node id) of the nodes that `admits` lets in; `key` names the condition.

        Kept from decision to decision as long as nothing but our own bookings changes. A booking leaves its node's
        entry as it was, so a count may be too small, never too large: compare it when it comes up.
        """
        heap = self._pools.get(key)
        if heap is None:
            heap = [(info.tasks_total, id) for id, info in self.infos.items() if admits(info)]
            heapq.heapify(heap)
            self._pools[key] = heap
        return heap

    def failing_nodes(self, revision_id: str, now: float) -> list[str]:
        """Return the nodes where this version of a service failed too often lately."""
        failed = self.failing.get(revision_id, ())
        return [id for id in failed if id in self.infos and self.infos[id].is_failing(revision_id, now)]

    # -- within

    def _read_node(self, node: Node, seen: Snapshot) -> None:
        self.infos[node.id] = NodeInfo(node, node.description.resources)
        for task in seen.tasks_of_node(node.id):
            if holds_resources(task):
                self._book(task, seen)
            elif task.state.is_failure:
                self._note_failure(task)

    def _forget_node(self, node_id: str) -> None:
        info = self.infos.pop(node_id, None)
        if info is None:
            return
        for service_id in info.tasks_of_service:
            self.nodes_of_service.get(service_id, set()).discard(node_id)
        for revision_id in info.failed_at:
            self.failing.get(revision_id, set()).discard(node_id)

    def _book(self, task: Task, seen: Snapshot) -> None:
        revision = seen.revision_of(task)
        # A task outlives its revision only when its node is long gone.
        if revision is not None:
            self._take(task.node_id, task.service_id, revision)

    def _unbook(self, task: Task, seen: Snapshot) -> None:
        revision = seen.revision_of(task)
        if revision is not None:
            self._give_back(task.node_id, task.service_id, revision)
        elif (info := self.infos.get(task.node_id)) is not None:
            # Deleted in the same entry: count the node's tasks anew.
            self.node_changed(info.node, seen)

    def _take(self, node_id: str, service_id: str, revision: Revision) -> None:
        info = self.infos.get(node_id)
        if info is not None:
            info.take(service_id, revision)
            nodes = self.nodes_of_service.get(service_id)
            if nodes is None:
                self.nodes_of_service[service_id] = {node_id}
            else:
                nodes.add(node_id)

    def _give_back(self, node_id: str, service_id: str, revision: Revision) -> None:
        info = self.infos.get(node_id)
        if info is None:
            return
        info.give_back(service_id, revision)
        if service_id not in info.tasks_of_service:
            nodes = self.nodes_of_service[service_id]
            nodes.discard(node_id)
            if not nodes:
                del self.nodes_of_service[service_id]

    def _note_failure(self, task: Task) -> None:
        info = self.infos.get(task.node_id)
        if info is not None:
            moments = info.failed_at.setdefault(task.revision_id, [])
            moments.append(task.status.timestamp)
            moments.sort()
            del moments[:-FAILURES_MAX]
            self.failing.setdefault(task.revision_id, set()).add(task.node_id)
