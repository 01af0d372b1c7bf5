"""What the scheduler knows of the nodes: capacity left, tasks by service, host ports, recent failures.

Built from one view and kept true to the store by its events, so that a decision never walks over all tasks. What a
decision books counts at once, because the filters of the next one must see it (swarm mistake 39); it is confirmed when
its event comes back from the store, or taken back when its write failed. Mutable, owned by whoever schedules; knows
nothing of time but what it is told.
"""

import heapq
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

from pyswarm.manager.scheduler.generic import Pieces
from pyswarm.manager.scheduler.node_info import FAILURES_MAX, NodeInfo, holds_resources
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.proto.model.objects import Node, Revision, Task
from pyswarm.proto.model.resources import GenericResource

T = TypeVar("T", tuple[int, str], tuple[float, int, str])


class Booking(NamedTuple):
    node_id: str
    revision: Revision
    pieces: tuple[GenericResource, ...]


Packed = tuple[float, int, str]
"""How full a node is and how many tasks it has, both negative, and its id: the fullest comes first."""


class NodeTable:
    """Every node's `NodeInfo`, and where each service runs."""

    def __init__(self, seen: Snapshot) -> None:
        self.infos: dict[str, NodeInfo] = {}
        self.nodes_of_service: dict[str, set[str]] = {}
        """Nodes that hold tasks of a service: all others are equal to it, but for how full they are."""
        self.failing: dict[str, set[str]] = {}
        """Nodes where tasks of a revision have failed, by its id."""
        self.keepers_away: set[str] = set()
        """Nodes with tasks that keep others away."""
        self._booked: dict[str, Booking] = {}
        """What was decided and has not come back from the store, by task id."""
        self._pools: dict[object, list[tuple[int, str]]] = {}
        self._packed: dict[object, list[Packed]] = {}
        self._admits: dict[object, Callable[[NodeInfo], bool]] = {}
        """Which nodes belong into the pools of a condition."""
        for node in seen.nodes():
            self._read_node(node, seen)

    # -- what the store says

    def node_changed(self, node: Node, seen: Snapshot) -> None:
        """Take a new or changed node; `seen` is the view after the change."""
        self._forget_node(node.id)
        self._read_node(node, seen)
        for booked in self._booked.values():
            if booked.node_id == node.id:
                self._take(node.id, booked.revision, booked.pieces)
        self._forget_pools()

    def node_removed(self, node_id: str) -> None:
        self._forget_node(node_id)
        self._booked = {task_id: booked for task_id, booked in self._booked.items() if booked.node_id != node_id}
        self._forget_pools()

    def task_changed(self, old: Task | None, new: Task | None, seen: Snapshot) -> None:
        """Take one step of a task, either side None when it was created or deleted."""
        before = old if old is not None and holds_resources(old) else None
        after = new if new is not None and holds_resources(new) else None
        if before is not None and after is not None and _counts_as(before) == _counts_as(after):
            return
        if after is not None and (booked := self._booked.pop(after.id, None)) is not None:
            if booked.node_id == after.node_id and after.is_wanted:
                return  # as we decided
            self._give_back(*booked)
        if before is not None:
            self._unbook(before, seen)
        if after is not None:
            self._book(after, seen)
        if new is not None and new.state.is_failure and (old is None or not old.state.is_failure):
            self._note_failure(new)
        self._forget_pools()

    # -- what the scheduler decides

    def book(self, task: Task, node_id: str, revision: Revision) -> None:
        """Count a task on a node before the store says so."""
        wanted, left = revision.task_template.resources.reservations.generic, self.infos[node_id].pieces
        pieces = left.choose(wanted) if wanted and left is not None else ()
        self._booked[task.id] = Booking(node_id, revision, pieces)
        self._take(node_id, revision, pieces)
        if self._packed:
            self._enter(self.infos[node_id], self._packed, _packed(self.infos[node_id]))

    def pieces_for(self, task: Task) -> tuple[GenericResource, ...]:
        """Return which generic resources a booked task gets."""
        return self._booked[task.id].pieces

    def take_back(self, tasks: Iterable[Task]) -> None:
        """What was decided for these tasks was not written."""
        for task in tasks:
            booked = self._booked.pop(task.id, None)
            if booked is not None:
                self._give_back(*booked)
                self._forget_pools()

    def lift(self, task: Task, revision: Revision) -> None:
        """Count a task of the store as gone from its node, to see what then would be; `put_back` undoes it."""
        self._give_back(task.node_id, revision, task.assigned_generic)
        # The node has become better than its entries say: it gets another one where it belongs.
        info = self.infos[task.node_id]
        self._enter(info, self._pools, (info.active_total, info.node.id))
        self._enter(info, self._packed, _packed(info))

    def put_back(self, task: Task, revision: Revision) -> None:
        self._take(task.node_id, revision, task.assigned_generic)
        info = self.infos[task.node_id]
        self._enter(info, self._packed, _packed(info))

    def pool(self, key: object, admits: Callable[[NodeInfo], bool]) -> list[tuple[int, str]]:
        """Return a heap of (tasks in all, node id) of the nodes that `admits` lets in; `key` names the condition.

        Kept from decision to decision as long as nothing but our own bookings changes. A booking leaves its node's
        entry as it was, so a count may be too small, never too large: compare it when it comes up.
        """
        heap = self._pools.get(key)
        if heap is None:
            heap = [(info.active_total, id) for id, info in self.infos.items() if admits(info)]
            heapq.heapify(heap)
            self._pools[key] = heap
            self._admits[key] = admits
        return heap

    def packed(self, key: object, admits: Callable[[NodeInfo], bool]) -> list[Packed]:
        """As `pool`, with the fullest node first. A booking adds its node anew: an entry that is out of date counts
        for nothing (`is_current`)."""
        heap = self._packed.get(key)
        if heap is None:
            heap = [_packed(info) for info in self.infos.values() if admits(info)]
            heapq.heapify(heap)
            self._packed[key] = heap
            self._admits[key] = admits
        return heap

    def is_current(self, entry: Packed) -> bool:
        return entry == _packed(self.infos[entry[2]])

    def failing_nodes(self, revision_id: str, now: float) -> list[str]:
        """Return the nodes where this version of a service failed too often lately."""
        failed = self.failing.get(revision_id, ())
        return [id for id in failed if id in self.infos and self.infos[id].is_failing(revision_id, now)]

    # -- within

    def _read_node(self, node: Node, seen: Snapshot) -> None:
        has = node.description.resources
        self.infos[node.id] = NodeInfo(node, has, pieces=Pieces(has.generic) if has.generic else None)
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
        self.keepers_away.discard(node_id)

    def _enter(self, info: NodeInfo, pools: dict[object, list[T]], entry: T) -> None:
        """Add an entry for a node to every pool that it belongs into."""
        for key, heap in pools.items():
            if self._admits[key](info):
                heapq.heappush(heap, entry)

    def _forget_pools(self) -> None:
        self._pools.clear()
        self._packed.clear()
        self._admits.clear()

    def _book(self, task: Task, seen: Snapshot) -> None:
        revision = seen.revision_of(task)
        # A task outlives its revision only when its node is long gone.
        if revision is not None:
            self._take(task.node_id, revision, task.assigned_generic, is_active=task.is_wanted)

    def _unbook(self, task: Task, seen: Snapshot) -> None:
        revision = seen.revision_of(task)
        if revision is not None:
            self._give_back(task.node_id, revision, task.assigned_generic, is_active=task.is_wanted)
        elif (info := self.infos.get(task.node_id)) is not None:
            # Deleted in the same entry: count the node's tasks anew.
            self.node_changed(info.node, seen)

    def _take(
        self, node_id: str, revision: Revision, pieces: tuple[GenericResource, ...], *, is_active: bool = True
    ) -> None:
        info = self.infos.get(node_id)
        if info is None:
            return
        info.take(revision.service_id, revision, pieces, is_active=is_active)
        nodes = self.nodes_of_service.get(revision.service_id)
        if nodes is None:
            self.nodes_of_service[revision.service_id] = {node_id}
        else:
            nodes.add(node_id)
        if info.keeps_away:
            self.keepers_away.add(node_id)

    def _give_back(
        self, node_id: str, revision: Revision, pieces: tuple[GenericResource, ...], *, is_active: bool = True
    ) -> None:
        info = self.infos.get(node_id)
        if info is None:
            return
        service_id = revision.service_id
        info.give_back(service_id, revision, pieces, is_active=is_active)
        if not info.keeps_away:
            self.keepers_away.discard(node_id)
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


def _counts_as(task: Task) -> tuple[str, bool]:
    """Return where a task that holds resources counts, and whether as one that is to stay."""
    return task.node_id, task.is_wanted


def _packed(info: NodeInfo) -> Packed:
    return (-info.fullness, -info.active_total, info.node.id)
