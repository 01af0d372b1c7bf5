"""A disk that forgets what was not synced, as far as the port (manager/raft/disk.py) allows it to.

A power cut decides sector by sector (512 bytes) whether what was written since the last sync is there, whether a
file has its new length, and name by name whether a file made, renamed or deleted since the last sync of its
directory is. A process that is killed loses nothing: the system wrote it down. A fuse cuts the power at the n-th
operation, in mid-write if it is one. Bits flip when they are told to, and the disk is full when it is told to be.
"""

import errno
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

SECTOR_BYTES = 512
UNLIMITED = 1 << 40


class PowerLost(OSError):
    """Whoever still runs has no disk any more."""

    def __init__(self) -> None:
        super().__init__(errno.EIO, "the power is off")


class _File:
    def __init__(self, size: int) -> None:
        self.content = bytearray(size)
        self.durable = bytearray()
        self.dirty: set[int] = set()

    def write(self, data: bytes | bytearray, offset: int) -> None:
        end = offset + len(data)
        if end > len(self.content):
            self.content.extend(bytes(end - len(self.content)))
        self.content[offset:end] = data
        self.dirty.update(range(offset // SECTOR_BYTES, (end - 1) // SECTOR_BYTES + 1 if data else 0))

    def truncate(self, size: int) -> None:
        self.dirty.update(range(size // SECTOR_BYTES, len(self.content) // SECTOR_BYTES + 1))
        if size < len(self.content):
            del self.content[size:]
        else:
            self.content.extend(bytes(size - len(self.content)))

    def sync(self) -> None:
        if len(self.durable) != len(self.content):
            self.durable = bytearray(self.content)
        else:
            for sector in self.dirty:
                part = slice(sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES)
                self.durable[part] = self.content[part]
        self.dirty.clear()

    def cut_power(self, survives: Callable[[], bool]) -> None:
        size = len(self.content) if survives() else len(self.durable)
        after = bytearray(size)
        after[: min(size, len(self.durable))] = self.durable[:size]
        for sector in sorted(self.dirty):
            start, end = sector * SECTOR_BYTES, min((sector + 1) * SECTOR_BYTES, size, len(self.content))
            if start < end and survives():
                after[start:end] = self.content[start:end]
        self.content = after
        self.durable = bytearray(after)
        self.dirty.clear()


Step = tuple[str, str, _File | None, str]
"""What happened to a name: "link", "unlink" or "rename"; the name, the file, the new name."""


class SimDisk:
    """What of one host outlives its crashes. `mount` gives one incarnation of its process the use of it."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.names: dict[str, _File] = {}
        self._durable_names: dict[str, _File] = {}
        self._steps: dict[str, list[Step]] = {}
        self.capacity = UNLIMITED
        self.syncs_fail = False
        self.fuse: int | None = None
        """Cut the power at this many more operations."""
        self.blow: Callable[[], None] = lambda: None
        self.operations = 0

    def mount(self) -> "MountedDisk":
        return MountedDisk(self)

    def cut_power(self) -> None:
        # Now and then nothing or everything is there; mostly some of it.
        chance = self._rng.choice((0.0, 0.5, 0.5, 1.0))
        for directory in sorted(self._steps):
            for step in self._steps[directory]:
                if self._rng.random() < chance:
                    self._settle(step)
        self._steps.clear()
        for name in sorted(self._durable_names):
            self._durable_names[name].cut_power(lambda: self._rng.random() < chance)
        self.names = dict(self._durable_names)

    def wipe(self) -> None:
        self.names.clear()
        self._durable_names.clear()
        self._steps.clear()

    def flip_bit(self, name: str, offset: int) -> None:
        file = self.names[name]
        for content in (file.content, file.durable):
            content[offset] ^= 1 << self._rng.randrange(8)

    @property
    def is_treacherous(self) -> bool:
        """Whether it is about to refuse something."""
        return self.fuse is not None or self.syncs_fail or self.capacity < UNLIMITED

    @property
    def used(self) -> int:
        return sum(len(file.content) for file in self.names.values())

    # -- what a mounted disk does

    def step(self) -> None:
        self.operations += 1
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse <= 0:
                self.fuse = None
                self.blow()
                raise PowerLost

    def need(self, more: int) -> None:
        if more > 0 and self.used + more > self.capacity:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def note(self, kind: str, name: str, file: _File | None, target: str = "") -> None:
        self._steps.setdefault(os.path.dirname(name), []).append((kind, name, file, target))

    def sync_directory(self, directory: str) -> None:
        for step in self._steps.pop(directory, ()):
            self._settle(step)

    def _settle(self, step: Step) -> None:
        kind, name, file, target = step
        if kind in ("unlink", "rename"):
            self._durable_names.pop(name, None)
        if kind != "unlink":
            assert file is not None
            self._durable_names[target or name] = file


class MountedDisk:
    """Implements `manager.raft.disk.Disk`."""

    has_system_descriptors = False

    def __init__(self, disk: SimDisk) -> None:
        self._disk = disk
        self._open: dict[int, _File] = {}
        self._descriptors: Iterator[int] = iter(range(3, 1 << 30))
        self.is_gone = False

    def make_directory(self, path: Path) -> None:
        """Directories are always there."""

    def names(self, directory: Path) -> list[str]:
        self._must_be_there()
        prefix = f"{directory}/"
        return sorted(n.removeprefix(prefix) for n in self._disk.names if os.path.dirname(n) == str(directory))

    def create(self, path: Path, size: int) -> int:
        self._step()
        if str(path) in self._disk.names:
            raise FileExistsError(path)
        self._disk.need(size)
        file = self._disk.names[str(path)] = _File(size)
        self._disk.note("link", str(path), file)
        return self._describe(file)

    def open(self, path: Path) -> int:
        self._must_be_there()
        if str(path) not in self._disk.names:
            raise FileNotFoundError(path)
        return self._describe(self._disk.names[str(path)])

    def size(self, descriptor: int) -> int:
        return len(self._open[descriptor].content)

    def read(self, descriptor: int, size: int, offset: int) -> bytes:
        self._must_be_there()
        return bytes(self._open[descriptor].content[offset : offset + size])

    def write(self, descriptor: int, data: bytes | bytearray, offset: int) -> None:
        self._must_be_there()
        file = self._open[descriptor]
        try:
            self._disk.need(offset + len(data) - len(file.content))
        except OSError:
            # A full disk takes what still fits.
            file.write(data[: max(0, len(file.content) - offset)], offset)
            raise
        file.write(data, offset)
        self._disk.step()

    def truncate(self, descriptor: int, size: int) -> None:
        self._step()
        self._open[descriptor].truncate(size)

    def sync(self, descriptor: int) -> None:
        self._step()
        if self._disk.syncs_fail:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._open[descriptor].sync()

    def close(self, descriptor: int) -> None:
        del self._open[descriptor]

    def rename(self, path: Path, target: Path) -> None:
        self._step()
        file = self._disk.names.pop(str(path))
        self._disk.names[str(target)] = file
        self._disk.note("rename", str(path), file, str(target))

    def unlink(self, path: Path) -> None:
        self._step()
        if str(path) not in self._disk.names:
            raise FileNotFoundError(path)
        del self._disk.names[str(path)]
        self._disk.note("unlink", str(path), None)

    def sync_directory(self, path: Path) -> None:
        self._step()
        if self._disk.syncs_fail:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._disk.sync_directory(str(path))

    def _describe(self, file: _File) -> int:
        descriptor = next(self._descriptors)
        self._open[descriptor] = file
        return descriptor

    def _step(self) -> None:
        self._must_be_there()
        self._disk.step()

    def _must_be_there(self) -> None:
        if self.is_gone:
            raise PowerLost
