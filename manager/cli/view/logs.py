"""One line of `service logs`."""

from msgspec import Struct

from pyswarm.manager.cli.records import TaskList
from pyswarm.manager.cli.view.facts import rfc3339
from pyswarm.manager.cli.view.tasks import SHORT_ID, task_name


class LogStyle(Struct, frozen=True):
    timestamps: bool = False
    raw: bool = False
    no_resolve: bool = False
    no_task_ids: bool = False
    no_trunc: bool = False


def log_line(task_id: str, timestamp: float, data: bytes, listed: TaskList, style: LogStyle) -> bytes:
    """Return `[time ]service.slot.task@node    | data` with a newline; the data as it is, whatever its bytes."""
    moment = f"{rfc3339(timestamp)} " if style.timestamps else ""
    if style.raw:
        return moment.encode() + data + b"\n"
    task = next((t for t in listed.tasks if t.id == task_id), None)
    short_id = task_id if style.no_trunc else task_id[:SHORT_ID]
    if task is None:
        origin = short_id
    else:
        name = task_name(task, listed, no_resolve=style.no_resolve)
        node = task.node_id if style.no_resolve else listed.hostname(task.node_id)
        origin = f"{name if style.no_task_ids else f'{name}.{short_id}'}@{node}"
    return f"{moment}{origin}    | ".encode() + data + b"\n"
