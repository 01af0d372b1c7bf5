"""Place a group of tasks with spread preferences: over the values of node labels first, then over nodes (pure).

Each task goes to the emptiest branch of the label values, outermost label first, and there to the best node. Nodes
without the label form a branch of their own, and a branch without room is left out (SwarmKit nodeset.go).
"""

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence

from pyswarm.manager.scheduler.company import Company, label_value
from pyswarm.manager.scheduler.filters import explain, refusal
from pyswarm.manager.scheduler.node_info import Rank
from pyswarm.manager.scheduler.nodes import NodeTable
from pyswarm.proto.model.objects import Revision, Task

Branch = tuple[str, ...]


def place_spread(
    tasks: Sequence[Task], revision: Revision, table: NodeTable, now: float, company: Company | None
) -> Iterator[tuple[Task, str, str]]:
    """Yield (task, node id or "", why not) and book each decision."""
    preferences, service_id = revision.task_template.placement.preferences, revision.service_id
    refusals: Counter[str] = Counter()
    branches: dict[Branch, list[Rank]] = {}
    load: Counter[Branch] = Counter()
    for info in table.infos.values():
        branch = tuple(label_value(info, key) for key in preferences)
        for depth in range(1, len(branch) + 1):
            load[branch[:depth]] += info.active_of_service.get(service_id, 0)
        why_not = refusal(info, revision, company)
        if why_not:
            refusals[why_not] += 1
        else:
            branches.setdefault(branch, []).append(info.rank(service_id, revision.id, now))
    for heap in branches.values():
        heapq.heapify(heap)
    for task in tasks:
        node_id = ""
        while branches and not node_id:
            branch = min(branches, key=lambda b: ([load[b[:d]] for d in range(1, len(b) + 1)], b))
            heap = branches[branch]
            best = heapq.heappop(heap)[3]
            info = table.infos[best]
            # Its last task may have filled it up.
            why_not = refusal(info, revision, company)
            if why_not:
                refusals[why_not] += 1
            else:
                node_id = best
                table.book(task, node_id, revision)
                if company is not None:
                    company.took(info)
                heapq.heappush(heap, info.rank(service_id, revision.id, now))
                for depth in range(1, len(branch) + 1):
                    load[branch[:depth]] += 1
            if not heap:
                del branches[branch]
        yield task, node_id, "" if node_id else explain(refusals)
