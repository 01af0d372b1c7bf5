"""Hear of changes of files by inotify: one descriptor for any number of them, readable when something has changed.

Says which file it was, not what has changed: whoever hears it looks. Standard library only.
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path

from pyswarm.agent_runtime.kernel import numbers as n
from pyswarm.agent_runtime.kernel import syscalls

_EVENT = struct.Struct("=iIII")
"""struct inotify_event: watch, mask, cookie, length of the name that follows."""
_READ_BYTES = 65536

OVERFLOWED = -1
"""Stands for a watch when more has happened than the kernel keeps: any file may have changed."""


class Inotify:
    """`descriptor` is non-blocking and closed on exec."""

    def __init__(self) -> None:
        self.descriptor = syscalls.syscall("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)

    def add(self, path: Path) -> int:
        """Watch a file for changes; return its watch. Raises OSError: ENOSPC, there may be no more watches."""
        return syscalls.syscall("inotify_add_watch", self.descriptor, os.fsencode(path), n.IN_MODIFY)

    def remove(self, watch: int) -> None:
        """Watch a file no longer. Raises OSError: EINVAL, the kernel has ended it because the file is gone."""
        syscalls.syscall("inotify_rm_watch", self.descriptor, watch)

    def changed(self) -> set[int]:
        """Return the watches of files that have changed since the last call; does not wait."""
        try:
            return set(parse(os.read(self.descriptor, _READ_BYTES)))
        except BlockingIOError:
            return set()

    def close(self) -> None:
        os.close(self.descriptor)


def parse(events: bytes) -> Iterator[int]:
    """Yield the watch of each change in what inotify has told. Pure."""
    at = 0
    while at < len(events):
        watch, mask, _, name_bytes = _EVENT.unpack_from(events, at)
        at += _EVENT.size + name_bytes
        if mask & n.IN_Q_OVERFLOW:
            yield OVERFLOWED
        elif mask & n.IN_MODIFY:
            yield watch
