"""`list`, `ps`, `events`: what the containers of the command line are and use. Changes nothing."""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from pyswarm.agent_runtime.oci.cgroup import ContainerCgroup
from pyswarm.agent_runtime.oci.lifecycle import refuse_unless
from pyswarm.agent_runtime.oci.state import Container, Root
from pyswarm.agent_runtime.oci.status import CREATED, PAUSED, RUNNING, STOPPED, full_state, status_of
from pyswarm.agent_runtime.oci.usage import usage
from pyswarm.proto.errors import InvalidArgument

_COLUMNS = ("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def show_list(root: Root, *, as_json: bool, quiet: bool) -> None:
    containers = list(root.all())
    if quiet:
        for container in containers:
            print(container.id)
        return
    states = [full_state(root, container) for container in containers]
    if as_json:
        print(json.dumps(states))
        return
    rows = [_COLUMNS, *(tuple(str(state[column.lower()]) for column in _COLUMNS) for state in states)]
    _print_table(rows)


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for row in rows:
        print("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def show_processes(container: Container, *, as_json: bool, options: Sequence[str]) -> None:
    """Print the pids in the container's cgroup, or what ps(1) says of them."""
    pids = ContainerCgroup.needed(container.cgroup, "tell its processes").processes()
    if as_json:
        print(json.dumps(sorted(pids)))
        return
    done = subprocess.run(["ps", *(options or ["-ef"])], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise InvalidArgument(f"ps: {done.stderr.strip()}", remedy="Give options that ps knows.")
    head, *lines = done.stdout.splitlines()
    if "PID" not in head.split():
        raise InvalidArgument("ps shows no column PID", remedy="Give options that show it, such as -ef.")
    place = head.split().index("PID")
    print(head)
    for line in lines:
        if int(line.split()[place]) in pids:
            print(line)


def show_events(root: Root, container: Container, *, interval: str, once: bool) -> None:
    """Print a line of JSON with what the container uses, every `interval` until it stops; and one when the kernel has
    killed for want of memory."""
    refuse_unless(status_of(root, container), (CREATED, RUNNING, PAUSED), "watch", container.id)
    cgroup, seconds = ContainerCgroup.needed(container.cgroup, "tell what it uses"), seconds_of(interval)
    kills = cgroup.cgroups.oom_kills(cgroup.name)
    while True:
        _print_event("stats", container.id, usage(cgroup))
        if once:
            return
        time.sleep(seconds)
        if status_of(root, container) == STOPPED:
            return
        before, kills = kills, cgroup.cgroups.oom_kills(cgroup.name)
        if kills > before:
            _print_event("oom", container.id, None)


def _print_event(kind: str, container_id: str, data: Any) -> None:
    print(json.dumps({"type": kind, "id": container_id, **({"data": data} if data else {})}))
    sys.stdout.flush()


def seconds_of(text: str) -> float:
    """Return the length of `500ms`, `5s`, `1m`. Raises InvalidArgument."""
    number = text.rstrip("hms")
    try:
        seconds = float(number) * _UNITS[text.removeprefix(number)]
    except (ValueError, KeyError):
        seconds = 0.0
    if not 0 < seconds < 10**6:
        raise InvalidArgument(f"--interval {text!r} is no length of time", remedy="Write 5s, 500ms or 1m.")
    return seconds
