"""Remove a host's cgroups, which a real machine would forget at a reboot."""

import errno
import os
import time
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")
_GONE_SECONDS = 5.0


def hierarchies() -> list[Path]:
    """Return the mount points of every cgroup hierarchy, v1 and v2."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, after = line.split(" - ")
        if after.split()[0] in ("cgroup", "cgroup2"):
            found.append(Path(before.split()[4]))
    return sorted(set(found))


def cgroup_paths(name: str) -> list[Path]:
    """Return the directories called `name` that exist now, over all hierarchies."""
    return [path for path in (root / name for root in hierarchies()) if path.is_dir()]


def remove_cgroup_tree(name: str) -> None:
    """Remove the cgroup `name` and all below it in every hierarchy, and its parents of ours when they are empty.

    The processes in it must be dead already; the kernel takes a moment to let go of the last ones.
    """
    for top in cgroup_paths(name):
        for folder, _, _ in os.walk(top, topdown=False):
            _remove(Path(folder))
        for parent in top.parents:
            if not parent.name.startswith("pyswarm-lab") and "pyswarm-lab" not in parent.parts:
                break
            try:
                parent.rmdir()
            except OSError:
                break  # another host or lab still has cgroups there


def _remove(folder: Path) -> None:
    deadline = time.monotonic() + _GONE_SECONDS
    while True:
        try:
            folder.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError as error:
            # There is no event for "the last dying task has left this v1 cgroup".
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
