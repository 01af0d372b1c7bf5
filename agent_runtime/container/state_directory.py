"""Containers on disk: one directory each, there whole or not at all.

    <containers>/<id>/config.pb       the request          container.json  what creating fixed
                      process.json    by the spawner: it was cloned         exit.json  by the spawner: it ended
                      outcome.json    by the daemon: its end as reported; nothing changes afterwards
                      limits.pb       limits that were updated since
                      oom-kills       how many kills for memory were told
                      config.json     the OCI spec it was started from
                      upper/ work/    its writable layer    stdin stdout stderr  FIFOs    log/  its output

Names with a leading dot are halves: being made, or being removed. Both are thrown away at start.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TypeVar

import msgspec
from google.protobuf.message import DecodeError

from pyswarm.agent_runtime.container.record import Created, Outcome, Record
from pyswarm.agent_runtime.container.spawner_protocol import EXIT_FILE, PROCESS_FILE
from pyswarm.agent_runtime.kernel import small_files
from pyswarm.agent_runtime.kernel.process import ProcessId
from pyswarm.agent_runtime.kernel.top_directory import mark_top_directory
from pyswarm.agent_runtime.kernel.trees import remove_tree
from pyswarm.proto.log import get_logger
from pyswarm.proto.v1 import runtime_pb2 as pb
from pyswarm.proto.v1 import types_pb2 as types

log = get_logger(__name__)

T = TypeVar("T")

_LIMITS_FILE = "limits.pb"
_OOM_KILLS_FILE = "oom-kills"


class ProcessRecord(msgspec.Struct, frozen=True):
    """What the spawner wrote when it cloned the container. `machine`: kernel.process.machine_identity()."""

    pid: int
    start_ticks: int
    started_at: float
    machine: str

    @property
    def process(self) -> ProcessId:
        return ProcessId(self.pid, self.start_ticks)


class ExitRecord(msgspec.Struct, frozen=True):
    """What the spawner wrote when the container ended; `failure` (operation, errno) if it never reached execve."""

    status: int
    finished_at: float
    failure: tuple[int, int] | None = None


@dataclass(frozen=True)
class Found:
    """A container as the disk tells it."""

    record: Record
    process: ProcessRecord | None
    exit: ExitRecord | None


@dataclass(frozen=True)
class StateDirectory:
    root: Path
    _discarded: Iterator[int] = field(default_factory=count, init=False, compare=False)
    """Numbers what is discarded: a name may be used again before the last container that had it is erased."""

    def path(self, container_id: str) -> Path:
        return self.root / container_id

    def prepare(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True, mode=0o711)
        mark_top_directory(self.root)

    def create(self, record: Record) -> None:
        """Write a new container. It exists once its directory is renamed into place."""
        aside = f"{self.root}/.new-{record.id}"
        try:
            os.mkdir(aside, 0o700)
        except FileExistsError:
            shutil.rmtree(aside)
            os.mkdir(aside, 0o700)
        small_files.write_new(f"{aside}/config.pb", record.config.SerializeToString())
        small_files.write_new(f"{aside}/container.json", msgspec.json.encode(record.created))
        for name in ("upper", "work"):
            os.mkdir(f"{aside}/{name}")
        # The upper layer's mode is that of the container's /: the daemon's umask must not shut users out of it.
        os.chmod(f"{aside}/upper", 0o755)
        for name in ("stdout", "stderr", *(("stdin",) if record.config.open_stdin else ())):
            os.mkfifo(f"{aside}/{name}", 0o600)
        os.rename(aside, self.path(record.id))

    def write_outcome(self, container_id: str, outcome: Outcome) -> None:
        self._replace(container_id, "outcome.json", msgspec.json.encode(outcome))

    def write_limits(self, container_id: str, limits: types.Resources) -> None:
        self._replace(container_id, _LIMITS_FILE, limits.SerializeToString())

    def write_oom_kills(self, container_id: str, oom_kills: int) -> None:
        self._replace(container_id, _OOM_KILLS_FILE, str(oom_kills).encode())

    def _replace(self, container_id: str, name: str, content: bytes) -> None:
        path = self.path(container_id) / name
        aside = f"{path}.new"
        small_files.write_new(aside, content)
        os.rename(aside, path)

    def write_spec(self, container_id: str, spec: bytes) -> None:
        small_files.write_new(self.path(container_id) / "config.json", spec)

    def exit_record(self, container_id: str) -> ExitRecord | None:
        return _read(self.path(container_id) / EXIT_FILE, ExitRecord)

    def process_record(self, container_id: str) -> ProcessRecord | None:
        return _read(self.path(container_id) / PROCESS_FILE, ProcessRecord)

    def discard(self, container_id: str) -> str:
        """Take a container away: it is gone at once, even if we die now. Return what is left, to be erased."""
        aside = f"{self.root}/.dead-{next(self._discarded)}-{container_id}"
        os.rename(self.path(container_id), aside)
        return aside

    def erase(self, discarded: str) -> None:
        """Remove all that a discarded container has left. Blocks: may be large. Raises OSError."""
        remove_tree(discarded)

    def load_all(self) -> list[Found]:
        """Return every container, and throw away halves and what cannot be read."""
        found = []
        for path in sorted(self.root.iterdir()):
            container = None if path.name.startswith(".") else self._load(path)
            if container is None:
                log.warning("removing what is left of a container", directory=path.name)
                shutil.rmtree(path)
            else:
                found.append(container)
        return found

    def _load(self, path: Path) -> Found | None:
        try:
            config = pb.ContainerConfig.FromString((path / "config.pb").read_bytes())
            created = msgspec.json.decode((path / "container.json").read_bytes(), type=Created)
            updated = path / _LIMITS_FILE
            limits = types.Resources.FromString(updated.read_bytes()) if updated.exists() else None
        except (OSError, DecodeError, msgspec.DecodeError) as error:
            log.error("cannot read a container", directory=path.name, error=error)
            return None
        process = _read(path / PROCESS_FILE, ProcessRecord)
        outcome = _read(path / "outcome.json", Outcome)
        record = Record(
            path.name,
            config,
            created,
            process=process.process if process else None,
            started_at=process.started_at if process else 0.0,
            outcome=outcome,
            limits=limits,
            oom_kills=_read(path / _OOM_KILLS_FILE, int) or 0,
        )
        return Found(record, process, _read(path / EXIT_FILE, ExitRecord))


def _read(path: Path, kind: type[T]) -> T | None:
    """Return a record, or None if it is missing; one torn by a power cut counts as missing."""
    try:
        return msgspec.json.decode(small_files.read(path), type=kind)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        log.warning("ignoring a torn record", path=path, error=error)
        return None
