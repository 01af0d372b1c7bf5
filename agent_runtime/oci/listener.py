"""Hand the listener of a seccomp filter to the agent that answers its calls."""

import os
import socket
from pathlib import Path

import msgspec

from pyswarm.agent_runtime.bundle.runtime_spec import OCI_VERSION, Spec
from pyswarm.agent_runtime.bundle.validate import InvalidConfig
from pyswarm.agent_runtime.kernel.syscalls import syscall
from pyswarm.agent_runtime.oci.state import Container
from pyswarm.agent_runtime.oci.status import CREATING, oci_state

_LINK = "anon_inode:seccomp notify"


def hand_over(spec: Spec, container: Container, pid: int, pidfd: int) -> None:
    """Send the listener of process `pid` to `linux.seccomp.listenerPath`. Raises InvalidConfig."""
    seccomp = spec.linux.seccomp
    assert seccomp is not None
    if not seccomp.listener_path:
        raise InvalidConfig("linux.seccomp.listenerPath", "is missing, and a call is to be answered by an agent")
    number = next(int(link.name) for link in Path(f"/proc/{pid}/fd").iterdir() if os.readlink(link) == _LINK)
    listener = syscall("pidfd_getfd", pidfd, number, 0)
    message = msgspec.json.encode({
        "ociVersion": OCI_VERSION, "fds": ["seccompFd"], "pid": pid, "metadata": seccomp.listener_metadata,
        "state": oci_state(container, CREATING),
    })  # fmt: skip
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(seccomp.listener_path)
            socket.send_fds(connection, [message], [listener])
    except OSError as error:
        problem = f"nobody listens on {seccomp.listener_path}: {os.strerror(error.errno or 0)}"
        raise InvalidConfig("linux.seccomp.listenerPath", problem) from error
    finally:
        os.close(listener)
