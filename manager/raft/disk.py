"""The file operations that journal and snapshots need, as a port: all that must survive a crash goes through here.

The real disk is beside it; the simulator has one that loses what was not synced, tears writes, flips bits, fills
up and stalls. Only these operations may be assumed: bytes written are durable after `sync` of their descriptor, a
file's existence or name after `sync_directory` of its directory, and nothing else, in whatever order it was done.

Every call blocks and may raise OSError; callers run them in a thread.
"""

import os
from pathlib import Path
from typing import Protocol

from pyswarm.proto.certificate_files import sync_directory


class Disk(Protocol):
    """What is assumed of a file system. Descriptors are the disk's own; `close` ends them."""

    @property
    def has_system_descriptors(self) -> bool:
        """Whether `write` and `sync` do no more than the system's calls of the same names, so that whoever has a
        descriptor may call those itself."""

    def make_directory(self, path: Path) -> None:
        """Make `path` and its parents, mode 0700, where they are missing."""

    def names(self, directory: Path) -> list[str]:
        """Return the sorted names in `directory`; none when it does not exist."""

    def create(self, path: Path, size: int) -> int:
        """Create `path`, which must not exist, with `size` bytes reserved (zeros), and return its descriptor."""

    def open(self, path: Path) -> int:
        """Open an existing file for reading and repair. Raises FileNotFoundError."""

    def size(self, descriptor: int) -> int: ...

    def read(self, descriptor: int, size: int, offset: int) -> bytes:
        """Return `size` bytes from `offset`; fewer only at the end of the file."""

    def write(self, descriptor: int, data: bytes | bytearray, offset: int) -> None:
        """Write all of `data`, or raise: then any part of it may have been written."""

    def truncate(self, descriptor: int, size: int) -> None: ...

    def sync(self, descriptor: int) -> None:
        """Return when all that was written is on the disk. After an error nothing is known: never try again."""

    def close(self, descriptor: int) -> None: ...

    def rename(self, path: Path, target: Path) -> None:
        """Replace `target` by `path` atomically."""

    def unlink(self, path: Path) -> None: ...

    def sync_directory(self, path: Path) -> None: ...


class RealDisk:
    """Implements `Disk` by the system's calls."""

    has_system_descriptors = True

    def make_directory(self, path: Path) -> None:
        missing = []
        while not path.is_dir():
            missing.append(path)
            path = path.parent
        for directory in reversed(missing):
            directory.mkdir(mode=0o700, exist_ok=True)
            sync_directory(directory.parent)

    def names(self, directory: Path) -> list[str]:
        try:
            return sorted(os.listdir(directory))
        except FileNotFoundError:
            return []

    def create(self, path: Path, size: int) -> int:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            # Reserved space makes fdatasync cheaper, and a full disk an error here instead of in mid-write.
            if size:
                os.posix_fallocate(descriptor, 0, size)
        except OSError:
            os.close(descriptor)
            path.unlink()
            raise
        return descriptor

    def open(self, path: Path) -> int:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def size(self, descriptor: int) -> int:
        return os.fstat(descriptor).st_size

    def read(self, descriptor: int, size: int, offset: int) -> bytes:
        parts = []
        while size > 0 and (part := os.pread(descriptor, size, offset)):
            parts.append(part)
            size, offset = size - len(part), offset + len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def write(self, descriptor: int, data: bytes | bytearray, offset: int) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(descriptor, view, offset)
            view, offset = view[written:], offset + written

    def truncate(self, descriptor: int, size: int) -> None:
        os.ftruncate(descriptor, size)

    def sync(self, descriptor: int) -> None:
        os.fdatasync(descriptor)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def rename(self, path: Path, target: Path) -> None:
        path.rename(target)

    def unlink(self, path: Path) -> None:
        path.unlink()

    def sync_directory(self, path: Path) -> None:
        sync_directory(path)


REAL_DISK = RealDisk()
