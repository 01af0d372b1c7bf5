"""The cgroup of one container of the command line: its place, its limits, who is in it.

The path is the config.json's. An absolute one is taken from the top of every hierarchy; a relative one, and none,
from a parent of our own, never from the cgroup we happen to run in.
"""

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pyswarm.agent_runtime.bundle import cgroup_files
from pyswarm.agent_runtime.bundle.spec_linux import Resources
from pyswarm.agent_runtime.bundle.validate import InvalidConfig
from pyswarm.agent_runtime.kernel import cgroup_layout, device_filter
from pyswarm.agent_runtime.kernel.cgroup_limits import DEVICES_ALLOWED, Setting
from pyswarm.agent_runtime.kernel.cgroups import Cgroups
from pyswarm.agent_runtime.oci.rootless import in_user_namespace
from pyswarm.proto.errors import FailedPrecondition

OWN_PARENT = "pyswarm-oci"
_V2_HANDED_DOWN = ("cpu", "cpuset", "io", "memory", "pids", "hugetlb", "rdma")


def path_of(wanted: str, container_id: str) -> str:
    """Return the container's path below the top of every hierarchy."""
    if wanted.startswith("/"):
        path = PurePosixPath(wanted)
        parts = path.parts[1:]
    else:
        parts = (OWN_PARENT, *PurePosixPath(wanted or container_id).parts)
    if not parts:
        raise InvalidConfig("linux.cgroupsPath", "is the root of the hierarchy")
    return "/".join(parts)


@dataclass(frozen=True)
class ContainerCgroup:
    cgroups: Cgroups
    name: str

    @classmethod
    def of(cls, path: str) -> "ContainerCgroup":
        """Return the cgroup at a path; none at "": then nothing can be limited, counted or paused."""
        if not path:
            return cls(Cgroups(cgroup_layout.Layout({}, None), ""), "")
        parent, _, name = path.rpartition("/")
        return cls(Cgroups(cgroup_layout.detect(cgroup_layout.V1_EVERY_CONTROLLER), parent), name)

    @classmethod
    def needed(cls, path: str, verb: str) -> "ContainerCgroup":
        """Return the cgroup at a path. Raises FailedPrecondition when there is none."""
        if not path:
            raise FailedPrecondition(
                f"cannot {verb}: the container has no cgroup",
                remedy="Create it where the user has a delegated subtree of cgroup v2: systemd-run --user --scope "
                "-p Delegate=yes.",
            )
        return cls.of(path)

    @property
    def path(self) -> str:
        return f"{self.cgroups.parent}/{self.name}" if self.cgroups.parent else self.name

    def folders(self) -> dict[str, Path]:
        """Return the container's directory by the mount point's name, and the v2 one under ""."""
        layout = self.cgroups.layout
        found = {top.name: top / self.path for top in dict.fromkeys(layout.v1.values())}
        if layout.unified:
            found[""] = layout.unified / self.path
        return found

    def make(self, resources: Resources) -> None:
        """Make it and set its limits. Raises InvalidConfig, SwarmError, OSError; what was made is the caller's to
        remove."""
        layout = self.cgroups.layout
        if not layout.hierarchies:
            return
        for top in layout.hierarchies:
            folder = top
            for part in PurePosixPath(self.path).parts:
                if top == layout.unified:
                    _hand_down(folder)
                folder /= part
                folder.mkdir(exist_ok=True)
                if top == layout.v1.get("cpuset"):
                    _inherit_cpus(folder)
        self.apply(resources)
        self._default_devices(resources)

    def apply(self, resources: Resources) -> None:
        """Write limits. Raises InvalidConfig where this machine cannot have one, OSError."""
        layout = self.cgroups.layout
        settings = [
            s for s in cgroup_files.v1_files(resources, memory_before=self._memory()) if s.controller in layout.v1
        ]
        settings += [s for s in cgroup_files.v2_files(resources) if not self._is_v1s(s.controller)]
        for setting in settings:
            self._write(setting)
        for key in resources.unified:
            if self._is_v1s(key.partition(".")[0]):
                raise InvalidConfig(f"linux.resources.unified.{key}", "this controller is in a v1 hierarchy here")
        asked = {s.controller for s in cgroup_files.v1_files(resources) if not s.optional}
        known = {*layout.v1, *self._v2_controllers(), "blkio" if self._has_io() else "", "devices"}
        for controller in sorted(asked - known):
            raise InvalidConfig("linux.resources", f"this machine has no cgroup controller {controller}")

    def _default_devices(self, resources: Resources) -> None:
        if not resources.devices:
            return
        if "devices" in self.cgroups.layout.v1:
            for setting in cgroup_files.default_devices():
                self._write(setting)
        elif self.cgroups.layout.unified and not in_user_namespace():  # nobody can make a device there
            rules = [
                device_filter.Rule(
                    rule.allow, rule.type, None if rule.major < 0 else rule.major,
                    None if rule.minor < 0 else rule.minor, rule.access or "rwm",
                )
                for rule in resources.devices
            ]  # fmt: skip
            device_filter.attach(self.cgroups.layout.unified / self.path, [*rules, *_default_rules()])

    def _is_v1s(self, controller: str) -> bool:
        return {"io": "blkio"}.get(controller, controller) in self.cgroups.layout.v1

    def _v2_controllers(self) -> Sequence[str]:
        unified = self.cgroups.layout.unified
        return (unified / "cgroup.controllers").read_text().split() if unified else ()

    def _has_io(self) -> bool:
        return "io" in self._v2_controllers()

    def _memory(self) -> int:
        """Return the limit of memory and swap in force in v1, -1 for none."""
        top = self.cgroups.layout.v1.get("memory")
        try:
            value = int((top / self.path / "memory.memsw.limit_in_bytes").read_text()) if top else -1
        except FileNotFoundError:
            return -1
        return -1 if value > 2**62 else value

    def _write(self, setting: Setting) -> None:
        top = self.cgroups.layout.v1.get(setting.controller) or self.cgroups.layout.unified
        if top is None:
            return
        path = top / self.path / setting.file
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            if setting.optional:
                return
            raise InvalidConfig("linux.resources", f"this machine's cgroups have no {setting.file}") from None
        try:
            os.write(descriptor, setting.value.encode())
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise InvalidConfig("linux.resources", f"cannot write {setting.value!r} to {path}: {reason}") from error
        finally:
            os.close(descriptor)

    def is_frozen(self) -> bool:
        layout = self.cgroups.layout
        return bool(layout.unified or "freezer" in layout.v1) and self.cgroups.is_frozen(self.name)

    def freeze(self, *, frozen: bool) -> None:
        layout = self.cgroups.layout
        if not layout.unified and "freezer" not in layout.v1:
            raise FailedPrecondition("this machine has no freezer cgroup", remedy="Mount cgroup v2, or the v1 freezer.")
        self.cgroups.freeze(self.name, frozen=frozen)

    def processes(self) -> set[int]:
        found: set[int] = set()
        for folder in self.folders().values():
            for inner in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
                try:
                    found.update(int(line) for line in (inner / "cgroup.procs").read_text().split())
                except OSError as error:
                    if error.errno not in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
                        raise
        return found - {0}

    def remove(self) -> None:
        """Remove it and what the container made below it. Raises OSError while processes are left."""
        for folder in self.folders().values():
            below = sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True)
            for inner in below:
                os.rmdir(inner)
        self.cgroups.remove(self.name)
        self._remove_own_parent()

    def _remove_own_parent(self) -> None:
        """Remove what lies between a relative path and where it began, once nobody else is in it."""
        parents = PurePosixPath(self.path).parents
        names = [parent.name for parent in parents]
        if OWN_PARENT not in names:
            return
        for top in self.cgroups.layout.hierarchies:
            for parent in parents[: names.index(OWN_PARENT) + 1]:
                try:
                    os.rmdir(top / parent)
                except OSError as error:  # in use by another container, or gone with one
                    if error.errno not in (errno.EBUSY, errno.ENOTEMPTY, errno.ENOENT):
                        raise


def _hand_down(folder: Path) -> None:
    """Let children of a v2 directory have controllers. Raises FailedPrecondition when processes are in the way."""
    there = (folder / "cgroup.controllers").read_text().split()
    enabled = (folder / "cgroup.subtree_control").read_text().split()
    for name in _V2_HANDED_DOWN:
        # What lies above a delegated subtree is not ours to change: then the limit's file is missing.
        if name in there and name not in enabled and os.access(folder / "cgroup.subtree_control", os.W_OK):
            try:
                (folder / "cgroup.subtree_control").write_text(f"+{name}")
            except OSError as error:
                raise FailedPrecondition(
                    f"cannot hand the controller {name} down from {folder}: {os.strerror(error.errno or 0)}",
                    remedy="Give another linux.cgroupsPath: a v2 cgroup with processes cannot have limited children.",
                ) from error


def _inherit_cpus(folder: Path) -> None:
    """Give a new v1 cpuset its parent's CPUs: without any, nothing can be put into it."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not (folder / name).read_text().strip():
            (folder / name).write_text((folder.parent / name).read_text().strip())


def _default_rules() -> list[device_filter.Rule]:
    rules = []
    for text in DEVICES_ALLOWED:
        kind, numbers, access = text.split()
        major, minor = (None if part == "*" else int(part) for part in numbers.split(":"))
        rules.append(device_filter.Rule(True, kind, major, minor, access))
    return rules
