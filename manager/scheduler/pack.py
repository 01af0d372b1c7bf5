"""Place a group of tasks on as few nodes as possible: each on the fullest node that still has room (pure).

How full a node is counts in reservations (nodes.py), so services that reserve nothing all go to one node. The fullest
nodes come from a heap which all services of the same constraints share: a decision costs the logarithm of their number.
"""

import heapq
from collections.abc import Iterator, Sequence

from pyswarm.manager.scheduler.company import Company
from pyswarm.manager.scheduler.filters import admits_by_nature, explain_all, has_room
from pyswarm.manager.scheduler.nodes import NodeTable, Packed
from pyswarm.proto.model.objects import Revision, Task


def place_packed(
    tasks: Sequence[Task], revision: Revision, table: NodeTable, now: float, company: Company | None
) -> Iterator[tuple[Task, str, str]]:
    """Yield (task, node id or "", why not) and book each decision."""
    placement = revision.task_template.placement
    heap = table.packed((placement.constraints, placement.platforms), lambda info: admits_by_nature(info, revision))
    failing = set(table.failing_nodes(revision.id, now))
    aside: list[Packed] = []
    for task in tasks:
        id = _fullest(heap, failing, aside, revision, table, company)
        if id:
            table.book(task, id, revision)
            if company is not None:
                company.took(table.infos[id])
        yield task, id, "" if id else explain_all(table, revision, company)
    for entry in aside:
        heapq.heappush(heap, entry)


def _fullest(
    heap: list[Packed],
    failing: set[str],
    aside: list[Packed],
    revision: Revision,
    table: NodeTable,
    company: Company | None,
) -> str:
    """Return the fullest node with room, "" when there is none. Entries without room go to `aside`."""
    while heap:
        entry = heap[0]
        id = entry[2]
        if table.is_current(entry):
            if id not in failing and has_room(table.infos[id], revision, company):
                return id
            aside.append(entry)
        heapq.heappop(heap)
    # Only nodes where this version fails are left, if any.
    left = [table.infos[id] for id in failing if admits_by_nature(table.infos[id], revision)]
    fit = [info for info in left if has_room(info, revision, company)]
    return min(fit, key=lambda info: (-info.fullness, info.node.id)).node.id if fit else ""
