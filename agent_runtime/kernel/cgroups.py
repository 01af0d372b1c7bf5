"""Containers' cgroups: made, limited, observed, killed and removed, whichever versions the machine has.

Every container has one directory, named by its id, under one parent of ours in each hierarchy; never under the
cgroup we happen to run in. The parent is all we touch.
"""

import errno
import os
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from pyswarm.agent_runtime.kernel import small_files
from pyswarm.agent_runtime.kernel.cgroup_layout import V2_CONTROLLERS, V2_OBSERVED, Layout
from pyswarm.agent_runtime.kernel.cgroup_limits import (
    Limits,
    Setting,
    counter,
    v1_changes,
    v1_settings,
    v2_changes,
    v2_settings,
)
from pyswarm.proto.errors import FailedPrecondition

_REMOVE_SECONDS = 5.0
_FREEZE_SECONDS = 10.0
_FIRST_PAUSE_SECONDS = 0.0005


@dataclass(frozen=True)
class Cgroups:
    """All containers' cgroups under `parent`, a relative path such as `pyswarm`."""

    layout: Layout
    parent: str

    def prepare(self) -> None:
        """Make the parent in every hierarchy and hand it v2 controllers. Call once at start."""
        if Path(self.parent).is_absolute() or ".." in Path(self.parent).parts or not Path(self.parent).parts:
            raise FailedPrecondition(
                f"cgroup-parent {self.parent!r} is not a relative path",
                remedy='Write a name such as cgroup-parent = "pyswarm" in config.toml.',
            )
        for top in self.layout.hierarchies:
            (top / self.parent).mkdir(parents=True, exist_ok=True)
        if self.layout.unified:
            self._hand_down_controllers(self.layout.unified)

    def _hand_down_controllers(self, top: Path) -> None:
        """Enable, on every ancestor, what a v2 container limits; children get only what is handed down."""
        wanted = [name for name in V2_CONTROLLERS if name not in self.layout.v1]
        if not wanted:
            return
        there = (top / "cgroup.controllers").read_text().split()
        wanted += [name for name in V2_OBSERVED if name in there]
        folder = top
        for part in (*Path(self.parent).parts, None):
            control = folder / "cgroup.subtree_control"
            enabled = control.read_text().split()
            for name in wanted:
                if name not in enabled:
                    control.write_text(f"+{name}")
            if part is not None:
                folder /= part

    def create(self, name: str, limits: Limits) -> None:
        """Make the container's cgroup with its limits, replacing an empty one left behind. Raises OSError."""
        for folder in self._folders(name):
            # A v1 cpuset would need its cpus filled in first; that hierarchy is not joined.
            folder.mkdir(exist_ok=True)
        settings = v1_settings(limits) if self.layout.v1 else []
        if self.layout.unified:
            settings += [s for s in v2_settings(limits) if s.controller not in self.layout.v1]
        for _, same_file in groupby(settings, lambda each: (each.controller, each.file)):
            self._write(name, *same_file)

    def update(self, name: str, old: Limits, new: Limits) -> None:
        """Change the limits of a container's cgroup. Raises OSError."""
        for setting in v1_changes(old, new):
            if setting.controller in self.layout.v1:
                self._write(name, setting)
        for setting in v2_changes(old, new):
            if setting.controller not in self.layout.v1:
                self._write(name, setting)

    def _write(self, name: str, setting: Setting, *more: Setting) -> None:
        """Write settings of one file, one after the other."""
        top = self.layout.v1.get(setting.controller)
        if top is None and (self.layout.unified is None or self._only_in_v1(setting)):
            return
        path = (top or self.layout.unified or Path()) / self.parent / name / setting.file
        try:
            small_files.tell(path, *(each.value.encode() for each in (setting, *more)))
        except FileNotFoundError:
            if not setting.optional:
                raise

    def _only_in_v1(self, setting: Setting) -> bool:
        """Return whether this setting was written for a v1 hierarchy that is absent (or lives in v2 now)."""
        return setting in v1_settings(Limits()) and setting.controller not in V2_CONTROLLERS

    def _folders(self, name: str) -> list[Path]:
        return [top / self.parent / name for top in self.layout.hierarchies]

    def attach_files(self, name: str) -> list[Path]:
        """Return the files a process with one thread writes `0` to in order to join the container's v1 cgroups."""
        # Not cgroup.procs: that would take a lock which makes the machine wait for all its CPUs.
        return [top / self.parent / name / "tasks" for top in dict.fromkeys(self.layout.v1.values())]

    def birthplace(self, name: str) -> Path | None:
        """Return the cgroup v2 directory that the container's first process is to be cloned into, if there is one."""
        return self.layout.unified / self.parent / name if self.layout.unified else None

    def processes(self, name: str) -> set[int]:
        """Return the pids in the container's cgroup, as our pid namespace sees them."""
        found: set[int] = set()
        for folder in self._folders(name):
            try:
                found.update(int(line) for line in small_files.read(folder / "cgroup.procs").split())
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENODEV):
                    raise
        return found - {0}

    def oom_file(self, name: str) -> Path:
        """Return the file that counts the container's processes killed for its memory limit."""
        memory = self.layout.v1.get("memory")
        if memory is not None:
            return memory / self.parent / name / "memory.oom_control"
        assert self.layout.unified is not None, "memory is required of one of the two"
        return self.layout.unified / self.parent / name / "memory.events"

    def oom_kills(self, name: str) -> int:
        """Return how often the kernel killed a process of the container for its memory limit; 0 if it is gone."""
        try:
            return counter(small_files.read(self.oom_file(name)).decode(), "oom_kill")
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENODEV):
                return 0
            raise

    def notify_of_oom(self, name: str) -> int:
        """Return an eventfd, the caller's to close, that a v1 hierarchy signals when the container's memory runs out,
        and when the cgroup is removed. Raises OSError; FileNotFoundError when it is gone."""
        folder = self.oom_file(name).parent
        notified = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            with _removed_is_not_found(), self.oom_file(name).open() as control:
                (folder / "cgroup.event_control").write_text(f"{notified} {control.fileno()}")
        except BaseException:
            os.close(notified)
            raise
        return notified

    def kill(self, name: str) -> None:
        """SIGKILL every process in the container's cgroup."""
        if self.layout.unified:
            try:
                with _removed_is_not_found():
                    small_files.tell(self.layout.unified / self.parent / name / "cgroup.kill", b"1")
                    return  # whoever is in a v1 hierarchy was born in this one
            except FileNotFoundError:
                pass  # Linux before 5.14: one by one, below
        for pid in self.processes(name):
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                continue

    def freeze(self, name: str, *, frozen: bool) -> None:
        """Stop or resume every process of the container; returns when all have.

        Raises FileNotFoundError when the cgroup is gone, OSError, TimeoutError.
        """
        with _removed_is_not_found():
            if self.layout.unified:
                _freeze_v2(self.layout.unified / self.parent / name, frozen=frozen)
            else:
                _freeze_v1(self.layout.v1["freezer"] / self.parent / name, frozen=frozen)

    def is_frozen(self, name: str) -> bool:
        """Return whether the container was told to stand still; one that is gone was not."""
        if self.layout.unified:
            path = self.layout.unified / self.parent / name / "cgroup.freeze"
        else:
            path = self.layout.v1["freezer"] / self.parent / name / "freezer.self_freezing"
        try:
            return path.read_text().strip() == "1"
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENODEV):
                return False
            raise

    def remove(self, name: str) -> None:
        """Remove the container's cgroup. Its processes must be dead or dying. Blocks briefly; raises OSError."""
        for folder in self._folders(name):
            _remove_folder(folder)

    def try_remove(self, name: str) -> bool:
        """Remove the container's cgroup; return whether it is gone, which it is not if a process is in it. Does not
        wait; raises OSError."""
        for folder in self._folders(name):
            try:
                os.rmdir(folder)
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                return False
        return True

    def names(self) -> set[str]:
        """Return the containers that have a cgroup in any hierarchy."""
        found: set[str] = set()
        for top in self.layout.hierarchies:
            with os.scandir(top / self.parent) as entries:
                found.update(entry.name for entry in entries if entry.is_dir())
        return found


@contextmanager
def _removed_is_not_found() -> Iterator[None]:
    """A file opened a moment before its cgroup was removed answers ENODEV: to callers that is the same."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENODEV:
            raise FileNotFoundError(errno.ENOENT, "the cgroup was removed") from error
        raise


def _remove_folder(folder: Path) -> None:
    deadline = time.monotonic() + _REMOVE_SECONDS
    pause = _FIRST_PAUSE_SECONDS
    while True:
        try:
            os.rmdir(folder)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
        # A v1 hierarchy has no event for "the last dying task has left".
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def _freeze_v2(folder: Path, *, frozen: bool) -> None:
    deadline = time.monotonic() + _FREEZE_SECONDS
    with (folder / "cgroup.events").open() as events:
        poll = select.poll()
        poll.register(events, select.POLLPRI)
        (folder / "cgroup.freeze").write_text("1" if frozen else "0")
        while counter(events.read(), "frozen") != frozen:
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise TimeoutError(f"the processes did not stop within {_FREEZE_SECONDS:.0f} s")
            events.seek(0)


def _freeze_v1(folder: Path, *, frozen: bool) -> None:
    deadline = time.monotonic() + _FREEZE_SECONDS
    wanted, pause = "FROZEN" if frozen else "THAWED", _FIRST_PAUSE_SECONDS
    state = folder / "freezer.state"
    state.write_text(wanted)
    # A v1 hierarchy has no event for this either.
    while state.read_text().strip() != wanted:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the processes did not stop within {_FREEZE_SECONDS:.0f} s")
        time.sleep(pause)
        pause = min(pause * 2, 0.05)
