"""What a container is doing, as the kernel says, and the OCI state object that tells others."""

import os
from pathlib import Path
from typing import Any

from pyswarm.agent_runtime.bundle.runtime_spec import OCI_VERSION
from pyswarm.agent_runtime.kernel.process import ProcessId, start_ticks
from pyswarm.agent_runtime.oci.cgroup import ContainerCgroup
from pyswarm.agent_runtime.oci.state import Container, Root

CREATING, CREATED, RUNNING, PAUSED, STOPPED = "creating", "created", "running", "paused", "stopped"


def is_alive(process: ProcessId) -> bool:
    """Return whether this very process is there and has not ended, reaped or not."""
    if start_ticks(process.pid) != process.start_ticks:
        return False
    try:
        text = Path(f"/proc/{process.pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return text.rpartition(b")")[2].split()[0] not in (b"Z", b"X")


def status_of(root: Root, container: Container) -> str:
    if not is_alive(container.process):
        return STOPPED
    if ContainerCgroup.of(container.cgroup).is_frozen():
        return PAUSED
    return CREATED if root.go(container.id).exists() else RUNNING


def oci_state(container: Container, status: str) -> dict[str, Any]:
    """Return the state object of the specification, as hooks and seccomp agents get it."""
    state: dict[str, Any] = {
        "ociVersion": OCI_VERSION,
        "id": container.id,
        "status": status,
        "pid": 0 if status == STOPPED else container.pid,
        "bundle": container.bundle,
    }
    if container.annotations:
        state["annotations"] = container.annotations
    return state


def full_state(root: Root, container: Container) -> dict[str, Any]:
    """Return what the `state` command shows: the specification's members and runc's."""
    more = {"rootfs": container.rootfs, "created": container.created, "owner": container.owner}
    return {**oci_state(container, status_of(root, container)), **more}


def owner() -> str:
    """Return the name of whoever calls, as `list` shows it."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
