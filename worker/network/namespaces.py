"""Network namespaces that are kept by a bind mount at a path, as `ip netns` does, without starting a process.

A thread moves itself into a fresh namespace, pins it under the path and ends: nothing else of the process moves.
"""

import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_MS_BIND = 4096
_MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_void_p]
_libc.umount2.argtypes = [ctypes.c_char_p, ctypes.c_int]


def furnish(path: Path, do: Callable[[], T]) -> T:
    """Make a network namespace pinned at `path`, unless one is there, and return `do()`, run by a thread in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if is_pinned(path):
        return _in_thread(lambda: _enter(path, do))
    path.touch()

    def pin() -> T:
        _check(_libc.unshare(_CLONE_NEWNET), "unshare")
        own = f"/proc/self/task/{threading.get_native_id()}/ns/net"
        _check(_libc.mount(own.encode(), str(path).encode(), None, _MS_BIND, None), f"bind {path}")
        return do()

    return _in_thread(pin)


def _enter(path: Path, do: Callable[[], T]) -> T:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(descriptor, _CLONE_NEWNET), f"setns {path}")
    finally:
        os.close(descriptor)
    return do()


def remove(path: Path) -> None:
    """Let a namespace go; the kernel removes it with its last process and its links with it."""
    if is_pinned(path):
        _check(_libc.umount2(str(path).encode(), _MNT_DETACH), f"umount {path}")
    path.unlink(missing_ok=True)


def is_pinned(path: Path) -> bool:
    """Whether a namespace is mounted at `path` (a plain file there is the rest of an attempt that was cut off)."""
    try:
        return path.stat().st_dev != path.parent.stat().st_dev
    except FileNotFoundError:
        return False


def _in_thread(do: Callable[[], T]) -> T:
    result: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            result.append(do())
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            failure.append(error)

    thread = threading.Thread(target=run, name="network-namespace")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


def _check(status: int, what: str) -> None:
    if status != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
