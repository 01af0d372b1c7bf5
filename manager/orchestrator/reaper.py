"""Decide which tasks and revisions to forget (pure).

A task that shall be REMOVEd goes once it has stopped, or when it never reached a node, or its node is gone for good. A
dead task goes when its slot has more of them than the history limit. A revision goes when it is not current
and no task names it. Deleting earlier would leak containers and free ports that are still in use (swarm mistake 21).
"""

from msgspec.structs import replace

from pyswarm.manager.orchestrator.placement import is_lost
from pyswarm.manager.orchestrator.slots import slot_key
from pyswarm.manager.store.changes import Change, Delete, Plan, Update
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.proto.model.objects import Revision, Service, Task
from pyswarm.proto.model.spec import ClusterSpec
from pyswarm.proto.model.states import TaskState

NODE_GONE_SECONDS = 24 * 3600.0
"""A node that is down for so long is not expected back: its tasks are orphaned (SwarmKit dispatcher.go)."""


def reap(seen: Snapshot, service_id: str, *, now: float) -> Plan:
    """Return the deletions for one service, whether it still exists or not."""
    service = seen.service(service_id)
    tasks = seen.tasks_of_service(service_id)
    doomed = {task.id: task for task in tasks if _may_go(seen, task, now)}
    if service is not None:
        doomed |= {task.id: task for task in _beyond_history(seen, service, tasks)}
    changes: list[Change] = [Delete("task", task.id, task.version) for task in doomed.values()]
    changes += _orphaned(seen, service, [t for t in tasks if t.id not in doomed], now)
    if service is None:
        changes += [
            Update(replace(task, desired_state=TaskState.REMOVE))
            for task in tasks
            if task.id not in doomed and task.desired_state < TaskState.REMOVE
        ]
    named = {task.spec_version for task in tasks if task.id not in doomed}
    if service is not None:
        named.add(service.spec_version)
    unnamed = [r for r in seen.revisions_of_service(service_id) if r.spec_version not in named]
    changes += [Delete("revision", revision.id, revision.version) for revision in unnamed if _is_settled(revision)]
    return Plan(tuple(changes), why=f"forgetting {len(doomed)} tasks" if doomed else "")


def _is_settled(revision: Revision) -> bool:
    return revision.version > 0


def _may_go(seen: Snapshot, task: Task, now: float) -> bool:
    if task.desired_state < TaskState.REMOVE:
        return False
    never_sent = task.state < TaskState.ASSIGNED
    node = seen.node(task.node_id)
    node_is_gone = not never_sent and (
        node is None or (is_lost(node) and now - node.status.changed_at > NODE_GONE_SECONDS)
    )
    return task.state.is_terminal or never_sent or node_is_gone


def _orphaned(seen: Snapshot, service: Service | None, tasks: list[Task], now: float) -> list[Change]:
    """Tasks of nodes that are gone for good end as ORPHANED, so that nothing waits for their report."""
    changes: list[Change] = []
    for task in tasks:
        if task.state.is_terminal or task.state < TaskState.ASSIGNED or service is None:
            continue
        node = seen.node(task.node_id)
        if node is None or (is_lost(node) and now - node.status.changed_at > NODE_GONE_SECONDS):
            status = replace(task.status, state=TaskState.ORPHANED, timestamp=now, message="its node is gone")
            changes.append(
                Update(replace(task, status=status, desired_state=max(task.desired_state, TaskState.SHUTDOWN)))
            )
    return changes


def _beyond_history(seen: Snapshot, service: Service, tasks: tuple[Task, ...]) -> list[Task]:
    limit = (seen.cluster.spec if seen.cluster is not None else ClusterSpec()).task_history_retention_limit
    if limit < 0:
        return []
    # Restart attempts are counted from the history, so it must reach that far back (swarm mistake 24).
    attempts = service.spec.task_template.restart_policy.max_attempts
    keep = max(limit, attempts + 1 if attempts > 0 else 0)
    dead: dict[object, list[Task]] = {}
    forgotten: list[Task] = []
    runs = {run.iteration for run in (*service.runs, service.job_status)}
    if service.spec.schedule is not None:
        forgotten = [task for task in tasks if task.job_iteration not in runs and task.state.is_terminal]
        tasks = tuple(task for task in tasks if task.job_iteration in runs)
    for task in tasks:
        # A job's completed tasks are what says that it is complete: those of its present run stay.
        is_result = task.job_iteration in runs and task.state is TaskState.COMPLETE
        if task.state.is_terminal and not task.is_wanted and not (service.spec.mode.is_job and is_result):
            dead.setdefault(slot_key(service, task), []).append(task)
    excess = forgotten
    for members in dead.values():
        members.sort(key=lambda t: (t.created_at, t.version, t.id), reverse=True)
        excess += members[keep:]
    return sorted(excess, key=lambda t: t.id)
