"""What the agent must remember over its own death: the tasks it accepted, what to run for them, and how far they got.

One file to which a line is added for whatever happens to a task, so that tasks go on after a restart with no manager in
reach. A line outlives this process as soon as it was written. It outlives the machine once it is on the disk, which
tasks that start together wait for together (`synced`). When the file holds far more than what still counts, it is
written anew, aside, and renamed.

A line is a JSON object: `accepted` begins a task or changes what is wanted of it, `status` says how far the task `id`
got, and an `id` alone that it is gone.
"""

import asyncio
import os
from pathlib import Path

from msgspec import Struct, json
from msgspec.structs import replace

from pyswarm.proto.certificate_files import sync_directory
from pyswarm.proto.log import get_logger
from pyswarm.proto.model.objects import Task, TaskStatus
from pyswarm.proto.model.spec import PortConfig, TaskSpec
from pyswarm.worker.agent.turns import SharedTurns

log = get_logger(__name__)

GARBAGE_BYTES_MAX = 4 * 1024 * 1024
"""How much the file may grow before it is written anew; more when what still counts is more."""


class Accepted(Struct, frozen=True, omit_defaults=True):
    """A task as it was assigned, and the status that was reached here (which may not have been reported yet)."""

    task: Task
    spec: TaskSpec
    ports: tuple[PortConfig, ...] = ()
    service_name: str = ""
    status: TaskStatus = TaskStatus()


class _Line(Struct, frozen=True, omit_defaults=True):
    id: str
    accepted: Accepted | None = None
    status: TaskStatus | None = None


class Journal:
    """The file `tasks.log` in `directory`. Methods that write raise OSError when the disk refuses."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = directory / "tasks.log"
        self._live = _read(self._path)
        self._file = self._written_anew()
        self._syncs = SharedTurns(self._sync)

    def load(self) -> list[Accepted]:
        """Return every accepted task, sorted by id."""
        return [self._live[task_id] for task_id in sorted(self._live)]

    def write(self, accepted: Accepted) -> None:
        """Remember a task as it is now."""
        known = self._live.get(accepted.task.id)
        self._live[accepted.task.id] = accepted
        if known is not None and replace(known, status=accepted.status) == accepted:
            self._append(_Line(accepted.task.id, status=accepted.status))
        else:
            self._append(_Line(accepted.task.id, accepted=accepted))

    def remove(self, task_id: str) -> None:
        if self._live.pop(task_id, None) is not None:
            self._append(_Line(task_id))

    async def synced(self) -> None:
        """Wait until everything written so far is on the disk."""
        await self._syncs.outcome()

    def close(self) -> None:
        os.close(self._file)

    def _append(self, line: _Line) -> None:
        self._size += _write(self._file, json.encode(line) + b"\n")

    async def _sync(self) -> None:
        # Of this file only what is new: no other turn is under way, so nobody replaces it meanwhile.
        await asyncio.to_thread(os.fdatasync, self._file)
        if self._size > max(GARBAGE_BYTES_MAX, 2 * self._size_anew):
            old, self._file = self._file, self._written_anew()
            os.close(old)

    def _written_anew(self) -> int:
        """Write what still counts to a file of its own, put it in place, and return its descriptor."""
        aside = self._path.with_suffix(".new")
        file = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        lines = b"".join(json.encode(_Line(a.task.id, accepted=a)) + b"\n" for a in self.load())
        self._size = self._size_anew = _write(file, lines)
        os.fsync(file)
        aside.rename(self._path)
        sync_directory(self._path.parent)
        return file


def _read(path: Path) -> dict[str, Accepted]:
    """Return the tasks that a journal holds. A line that cannot be read is named in the log.

    After a power cut the last lines may be torn or missing: nothing was done on their account that may not be repeated.
    """
    live: dict[str, Accepted] = {}
    if not path.exists():
        return live
    decoder = json.Decoder(_Line)
    for number, text in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            line = decoder.decode(text)
        except ValueError as error:
            log.error("a line of the journal is damaged", file=path, line=number, error=error)
            continue
        if line.accepted is not None:
            live[line.id] = line.accepted
        elif line.status is None:
            live.pop(line.id, None)
        elif line.id in live:
            live[line.id] = replace(live[line.id], status=line.status)
    return live


def _write(file: int, data: bytes) -> int:
    """Write all of `data`; return its length."""
    left = memoryview(data)
    while left:
        left = left[os.write(file, left) :]
    return len(data)
