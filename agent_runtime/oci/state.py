"""What the command line remembers of a container: one directory under `--root`, written whole or not at all.

`state.json` says what it is, `config.json` is the bundle's as it was at create, and two FIFOs connect `start` to the
child that waits: `go`, and `report`, on which it tells which operation failed. The status is not stored: it is what
the kernel says.

Before there is a `state.json`, `claim.json` says what is being created, and the creator holds a lock on it: one that
can be had was abandoned. It is a lock of the process, which no child inherits.
"""

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
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

    @contextmanager
    def claim(self, container: Container) -> Iterator[Path]:
        """Take an id, and hold it; yields its new directory. Raises InvalidArgument, AlreadyExists."""
        if not is_id(container.id):
            raise InvalidArgument(
                f"{container.id!r} is no container id", remedy="Use letters, digits, `_`, `+`, `-` and `.`."
            )
        self.path.mkdir(parents=True, exist_ok=True, mode=0o711)
        with self._alone():
            try:
                self.folder(container.id).mkdir(mode=0o700)
            except FileExistsError:
                raise AlreadyExists(
                    f"container with id {container.id} already exists", remedy=f"Delete it: `delete {container.id}`."
                ) from None
            held = os.open(self._claim(container.id), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.lockf(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(held, msgspec.json.encode(container))
        try:
            yield self.folder(container.id)
        finally:
            os.close(held)

    @contextmanager
    def abandoned(self, container_id: str) -> Iterator[Container | None]:
        """Hold an id whose creator was killed before it was done; yields what it was creating, None: there is none."""
        held = -1
        if is_id(container_id) and self.folder(container_id).is_dir():
            with self._alone():
                held = self._take_abandoned(container_id)
        try:
            yield None if held < 0 else _decode_claim(container_id, os.pread(held, os.fstat(held).st_size, 0))
        finally:
            if held >= 0:
                os.close(held)

    def _take_abandoned(self, container_id: str) -> int:
        """Return the locked descriptor of a claim that nobody holds, -1 for none."""
        if (self.folder(container_id) / "state.json").exists():
            return -1
        try:
            # A creator that was killed between its first two steps has no file yet.
            held = os.open(self._claim(container_id), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            return -1
        try:
            fcntl.lockf(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(held)
            return -1
        if (self.folder(container_id) / "state.json").exists():
            os.close(held)
            return -1  # it was done a moment ago
        return held

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold off everybody else who makes claims or looks at them, for a moment."""
        descriptor = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _claim(self, container_id: str) -> Path:
        return self.folder(container_id) / "claim.json"

    def hooks_begun(self, container_id: str) -> Path:
        """A file that is there once a hook may have run."""
        return self.folder(container_id) / "hooks-begun"

    def save(self, container: Container) -> None:
        aside = self.folder(container.id) / "state.json.new"
        aside.write_bytes(msgspec.json.encode(container))
        aside.rename(aside.with_name("state.json"))

    def load(self, container_id: str) -> Container:
        """Raises NotFound, also for one that another process is creating."""
        try:
            if not is_id(container_id):
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
            try:
                yield self.load(folder.name)
            except NotFound:
                continue  # being created, or deleted a moment ago

    def forget(self, container_id: str) -> None:
        shutil.rmtree(self.folder(container_id))

    def go(self, container_id: str) -> Path:
        """The FIFO on which a created container waits; it is gone once it was started."""
        return self.folder(container_id) / "go"

    def report(self, container_id: str) -> Path:
        return self.folder(container_id) / "report"


def is_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None and not text.startswith(".")


def _decode_claim(container_id: str, content: bytes) -> Container:
    """An empty or torn claim is that of a creator that had made nothing else yet."""
    try:
        return msgspec.json.decode(content, type=Container)
    except msgspec.DecodeError:
        return Container(id=container_id, bundle="", rootfs="", pid=0, start_ticks=0, created="", cgroup="")


def make_fifo(path: Path) -> None:
    os.mkfifo(path, 0o600)
