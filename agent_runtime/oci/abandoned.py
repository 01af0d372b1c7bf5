"""Remove what a creator has left that was killed before its container was created: an id, a cgroup, perhaps a process.

A creator holds a lock on its claim for as long as it lives (`state.py`): whose lock can be had is dead.
"""

import os
import signal
from collections.abc import Callable
from contextlib import suppress

from pyswarm.agent_runtime.oci import hooks
from pyswarm.agent_runtime.oci.cgroup import ContainerCgroup
from pyswarm.agent_runtime.oci.state import Root
from pyswarm.agent_runtime.oci.status import STOPPED, oci_state


def clean(root: Root, container_id: str, warn: Callable[[str], None]) -> bool:
    """Remove an abandoned claim of this id and all that belongs to it; return whether there was one. Raises OSError."""
    with root.abandoned(container_id) as container:
        if container is None:
            return False
        if container.cgroup:
            remove_cgroup(ContainerCgroup.of(container.cgroup))
        if root.hooks_begun(container_id).exists():
            poststop = root.config(container_id).hooks.poststop
            hooks.run_and_warn("poststop", poststop, oci_state(container, STOPPED), warn)
        root.forget(container_id)
        return True


def remove_cgroup(cgroup: ContainerCgroup) -> None:
    """Kill whoever is in a container's cgroup and remove it. Raises OSError when they do not die."""
    for pid in cgroup.processes():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    cgroup.remove()
