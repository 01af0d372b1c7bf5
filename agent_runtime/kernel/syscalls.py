"""Raw system calls by ctypes, raising OSError with the call's name.

Neither decides nor remembers anything. Standard library only (the spawner imports it). Calls the library has
(`os.pidfd_open`, `signal.pidfd_send_signal`, `os.memfd_create`) are not repeated here.
"""

import ctypes
import os
from pathlib import Path

from pyswarm.agent_runtime.kernel import numbers as n
from pyswarm.agent_runtime.kernel.program import open_how

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long


def syscall(name: str, *arguments: int | bytes | None) -> int:
    """Make one system call; return its result or raise OSError naming it. Bytes are passed as pointers."""
    converted = [ctypes.c_long(a) if isinstance(a, int) else ctypes.c_char_p(a) for a in arguments]
    result: int = _syscall(ctypes.c_long(n.SYS[name]), *converted)
    if result == -1:
        errno = ctypes.get_errno()
        raise OSError(errno, f"{name}: {os.strerror(errno)}")
    return result


def openat2(directory: int, path: str, flags: int, *, resolve: int, mode: int = 0) -> int:
    how = open_how(flags, resolve, mode)
    return syscall("openat2", directory, os.fsencode(path), how, len(how))


def prctl(option: int, argument: int = 0) -> int:
    return syscall("prctl", option, argument, 0, 0, 0)


def unshare(flags: int) -> None:
    syscall("unshare", flags)


def mount(source: str, target: str | Path, kind: str, flags: int, data: str = "") -> None:
    syscall("mount", source.encode(), os.fsencode(target), kind.encode(), flags, os.fsencode(data))


def unmount(target: str | Path) -> None:
    """Detach the mount at `target` now; the kernel lets go of it when its last user does."""
    syscall("umount2", os.fsencode(target), n.MNT_DETACH)


def syncfs(descriptor: int) -> None:
    """Bring everything written to a descriptor's file system to its disk."""
    syscall("syncfs", descriptor)


def pivot_root(new_root: str, put_old: str) -> None:
    syscall("pivot_root", new_root.encode(), put_old.encode())


def close_range_on_exec(first: int) -> None:
    """Mark every descriptor from `first` on to be closed by execve."""
    syscall("close_range", first, 0xFFFFFFFF, n.CLOSE_RANGE_CLOEXEC)
