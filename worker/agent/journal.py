"""What the agent must remember over its own death: the tasks it accepted, what to run for them, and how far they got.

One file per task, written aside, synced and renamed, so that tasks go on after a restart with no manager in reach.
"""

import os
from contextlib import suppress
from pathlib import Path

from msgspec import Struct, json

from pyswarm.proto.log import get_logger
from pyswarm.proto.model.objects import Task, TaskStatus
from pyswarm.proto.model.spec import PortConfig, TaskSpec

log = get_logger(__name__)


class Accepted(Struct, frozen=True, omit_defaults=True):
    """A task as it was assigned, and the status that was reached here (which may not have been reported yet)."""

    task: Task
    spec: TaskSpec
    ports: tuple[PortConfig, ...] = ()
    service_name: str = ""
    status: TaskStatus = TaskStatus()


class Journal:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def load(self) -> list[Accepted]:
        """Return every accepted task, sorted by id. A file that cannot be read is named in the log and put aside."""
        found = []
        for path in sorted(self._directory.glob("*.json")):
            try:
                found.append(json.decode(path.read_bytes(), type=Accepted))
            except ValueError as error:
                log.error("a journal entry is damaged: its task starts anew when assigned", file=path, error=error)
                path.rename(path.with_suffix(".damaged"))
        return found

    def write(self, accepted: Accepted) -> None:
        path = self._directory / f"{accepted.task.id}.json"
        aside = path.with_suffix(".new")
        with aside.open("wb") as file:
            file.write(json.encode(accepted))
            file.flush()
            os.fsync(file.fileno())
        aside.rename(path)

    def remove(self, task_id: str) -> None:
        with suppress(FileNotFoundError):
            (self._directory / f"{task_id}.json").unlink()
