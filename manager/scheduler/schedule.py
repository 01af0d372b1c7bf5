"""Choose a node for every task that waits for one (pure).

Tasks of one service revision are placed as a group: the nodes are filtered once, kept in a heap by rank, and each
task takes the best and puts it back, so a decision costs the logarithm of the number of nodes. With preferences, each
task goes to the emptiest branch of the label values first (spread), then to the best node there.
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from pyswarm.manager.orchestrator.moves import Actor, observe
from pyswarm.manager.scheduler.filters import explain, refusal
from pyswarm.manager.scheduler.nodes import NodeInfo, node_infos
from pyswarm.manager.store.changes import Change, Plan, Update
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.proto.model.objects import Revision, Task, TaskStatus
from pyswarm.proto.model.states import TaskState

Branch = tuple[str, ...]


def schedule(seen: Snapshot, waiting: Iterable[Task], *, now: float) -> Plan:
    """Assign the `waiting` tasks (PENDING and wanted) to nodes; those that fit nowhere are told why."""
    groups: dict[str, list[Task]] = {}
    for task in waiting:
        if task.state is TaskState.PENDING and task.is_wanted:
            groups.setdefault(task.revision_id, []).append(task)
    if not groups:
        return Plan()
    infos = node_infos(seen, now=now)
    changes: list[Change] = []
    # Tasks bound to a node (global services) have no choice, so they come first.
    ordered = sorted(groups.items(), key=lambda item: (not item[1][0].node_id, item[0]))
    for revision_id, tasks in ordered:
        revision = seen.revision(revision_id)
        if revision is None:
            continue  # the service is being removed: its tasks go with it
        tasks.sort(key=lambda t: (t.slot, t.node_id, t.id))
        for task, node_id, why_not in _place(tasks, revision, infos):
            moved = _assigned(task, node_id, now) if node_id else _refused(task, why_not, now)
            if moved != task:
                changes.append(Update(moved))
    return Plan(tuple(changes), why=f"placing {sum(map(len, groups.values()))} tasks")


def _place(tasks: list[Task], revision: Revision, infos: Mapping[str, NodeInfo]) -> Iterable[tuple[Task, str, str]]:
    """Yield (task, node id or "", why not) and book each decision."""
    if tasks[0].node_id:
        yield from _check_bound(tasks, revision, infos)
        return
    first = tasks[0]
    preferences = revision.task_template.placement.preferences
    refusals: Counter[str] = Counter()
    branches: dict[Branch, list[tuple[tuple[bool, int, int, str], str]]] = {}
    load: Counter[Branch] = Counter()
    for info in infos.values():
        branch = tuple(_label(info, key) for key in preferences)
        for depth in range(1, len(branch) + 1):
            load[branch[:depth]] += info.tasks_of_service[first.service_id]
        why_not = refusal(info, first, revision)
        if why_not:
            refusals[why_not] += 1
        else:
            rank = info.rank(first.service_id, revision.id)
            branches.setdefault(branch, []).append((rank, info.node.id))
    for heap in branches.values():
        heapq.heapify(heap)
    for task in tasks:
        node_id = ""
        while branches and not node_id:
            branch = min(branches, key=lambda b: ([load[b[:d]] for d in range(1, len(b) + 1)], b))
            heap = branches[branch]
            _, best = heapq.heappop(heap)
            info = infos[best]
            # Its last task may have filled it up.
            why_not = refusal(info, task, revision)
            if why_not:
                refusals[why_not] += 1
            else:
                info.take(task, revision)
                node_id = best
                heapq.heappush(heap, (info.rank(task.service_id, revision.id), best))
                for depth in range(1, len(branch) + 1):
                    load[branch[:depth]] += 1
            if not heap:
                del branches[branch]
        yield task, node_id, "" if node_id else explain(refusals)


def _check_bound(
    tasks: list[Task], revision: Revision, infos: Mapping[str, NodeInfo]
) -> Iterable[tuple[Task, str, str]]:
    for task in tasks:
        info = infos.get(task.node_id)
        why_not = refusal(info, task, revision) if info is not None else "its node was removed"
        if info is not None and not why_not:
            info.take(task, revision)
        yield task, "" if why_not else task.node_id, explain(Counter({why_not: 1})) if why_not else ""


def _label(info: NodeInfo, key: str) -> str:
    """The value of a label, the empty string being a branch of its own."""
    if key.startswith("engine.labels."):
        return info.node.description.engine_labels.get(key.removeprefix("engine.labels."), "")
    return info.node.spec.labels.get(key.removeprefix("node.labels."), "")


def _assigned(task: Task, node_id: str, now: float) -> Task:
    status = TaskStatus(state=TaskState.ASSIGNED, timestamp=now, message="assigned to a node")
    return observe(replace(task, node_id=node_id), status, by=Actor.SCHEDULER)


def _refused(task: Task, why_not: str, now: float) -> Task:
    if task.status.err == why_not:
        return task
    status = TaskStatus(state=TaskState.PENDING, timestamp=now, message="waiting for a node", err=why_not)
    return observe(task, status, by=Actor.SCHEDULER)
