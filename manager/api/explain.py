"""Control.Explain: find what is meant by a name, have it explained, encode."""

from pyswarm.manager.api.selection import one_node, one_service
from pyswarm.manager.explain.explanation import (
    Explanation,
    explain_node,
    explain_service,
    explain_task,
    task_name,
)
from pyswarm.manager.explain.story import Commits
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.proto.errors import InvalidArgument, NotFound
from pyswarm.proto.model.objects import Task
from pyswarm.proto.v1 import control_pb2 as pb


def explain(seen: Snapshot, name: str, commits: Commits) -> Explanation:
    """Explain the service, task or node of this name, tried in this order. Raises NotFound, InvalidArgument."""
    if not name:
        raise InvalidArgument("nothing to explain", remedy="Name a task, a service or a node.")
    service = seen.service(name) or seen.service_by_name(name)
    if service is not None:
        return explain_service(seen, service, commits)
    task = _task(seen, name)
    if task is not None:
        return explain_task(seen, task, commits)
    try:
        return explain_node(seen, one_node(seen, name), commits)
    except NotFound:
        pass
    try:
        return explain_service(seen, one_service(seen, name), commits)
    except NotFound:
        raise NotFound(
            f"no task, service or node is called {name}",
            remedy="`pyswarm service ps SERVICE`, `service ls` and `node ls` list what there is.",
        ) from None


def _task(seen: Snapshot, name: str) -> Task | None:
    """Return the task of this id, unique id prefix, or the newest one of `SERVICE.SLOT`."""
    found = seen.task(name)
    if found is not None:
        return found
    service_name, dot, slot = name.rpartition(".")
    service = seen.service_by_name(service_name) if dot else None
    if service is not None:
        nodes = {n.id for n in seen.nodes() if slot in (n.id, n.description.hostname, n.spec.name)}
        tasks = [
            t for t in seen.tasks_of_service(service.id) if str(t.slot) == slot or (not t.slot and t.node_id in nodes)
        ]
        return max(tasks, key=lambda t: (t.created_at, t.version), default=None)
    alike = [t for t in seen.tasks() if t.id.startswith(name)]
    if len(alike) > 1:
        told = ", ".join(task_name(seen, t) for t in alike[:3])
        raise InvalidArgument(f"{len(alike)} tasks begin with {name}: {told}…", remedy="Give more of the id.")
    return alike[0] if alike else None


def explanation_message(found: Explanation, version: int) -> pb.Explanation:
    groups = [
        pb.NodeGroup(
            nodes=group.nodes,
            verdicts=[pb.FilterVerdict(filter=v.filter, refusal=v.refusal) for v in group.verdicts],
        )
        for group in found.groups
    ]
    return pb.Explanation(
        kind=found.kind,
        id=found.id,
        name=found.name,
        state=found.state,
        facts=found.facts,
        groups=groups,
        steps=[pb.Step(index=s.index, at=s.at, what=s.what, cause=s.cause) for s in found.steps],
        remedies=found.remedies,
        version=version,
    )
