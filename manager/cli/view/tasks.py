"""`service ps`, `node ps`, `stack ps`: tasks under their slot, the newest first, its history below it."""

import re
from typing import Any

from pyswarm.manager.cli.records import TaskList
from pyswarm.manager.cli.view.human import ago
from pyswarm.manager.cli.view.ports import ports_text
from pyswarm.manager.cli.view.table import Row, column
from pyswarm.proto.model.objects import Task
from pyswarm.proto.model.states import PublishMode, TaskState

TASK_COLUMNS = (
    column("ID", "ID"),
    column("NAME", "Name"),
    column("IMAGE", "Image"),
    column("NODE", "Node"),
    column("DESIRED STATE", "DesiredState"),
    column("CURRENT STATE", "CurrentState"),
    column("ERROR", "Error"),
    column("PORTS", "Ports"),
)
SHORT_ID = 12
_ERROR_LENGTH = 30
_HISTORY = " \\_ "
_NUMBER = re.compile(r"(\d+)")


def task_rows(listed: TaskList, *, now: float, no_trunc: bool = False, no_resolve: bool = False) -> list[Row]:
    """Return the tasks as rows, in the order of their names; a slot's older tasks follow its newest."""
    rows: list[Row] = []
    previous = ""
    for task in sorted(listed.tasks, key=lambda t: (natural(task_name(t, listed)), -t.created_at, t.id)):
        name = task_name(task, listed, no_resolve=no_resolve)
        rows.append(_row(task, _HISTORY + name if name == previous else name, listed, now, no_trunc, no_resolve))
        previous = name
    return rows


def task_name(task: Task, listed: TaskList, *, no_resolve: bool = False) -> str:
    """Return `<service>.<slot>`, or `<service>.<node id>` for a task of a global service."""
    service = listed.services.get(task.service_id)
    revision = listed.revisions.get(task.revision_id)
    known = service.spec.name if service else revision.service_name if revision else ""
    return f"{task.service_id if no_resolve else known or task.service_id}.{task.slot or task.node_id}"


def task_error(task: Task) -> str:
    """Return why a task ended badly, or cannot start; "" while nothing is wrong."""
    container = task.status.container_status
    if task.status.err or container is None or task.state is not TaskState.FAILED:
        return task.status.err
    return f"task: non-zero exit ({container.exit_code})" + (": out of memory" if container.oom_killed else "")


def state_name(state: TaskState) -> str:
    return state.name.title()


def natural(name: str) -> tuple[Any, ...]:
    """Sort key that puts web.2 before web.10; text stands at even places, so that keys compare."""
    return tuple(int(part) if index % 2 else part for index, part in enumerate(_NUMBER.split(name)))


def _row(task: Task, name: str, listed: TaskList, now: float, no_trunc: bool, no_resolve: bool) -> Row:
    error = task_error(task)
    if len(error) > _ERROR_LENGTH and not no_trunc:
        error = error[: _ERROR_LENGTH - 1] + "…"
    return {
        "ID": task.id if no_trunc else task.id[:SHORT_ID],
        "Name": name,
        "Image": listed.image(task),
        "Node": task.node_id if no_resolve else listed.hostname(task.node_id),
        "DesiredState": state_name(task.desired_state),
        "CurrentState": f"{state_name(task.state)} {ago(task.status.timestamp or task.created_at, now)}",
        "Error": f'"{error}"' if error else "",
        "Ports": _host_ports(task, listed),
    }


def _host_ports(task: Task, listed: TaskList) -> str:
    revision = listed.revisions.get(task.revision_id)
    if revision is None or task.state is not TaskState.RUNNING:
        return ""
    return ports_text([port for port in revision.ports if port.publish_mode is PublishMode.HOST])
