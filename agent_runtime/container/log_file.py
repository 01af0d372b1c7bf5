"""Write a container's log: files of bounded size, numbered upwards, the oldest of which go.

They are never renamed, so that a reader in the middle of one is not disturbed by rotation (`log_reader`). What a
container writes is moved from its pipe by the kernel: a daemon that is killed has either left it in the pipe or has it
in the file. Only the entry in the index may be missing then, and is made up by the next daemon.
"""

import os
from collections.abc import Callable
from pathlib import Path

from pyswarm.agent_runtime.container.log_format import ENTRY, STREAMS, Piece, decode

LARGEST_PIECE_BYTES = 1024 * 1024


class ContainerLog:
    """The log in `directory`, of at most `most_files` files of `largest_file_bytes` (0: one without an end).

    `close` ends those who follow it; it can still be read.
    """

    def __init__(self, directory: Path, *, largest_file_bytes: int, most_files: int) -> None:
        self.directory = directory
        self._largest_file_bytes = largest_file_bytes
        self._most_files = most_files
        self._file: _LogFile | None = None
        self._followers: set[Callable[[], None]] = set()
        self.is_closed = False

    def take(self, pipe: int, stream: str, now: float) -> int:
        """Move what is in a pipe into the log; return how many bytes.

        Raises BlockingIOError when there is nothing, and OSError for example when the disk is full: what could not be
        kept is then still in the pipe.
        """
        file, room = self._room()
        moved = os.splice(pipe, file.of(stream), room, flags=os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE)
        file.note(stream, moved, now)
        self._wake()
        return moved

    def wants_more(self, _when_it_does: Callable[[], None], /) -> bool:
        return True

    def append(self, data: bytes, stream: str, now: float) -> None:
        """Write what the container wrote. Raises OSError, for example when the disk is full."""
        rest = memoryview(data)
        while rest:
            file, room = self._room()
            written = os.write(file.of(stream), rest[:room])
            file.note(stream, written, now)
            rest = rest[written:]
        self._wake()

    def _room(self) -> tuple["_LogFile", int]:
        """Return the file to write to and how much may be written at once."""
        if self._file is None:
            self.directory.mkdir(mode=0o755, exist_ok=True)
            self._file = _reopened(self.directory, max(numbers(self.directory), default=1))
        if self._largest_file_bytes and self._file.size >= self._largest_file_bytes:
            former = self._file
            self._file = _LogFile(self.directory, former.number + 1, former.unfinished())
            former.close()
            for old in numbers(self.directory)[: -self._most_files]:
                _remove(self.directory, old)
        if not self._largest_file_bytes:
            return self._file, LARGEST_PIECE_BYTES
        return self._file, min(LARGEST_PIECE_BYTES, self._largest_file_bytes - self._file.size)

    def close(self) -> None:
        """No more will come."""
        self.is_closed = True
        if self._file is not None:
            self._file.close()
            self._file = None
        self._wake()

    def add_follower(self, wake: Callable[[], None]) -> None:
        """Have `wake` called whenever there is more, and at the end."""
        self._followers.add(wake)

    def remove_follower(self, wake: Callable[[], None]) -> None:
        self._followers.discard(wake)

    def _wake(self) -> None:
        for wake in self._followers:
            wake()


class _LogFile:
    """One number of a log, being written. `continued`: the streams whose last line the former file did not end."""

    def __init__(self, directory: Path, number: int, continued: frozenset[str]) -> None:
        self.number = number
        self._directory = directory
        self._continued = set(continued)
        self._data: dict[str, int] = {}
        self._without_entry = dict.fromkeys(STREAMS, 0)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._index = os.open(path_of(directory, number, "index"), flags, 0o600)
        self.size = os.fstat(self._index).st_size

    def of(self, stream: str) -> int:
        """Return the descriptor of a stream's bytes, at their end."""
        if stream not in self._data:
            # Not to append: the kernel moves nothing from a pipe into such a file.
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            self._data[stream] = os.open(path_of(self._directory, self.number, stream), flags, 0o600)
            self.size += os.lseek(self._data[stream], 0, os.SEEK_END)
        return self._data[stream]

    def note(self, stream: str, length: int, now: float) -> None:
        """Write the entry of bytes that are in the file. Raises OSError; the next entry will be for them, too."""
        self.size += length
        self._without_entry[stream] += length
        entry = Piece(now, self._without_entry[stream], stream, stream in self._continued).encode()
        if (written := os.write(self._index, entry)) < ENTRY.size:
            os.ftruncate(self._index, os.fstat(self._index).st_size - written)
            raise OSError(28, "the disk is full")
        self.size += ENTRY.size
        self._continued.discard(stream)
        self._without_entry[stream] = 0

    def settle(self) -> bool:
        """Make up entries for bytes without one; whether every byte that has an entry is there."""
        entries = os.pread(self._index, os.fstat(self._index).st_size, 0)
        if torn := len(entries) % ENTRY.size:
            os.ftruncate(self._index, len(entries) - torn)
            self.size -= torn
        known = dict.fromkeys(STREAMS, 0)
        for piece in decode(entries):
            known[piece.stream] += piece.length
        for stream in STREAMS:
            path = path_of(self._directory, self.number, stream)
            held = os.stat(path) if path.exists() else None
            extra = (held.st_size if held else 0) - known[stream]
            if extra < 0:
                return False
            if held and extra:
                self.of(stream)
                self.size -= extra  # counted when the file was opened, and again when it is noted
                self.note(stream, extra, held.st_mtime)
        return True

    def unfinished(self) -> frozenset[str]:
        """Return the streams that are in the middle of a line."""
        found = set(self._continued)
        for stream in STREAMS:
            descriptor = self.of(stream) if path_of(self._directory, self.number, stream).exists() else None
            if descriptor is not None and (size := os.fstat(descriptor).st_size):
                found.discard(stream)
                if os.pread(descriptor, 1, size - 1) != b"\n":
                    found.add(stream)
        return frozenset(found)

    def close(self) -> None:
        for descriptor in (self._index, *self._data.values()):
            os.close(descriptor)
        self._data.clear()


def _reopened(directory: Path, number: int) -> _LogFile:
    """Go on in the file that a former daemon wrote; one that the machine's end left damaged is left as it is."""
    file = _LogFile(directory, number, frozenset())
    if file.settle():
        for stream in STREAMS:
            if path_of(directory, number, stream).exists():
                file.of(stream)
        return file
    file.close()
    return _LogFile(directory, number + 1, frozenset())


def path_of(directory: Path, number: int, kind: str) -> Path:
    """Return where the `kind` (a stream, or index) of a file of a log is."""
    return directory / f"{number:06d}.{kind}"


def numbers(directory: Path) -> list[int]:
    """Return the numbers of a log's files, the oldest first."""
    try:
        return sorted(int(name[:-6]) for name in os.listdir(directory) if name.endswith(".index"))
    except FileNotFoundError:
        return []


def _remove(directory: Path, number: int) -> None:
    for kind in (*STREAMS, "index"):  # the index last: what has none would never be removed
        path_of(directory, number, kind).unlink(missing_ok=True)
