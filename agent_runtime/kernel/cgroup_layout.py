"""Which cgroup hierarchies this machine has: v1, v2 or both (hybrid). Pure but for reading mountinfo."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pyswarm.proto.errors import FailedPrecondition

V1_CONTROLLERS = ("cpu", "cpuacct", "memory", "pids", "devices", "freezer")
"""v1 hierarchies a container joins, where they exist; each one costs a directory and an attach."""
V1_EVERY_CONTROLLER = (*V1_CONTROLLERS, "cpuset", "blkio", "hugetlb", "net_cls", "net_prio", "perf_event", "rdma")
"""Those a config.json may set something in."""
V2_CONTROLLERS = ("cpu", "memory", "pids")
V2_OBSERVED = ("io",)
"""Handed down where they exist, for what they count; nothing is limited by them."""
REQUIRED = ("cpu", "memory", "pids")


@dataclass(frozen=True)
class Layout:
    """`v1` maps a controller to the mount point of its hierarchy; `unified` is the v2 mount point, if any."""

    v1: dict[str, Path]
    unified: Path | None

    @property
    def version(self) -> str:
        if not self.v1:
            return "v2"
        return "hybrid" if self.unified else "v1"

    @property
    def hierarchies(self) -> tuple[Path, ...]:
        """Mount points a container gets a directory in, each once: cpu and cpuacct often share one."""
        tops = dict.fromkeys(self.v1.values())
        if self.unified:
            tops[self.unified] = None
        return tuple(tops)


def parse_mountinfo(
    lines: Iterable[str], *, v2_controllers: Iterable[str], v1_controllers: Iterable[str] = V1_CONTROLLERS
) -> Layout:
    """Return the layout that /proc/self/mountinfo shows. `v2_controllers` are those of the v2 root.

    A controller that v2 has is used there. With a v2 hierarchy the v1 freezer is not needed: v2 kills and freezes.
    """
    v1: dict[str, Path] = {}
    unified: Path | None = None
    for line in lines:
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        point = Path(before.split()[4].encode().decode("unicode_escape"))
        if kind == "cgroup2":
            unified = unified or point
        elif kind == "cgroup":
            for controller in v1_controllers:
                if controller in options.split(","):
                    v1.setdefault(controller, point)
    in_v2 = set(v2_controllers) if unified else set()
    v1 = {name: point for name, point in v1.items() if name not in in_v2 and not (name == "freezer" and unified)}
    if unified and not set(v1) - {"freezer"}:
        v1 = {}
    missing = [name for name in REQUIRED if name not in v1 and name not in in_v2]
    if missing:
        raise FailedPrecondition(
            f"this machine has no cgroup controller {', '.join(missing)}",
            remedy="Mount the cgroup hierarchies (cgroup v2 on /sys/fs/cgroup), or enable the controllers at boot.",
        )
    return Layout(v1, unified)


def detect(v1_controllers: Iterable[str] = V1_CONTROLLERS) -> Layout:
    lines = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if not _is_hidden(line)]
    points = [line.split()[4] for line in lines if line.partition(" - ")[2].startswith("cgroup2 ")]
    controllers = Path(points[0], "cgroup.controllers").read_text().split() if points else []
    return parse_mountinfo(lines, v2_controllers=controllers, v1_controllers=v1_controllers)


def _is_hidden(line: str) -> bool:
    """Return whether a mount of cgroup v2 cannot be reached: another mount covers it."""
    before, _, after = line.partition(" - ")
    return after.startswith("cgroup2 ") and not Path(before.split()[4], "cgroup.controllers").exists()
