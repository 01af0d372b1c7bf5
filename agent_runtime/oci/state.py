"""What the command line remembers of a container: one directory under `--root`, written whole or not at all.

`state.json` says what it is, `config.json` is the bundle's as it was at create, and two FIFOs connect `start` to the
child that waits: `go`, and `report`, on which it tells which operation failed. The status is not stored: it is what
the kernel says.
"""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec

from pyswarm.agent_runtime.bundle import runtime_spec
from pyswarm.agent_runtime.bundle.runtime_spec import Spec
from pyswarm.agent_runtime.kernel.process import ProcessId
from pyswarm.proto.errors import AlreadyExists, InvalidArgument, NotFound

_ID = re.compile(r"[\w+.-]{1,1024}", re.ASCII)


class Step(msgspec.Struct, frozen=True):
    """An operation of the start program that is still to come, for `start` to explain a failure."""

    call: str
    label: str
    field: str


class Container(msgspec.Struct, frozen=True):
    """A container as it was created. `cgroup` is its path in every hierarchy, relative to the top."""

    id: str
    bundle: str
    rootfs: str
    pid: int
    start_ticks: int
    created: str
    cgroup: str
    owner: str = ""
    annotations: dict[str, str] = {}
    first_step: int = 0
    steps: tuple[Step, ...] = ()

    @property
    def process(self) -> ProcessId:
        return ProcessId(self.pid, self.start_ticks)


class Root:
    """The directory of all containers."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def filters(self) -> Path:
        """Where compiled seccomp filters are kept."""
        return self.path / ".filters"

    def folder(self, container_id: str) -> Path:
        return self.path / container_id

    def claim(self, container_id: str) -> Path:
        """Take an id; returns its new directory. Raises InvalidArgument, AlreadyExists."""
        if not _ID.fullmatch(container_id) or container_id.startswith("."):
            raise InvalidArgument(
                f"{container_id!r} is no container id", remedy="Use letters, digits, `_`, `+`, `-` and `.`."
            )
        self.path.mkdir(parents=True, exist_ok=True, mode=0o711)
        try:
            self.folder(container_id).mkdir(mode=0o700)
        except FileExistsError:
            raise AlreadyExists(
                f"container with id {container_id} already exists", remedy=f"Delete it: `delete {container_id}`."
            ) from None
        return self.folder(container_id)

    def save(self, container: Container) -> None:
        aside = self.folder(container.id) / "state.json.new"
        aside.write_bytes(msgspec.json.encode(container))
        aside.rename(aside.with_name("state.json"))

    def load(self, container_id: str) -> Container:
        """Raises NotFound, also for one that another process is creating."""
        try:
            if not _ID.fullmatch(container_id):
                raise FileNotFoundError
            return msgspec.json.decode((self.folder(container_id) / "state.json").read_bytes(), type=Container)
        except FileNotFoundError:
            raise NotFound(
                f"container does not exist: {container_id}", remedy="`list` shows those there are."
            ) from None

    def save_config(self, container_id: str, spec: Spec) -> None:
        (self.folder(container_id) / "config.json").write_bytes(runtime_spec.encode(spec))

    def config(self, container_id: str) -> Spec:
        return runtime_spec.decode((self.folder(container_id) / "config.json").read_bytes())

    def all(self) -> Iterator[Container]:
        if not self.path.is_dir():
            return
        for folder in sorted(self.path.iterdir()):
            if (folder / "state.json").exists():
                yield self.load(folder.name)

    def forget(self, container_id: str) -> None:
        shutil.rmtree(self.folder(container_id))

    def go(self, container_id: str) -> Path:
        """The FIFO on which a created container waits; it is gone once it was started."""
        return self.folder(container_id) / "go"

    def report(self, container_id: str) -> Path:
        return self.folder(container_id) / "report"


def make_fifo(path: Path) -> None:
    os.mkfifo(path, 0o600)
