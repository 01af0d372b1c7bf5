"""`container ls`."""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from pyswarm.manager.cli.view.facts import rfc3339
from pyswarm.manager.cli.view.human import ago, length
from pyswarm.manager.cli.view.table import Row, column

CONTAINER_COLUMNS = (
    column("CONTAINER ID", "ID"),
    column("IMAGE", "Image"),
    column("COMMAND", "Command"),
    column("CREATED", "RunningFor"),
    column("STATUS", "Status"),
    column("PORTS", "Ports"),
    column("NAMES", "Names"),
)
_COMMAND_WIDTH = 20


class StoredContainer(Struct, frozen=True):
    """A container on this node, as its runtime tells it. Moments in seconds since the epoch, 0 for not yet.

    `state`: created, running, paused or exited. `health`: starting, healthy or unhealthy; "" when nobody checks it.
    """

    id: str
    image: str
    command: tuple[str, ...]
    labels: Mapping[str, str]
    state: str
    created_at: float
    started_at: float = 0.0
    finished_at: float = 0.0
    exit_code: int = 0
    health: str = ""


def container_rows(containers: Sequence[StoredContainer], *, now: float, no_trunc: bool = False) -> list[Row]:
    """Return one row for each container, the newest first."""
    newest_first = sorted(containers, key=lambda c: (-c.created_at, c.id))
    return [_row(container, now, no_trunc) for container in newest_first]


def matches(container: StoredContainer, filters: Mapping[str, Sequence[str]]) -> bool:
    """Return whether one value of every filter fits, and of `label` all, as in Docker."""
    names = all(any(text in container.id for text in filters.get(key, [""])) for key in ("id", "name"))
    states = filters.get("status", [container.state])
    images = filters.get("ancestor", [container.image])
    healths = filters.get("health", [container.health or "none"])
    labels = all(_has_label(container.labels, text) for text in filters.get("label", ()))
    is_as_well = (container.health or "none") in healths
    return names and container.state in states and container.image in images and is_as_well and labels


def _has_label(labels: Mapping[str, str], text: str) -> bool:
    key, equals, value = text.partition("=")
    return key in labels and (not equals or labels[key] == value)


def status_of(container: StoredContainer, now: float) -> str:
    if container.state == "exited":
        return f"Exited ({container.exit_code}) {ago(container.finished_at, now)}"
    if container.state == "created":
        return "Created"
    return f"Up {length(max(0.0, now - container.started_at))}{_remark(container)}"


def _remark(container: StoredContainer) -> str:
    if container.state == "paused":
        return " (Paused)"
    if container.health == "starting":
        return " (health: starting)"
    return f" ({container.health})" if container.health else ""


def _row(container: StoredContainer, now: float, no_trunc: bool) -> Row:
    command = " ".join(container.command)
    if not no_trunc and len(command) > _COMMAND_WIDTH:
        command = f"{command[: _COMMAND_WIDTH - 1]}…"
    return {
        "ID": container.id if no_trunc else container.id[:12],
        "Image": container.image,
        "Command": f'"{command}"',
        "CreatedAt": rfc3339(container.created_at),
        "RunningFor": ago(container.created_at, now),
        "State": container.state,
        "Status": status_of(container, now),
        "Ports": "",
        "Names": container.id,
        "Labels": ",".join(f"{key}={value}" for key, value in sorted(container.labels.items())),
    }
