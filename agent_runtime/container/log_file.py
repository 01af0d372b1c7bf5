"""A container's log: a few files of bounded size, written by one writer, followed by any number of readers.

Files are numbered upwards and never renamed, so that a reader in the middle of one is not disturbed by rotation: it
goes on to the next number, or to the oldest that is left. Readers keep nothing in memory but their place.
"""

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path

from pyswarm.agent_runtime.container.log_format import Joiner, Line, decode, encode

LARGEST_FILE_BYTES = 10 * 1024 * 1024
MOST_FILES = 3
_READ_BYTES = 256 * 1024


class ContainerLog:
    """The log in `directory`. `close` ends those who follow it; it can still be read."""

    def __init__(
        self, directory: Path, *, largest_file_bytes: int = LARGEST_FILE_BYTES, most_files: int = MOST_FILES
    ) -> None:
        self._directory = directory
        self._largest_file_bytes = largest_file_bytes
        self._most_files = most_files
        self._writer: int | None = None
        self._size = 0
        self._followers: set[asyncio.Event] = set()
        self._closed = False

    def append(self, data: bytes, stream: str, now: float) -> None:
        """Write what the container wrote. Raises OSError, for example when the disk is full."""
        if self._writer is None or self._size >= self._largest_file_bytes:
            self._next_file()
        assert self._writer is not None
        block = encode(data, stream, now)
        self._size += os.write(self._writer, block)
        self._wake()

    def _next_file(self) -> None:
        if self._writer is None:
            number = max(self._numbers(), default=1)
        else:
            os.close(self._writer)
            number = max(self._numbers(), default=0) + 1
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._writer = os.open(self._path(number), flags, 0o600)
        self._size = os.fstat(self._writer).st_size
        for old in sorted(self._numbers())[: -self._most_files]:
            self._path(old).unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self._directory / f"{number:06d}.log"

    def _numbers(self) -> list[int]:
        try:
            return [int(name[:-4]) for name in os.listdir(self._directory) if name.endswith(".log")]
        except FileNotFoundError:
            return []

    def reopen(self) -> None:
        """The container goes on (or may): those who follow will wait for more."""
        self._closed = False

    def close(self) -> None:
        """No more will come."""
        self._closed = True
        if self._writer is not None:
            os.close(self._writer)
            self._writer = None
        self._wake()

    def _wake(self) -> None:
        for event in self._followers:
            event.set()

    async def read(self, *, follow: bool = False, tail: int = -1, since: float = 0.0) -> AsyncIterator[Line]:
        """Yield lines from `since` on, at most `tail` of those written so far (-1 = all), then, with `follow`, every
        later one until the container has ended."""
        event = asyncio.Event()
        self._followers.add(event)
        cursor, joiner = _Cursor(self), Joiner()
        try:
            history: deque[Line] = deque(maxlen=tail if tail >= 0 else None)
            while lines := cursor.next_lines():
                ready = [whole for line in lines if (whole := joiner.join(line)) and whole.timestamp >= since]
                if tail >= 0:
                    history.extend(ready)
                else:
                    for line in ready:
                        yield line
                await asyncio.sleep(0)  # a long log must not keep the others waiting
            if not follow:
                history.extend(line for line in joiner.rest() if line.timestamp >= since)
            for line in history:
                yield line
            history.clear()
            while follow:
                event.clear()
                ended = self._closed
                lines = cursor.next_lines()
                for line in lines:
                    if (whole := joiner.join(line)) and whole.timestamp >= since:
                        yield whole
                if not lines:
                    if ended:
                        break
                    await event.wait()
            for line in joiner.rest():
                if line.timestamp >= since:
                    yield line
        finally:
            self._followers.discard(event)
            cursor.close()


class _Cursor:
    """A place in the log: a file and what of it was read."""

    def __init__(self, log: ContainerLog) -> None:
        self._log = log
        self._number = 0
        self._file: int | None = None
        self._rest = b""

    def next_lines(self) -> list[Line]:
        """Return the next lines, empty at the present end."""
        while True:
            if self._file is None and not self._open_next():
                return []
            assert self._file is not None
            data = os.read(self._file, _READ_BYTES)
            if data:
                *whole, self._rest = (self._rest + data).split(b"\n")
                lines = [line for line in map(decode, whole) if line is not None]
                if lines:
                    return lines
            elif not self._open_next():
                return []

    def _open_next(self) -> bool:
        """Go on to the oldest file after the present one, if there is one: the writer never returns to a former."""
        for number in sorted(number for number in self._log._numbers() if number > self._number):
            try:
                descriptor = os.open(self._log._path(number), os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue  # rotated away meanwhile
            if self._file is not None:
                # The writer may have added to the former file after our last read and before it went on.
                if rest := os.read(self._file, _READ_BYTES):
                    os.close(descriptor)
                    os.lseek(self._file, -len(rest), os.SEEK_CUR)
                    return True
                os.close(self._file)
            self._file, self._number, self._rest = descriptor, number, b""
            return True
        return False

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
