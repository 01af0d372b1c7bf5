"""Where the cgroup of a container of the command line is to be; in a user namespace, whether it has one at all.

There, only a subtree of cgroup v2 that was delegated can be used: the directory above our own cgroup, if it is ours
to write, as systemd gives it to a user's units; or the absolute path that config.json names. Without one, a container
runs in the cgroup of whoever made it, and nothing can be limited.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from pyswarm.agent_runtime.bundle import cgroup_files
from pyswarm.agent_runtime.bundle.spec_linux import Resources
from pyswarm.agent_runtime.bundle.validate import InvalidConfig
from pyswarm.agent_runtime.kernel import cgroup_layout
from pyswarm.agent_runtime.oci.cgroup import OWN_PARENT, path_of
from pyswarm.agent_runtime.oci.rootless import in_user_namespace

NONE = ""


def place(wanted: str, container_id: str, resources: Resources) -> str:
    """Return the path of a container's cgroup in every hierarchy, or NONE. Raises InvalidConfig."""
    if not in_user_namespace():
        return path_of(wanted, container_id)
    layout = cgroup_layout.detect(cgroup_layout.V1_EVERY_CONTROLLER)
    if not layout.v1 and layout.unified is not None:
        path = path_of(wanted, container_id)
        if not wanted.startswith("/"):
            own = own_path(Path("/proc/self/cgroup").read_text().splitlines())
            path = f"{os.path.dirname(own)}/{path}".lstrip("/")
        if _may_make(layout.unified / path):
            return path
    if limits := asked_for(resources):
        raise InvalidConfig(
            "linux.resources",
            f"no cgroup is delegated to this user, nothing can be limited ({', '.join(limits)}): leave it out, or run "
            "on cgroup v2 in a unit of the user's own: systemd-run --user --scope -p Delegate=yes",
        )
    return NONE


def own_path(lines: Iterable[str]) -> str:
    """Return the path of our v2 cgroup from the lines of /proc/self/cgroup. Pure."""
    return next((line.removeprefix("0::") for line in lines if line.startswith("0::")), "/")


def asked_for(resources: Resources) -> list[str]:
    """Return the files of all limits but those for devices, which an ordinary user cannot make anyway. Pure."""
    files = [*cgroup_files.v2_files(resources), *cgroup_files.v1_files(resources)]
    return sorted({setting.file for setting in files if setting.controller != "devices"})


def _may_make(folder: Path) -> bool:
    """Whether a directory could be made, and processes moved from here to there."""
    parent = folder.parent
    while not parent.exists():
        parent = parent.parent
    return os.access(parent, os.W_OK) and os.access(parent / "cgroup.procs", os.W_OK)


__all__ = ["NONE", "OWN_PARENT", "asked_for", "own_path", "place"]
