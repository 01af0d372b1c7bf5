"""What a deploy would do, for people (pure)."""

from collections.abc import Iterator

from pyswarm.proto.v1 import control_pb2 as pb

_WORDS = {"created": "create", "updated": "update", "removed": "remove", "unchanged": "leave as it is"}
_TASKS_SHOWN = 20


def plan_text(plan: pb.StackPlan) -> str:
    lines = [f"{change.kind.title()} {change.name}: {_WORDS[change.action]}" for change in plan.others]
    for service in plan.services:
        lines += _service(service)
    starts = [task for service in plan.services for task in service.tasks]
    unplaced = sum(bool(task.why_not) for task in starts)
    stopped = sum(service.stopped for service in plan.services)
    if plan.services:
        nowhere = f", {unplaced} of them without a node" if unplaced else ""
        lines.append(f"\n{len(starts)} tasks would start{nowhere}; {stopped} would stop. Nothing has been done.")
    elif all(change.action == "unchanged" for change in plan.others):
        lines.append("\nNothing would change.")
    return "\n".join(lines)


def _service(service: pb.PlannedService) -> Iterator[str]:
    change = service.change
    kept = f" ({service.kept} tasks stay as they are)" if service.kept else ""
    yield f"Service {change.name}: {_WORDS[change.action]}{kept}"
    yield from (f"    {line}" for line in service.differences)
    for task in service.tasks[:_TASKS_SHOWN]:
        name = f"{change.name}.{task.slot}" if task.slot else change.name
        origin = f"{task.instead_of} -> " if task.instead_of else "-> "
        yield f"    {name}  {origin}{task.node or 'nowhere: ' + task.why_not}"
    if len(service.tasks) > _TASKS_SHOWN:
        yield f"    and {len(service.tasks) - _TASKS_SHOWN} more tasks"
