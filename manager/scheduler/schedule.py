"""Choose a node for every task that waits for one (pure but for the `NodeTable` it books in).

Tasks of one service revision are placed as a group. To a service all nodes are equal but for how full they are, except
the few where it runs or failed already: so the best node is the emptiest of the others, kept in a heap which all
services with the same constraints share, or else the best of those few. A decision costs the logarithm of the number
of nodes, however many services there are. With spread preferences the group's nodes are walked over once (spread.py).
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from msgspec.structs import replace

from pyswarm.manager.orchestrator.moves import Actor, observe
from pyswarm.manager.scheduler.company import Company, company_for
from pyswarm.manager.scheduler.filters import admits_by_nature, explain, explain_all, has_room, refusal
from pyswarm.manager.scheduler.node_info import Rank
from pyswarm.manager.scheduler.nodes import NodeTable
from pyswarm.manager.scheduler.pack import place_packed
from pyswarm.manager.scheduler.spread import place_spread
from pyswarm.manager.store.changes import Change, Plan, Update
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.proto.model.objects import Revision, Task, TaskStatus
from pyswarm.proto.model.states import PlacementStrategy, TaskState

Placed = tuple[Task, str, str]
"""A task, the id of its node or "", and why it has none."""


def schedule(seen: Snapshot, waiting: Iterable[Task], *, now: float, table: NodeTable | None = None) -> Plan:
    """Assign the `waiting` tasks (PENDING and wanted) to nodes; those that fit nowhere are told why.

    `table` is what is known of the nodes (made from `seen` when it is not given); decisions are booked in it.
    """
    groups: dict[str, list[Task]] = {}
    for task in waiting:
        if task.status.state is TaskState.PENDING and task.is_wanted:
            groups.setdefault(task.revision_id, []).append(task)
    if not groups:
        return Plan()
    table = NodeTable(seen) if table is None else table
    full: dict[object, str] = {}
    # One for all of them: they differ in nothing.
    assigned = TaskStatus(state=TaskState.ASSIGNED, timestamp=now, message="assigned to a node")
    changes: list[Change] = []
    # A group without a revision is of a service that is being removed: its tasks go with it.
    known = [(r, tasks) for id, tasks in groups.items() if (r := seen.revision(id)) is not None]
    # The highest priority chooses first; then tasks bound to a node (global services), which have no choice.
    known.sort(key=lambda group: (-group[0].task_template.placement.priority, not group[1][0].node_id, group[0].id))
    for revision, tasks in known:
        if len(tasks) > 1:
            tasks.sort(key=lambda t: (t.slot, t.node_id, t.id))
        needs_pieces = bool(revision.task_template.resources.reservations.generic)
        company = company_for(seen, revision, table)
        for task, node_id, why_not in _placed(tasks, revision, table, now, full, company):
            if node_id:
                placed = observe(task, assigned, by=Actor.SCHEDULER, node_id=node_id)
                if needs_pieces:
                    placed = replace(placed, assigned_generic=table.pieces_for(task))
                changes.append(Update(placed))
            elif task.status.err != why_not:
                changes.append(Update(_refused(task, why_not, now)))
    return Plan(tuple(changes), why=f"placing {sum(map(len, groups.values()))} tasks")


def place_one(seen: Snapshot, task: Task, revision: Revision, table: NodeTable, *, now: float) -> str:
    """Return the node that one task would get, "" for none, and book the decision."""
    ((_, node_id, _),) = _placed([task], revision, table, now, {}, company_for(seen, revision, table))
    return node_id


def _placed(
    tasks: Sequence[Task],
    revision: Revision,
    table: NodeTable,
    now: float,
    full: dict[object, str],
    company: Company | None,
) -> Iterable[Placed]:
    """Return (task, node id or "", why not) for each task, and book each decision.

    `full` remembers, for one call of `schedule`, what nothing is left for: nodes only fill up meanwhile.
    """
    if tasks[0].node_id:
        return _check_bound(tasks, revision, table, company)
    if revision.task_template.placement.strategy is PlacementStrategy.BINPACK:
        return place_packed(tasks, revision, table, now, company)
    if revision.task_template.placement.preferences:
        return place_spread(tasks, revision, table, now, company)
    return _place(tasks, revision, table, now, full, company)


def _check_bound(
    tasks: Sequence[Task], revision: Revision, table: NodeTable, company: Company | None
) -> Iterator[Placed]:
    for task in tasks:
        info = table.infos.get(task.node_id)
        why_not = refusal(info, revision, company) if info is not None else "its node was removed"
        if not why_not and info is not None:
            table.book(task, task.node_id, revision)
            if company is not None:
                company.took(info)
        yield task, "" if why_not else task.node_id, explain(Counter({why_not: 1})) if why_not else ""


def _place(
    tasks: Sequence[Task],
    revision: Revision,
    table: NodeTable,
    now: float,
    full: dict[object, str],
    company: Company | None,
) -> list[Placed]:
    placement, service_id = revision.task_template.placement, revision.service_id
    if full and not placement.max_replicas and company is None and (why_not := full.get(_wants(revision))):
        return [(task, "", why_not) for task in tasks]
    nature = (placement.constraints, placement.platforms)
    pool = table.pool(nature, lambda info: admits_by_nature(info, revision))
    apart = {*table.nodes_of_service.get(service_id, ()), *table.failing_nodes(revision.id, now)}
    known = _known(apart, revision, table, now) if apart else []
    aside: list[str] = []
    placed: list[Placed] = []
    for number, task in enumerate(tasks):
        node_id = _best(pool, known, apart, aside, revision, table, now, company)
        if not node_id:
            why_not = explain_all(table, revision, company)
            if company is None:
                full[_wants(revision)] = why_not
            placed += [(left, "", why_not) for left in tasks[number:]]
            break
        table.book(task, node_id, revision)
        if company is not None:
            company.took(table.infos[node_id])
        placed.append((task, node_id, ""))
        if number + 1 < len(tasks):
            apart.add(node_id)
            heapq.heappush(known, table.infos[node_id].rank(service_id, revision.id, now))
    for id in aside:
        heapq.heappush(pool, (table.infos[id].active_total, id))
    return placed


def _wants(revision: Revision) -> object:
    """Return what two revisions that nothing is left for have in common."""
    placement, resources = revision.task_template.placement, revision.task_template.resources
    return placement.constraints, placement.platforms, resources.reservations, revision.ports, placement.max_replicas


def _known(apart: Iterable[str], revision: Revision, table: NodeTable, now: float) -> list[Rank]:
    """Return a heap of the nodes that are not like the others to this service, by rank."""
    infos = (info for id in apart if (info := table.infos.get(id)) is not None)
    ranks = [i.rank(revision.service_id, revision.id, now) for i in infos if admits_by_nature(i, revision)]
    heapq.heapify(ranks)
    return ranks


def _best(
    pool: list[tuple[int, str]],
    known: list[Rank],
    apart: set[str],
    aside: list[str],
    revision: Revision,
    table: NodeTable,
    now: float,
    company: Company | None,
) -> str:
    """Return the best node with room, "" when there is none. Nodes taken from the pool go to `aside`."""
    while pool:
        total, id = pool[0]
        info = table.infos[id]
        if total != info.active_total:
            # It took tasks since: let it find its new place.
            heapq.heapreplace(pool, (info.active_total, id))
            continue
        heapq.heappop(pool)
        aside.append(id)
        if id not in apart and has_room(info, revision, company):
            return id
    while known:
        rank = heapq.heappop(known)
        info = table.infos[rank[3]]
        fresh = info.rank(revision.service_id, revision.id, now)
        if fresh != rank:
            heapq.heappush(known, fresh)
        elif has_room(info, revision, company):
            return info.node.id
    return ""


def _refused(task: Task, why_not: str, now: float) -> Task:
    status = TaskStatus(state=TaskState.PENDING, timestamp=now, message="waiting for a node", err=why_not)
    return observe(task, status, by=Actor.SCHEDULER)
