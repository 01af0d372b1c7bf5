"""Facts about processes: who is it really, is it alive, how did it end.

A pid alone names nobody, since pids are reused: a process is its pid and its start time. Standard library only.
"""

import array
import fcntl
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from pyswarm.agent_runtime.kernel import small_files

_PIDFD_GET_INFO = 0xC040FF0B  # _IOWR(0xFF, 11, struct pidfd_info in its first size, 64 bytes)
_PIDFD_INFO_EXIT = 1 << 3
# mask, cgroup id, eleven ids of the process and its credentials, exit status
_INFO = struct.Struct("=QQ11Ii")


@dataclass(frozen=True)
class ProcessId:
    """A process, told apart from any later one with the same pid. `start_ticks` is field 22 of its stat file."""

    pid: int
    start_ticks: int


def start_ticks(pid: int) -> int | None:
    """Return when `pid` was started, in clock ticks since boot; None if there is no such process."""
    try:
        text = small_files.read(f"/proc/{pid}/stat")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command name in parentheses may hold anything, spaces and parentheses too.
    return int(text.rpartition(b")")[2].split()[19])


def open_pidfd(process: ProcessId) -> int | None:
    """Return a pidfd of exactly this process, or None when it is gone (a reaped one, or a pid used again)."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    # Checked after opening: the pid cannot be reused while we hold the descriptor.
    if start_ticks(process.pid) != process.start_ticks:
        os.close(descriptor)
        return None
    return descriptor


def can_tell_exit_status() -> bool:
    """Return whether this kernel tells a reaped process's exit status to whoever holds its pidfd (6.15 and later)."""
    major, minor = os.uname().release.split(".")[:2]
    return (int(major), int(minor.split("-")[0])) >= (6, 15)


def exit_status_of(pidfd: int) -> int | None:
    """Return the wait status of a process whose pidfd was opened while it lived; None while it is not reaped yet.

    Raises OSError when the kernel cannot tell.
    """
    buffer = array.array("B", _INFO.pack(_PIDFD_INFO_EXIT, 0, *[0] * 12))
    fcntl.ioctl(pidfd, _PIDFD_GET_INFO, buffer)
    fields = _INFO.unpack(buffer.tobytes())
    return int(fields[-1]) if fields[0] & _PIDFD_INFO_EXIT else None


def exit_code(wait_status: int) -> int:
    """Return what a shell would show: the exit status, or 128 + n for a process killed by signal n."""
    if os.WIFSIGNALED(wait_status):
        return 128 + os.WTERMSIG(wait_status)
    return os.WEXITSTATUS(wait_status)


def machine_identity() -> str:
    """Return what changes when this machine reboots: the kernel's boot id, and our pid namespace, which is all that
    a host made of namespaces loses."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"
