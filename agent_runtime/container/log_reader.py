"""Read a container's log: from its beginning, its last lines or a moment on, and as it grows.

Any number of readers beside the one writer. They keep nothing in memory but their place and the line they are in, and
hold open the files they are in: rotation takes nothing away from them before they go on to the oldest that is left.
"""

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator

from pyswarm.agent_runtime.container.log_file import ContainerLog, numbers, path_of
from pyswarm.agent_runtime.container.log_format import ENTRY, STREAMS, Line, LineCutter, Piece, decode

_READ_BYTES = 64 * 1024
_ENTRIES_BYTES = 4096 * ENTRY.size


async def read_lines(
    log: ContainerLog,
    *,
    follow: bool = False,
    tail: int = -1,
    since: float = 0.0,
    until: float = 0.0,
    seconds: float | None = None,
) -> AsyncIterator[Line]:
    """Yield the lines from `since` to `until` (0 = no bound), at most the last `tail` of those so far (-1 = all).

    With `follow`, then every later one, until the container has ended or `seconds` have passed.
    """
    loop = asyncio.get_running_loop()
    deadline = None if seconds is None else loop.time() + seconds
    more = asyncio.Event()
    log.add_follower(more.set)
    place, cutter = Place(log), LineCutter()
    try:
        if tail >= 0:
            place.go_to_last(tail, cutter, until=until)
        elif since:
            place.go_to_time(since, cutter)
        history: deque[Line] = deque(maxlen=tail if tail >= 0 else None)
        while read := place.read():
            if place.was_overtaken():
                cutter.forget()
            lines = [line for line in cutter.cut(*read) if _is_between(line, since, until)]
            if tail >= 0:
                history.extend(lines)
            else:
                for line in lines:
                    yield line
            await asyncio.sleep(0)  # a long log must not keep the others waiting
        if not follow:
            history.extend(line for line in cutter.rest() if _is_between(line, since, until))
        for line in history:
            yield line
        history.clear()
        while follow:
            more.clear()
            has_ended = log.is_closed
            if (read := place.read()) is not None:
                if place.was_overtaken():
                    cutter.forget()
                for line in cutter.cut(*read):
                    if _is_between(line, since, until):
                        yield line
            elif has_ended or not await _news(more, deadline):
                break
        for line in cutter.rest():
            if _is_between(line, since, until):
                yield line
    finally:
        log.remove_follower(more.set)
        place.close()


class LogListener:
    """Hears what is written to a log from now on (`taps.Listener`)."""

    def __init__(self, log: ContainerLog) -> None:
        self._log = log
        self._more = asyncio.Event()
        self._place = Place(log)
        self._place.go_to_end()
        log.add_follower(self._more.set)

    async def next(self) -> tuple[str, bytes] | None:
        while True:
            self._more.clear()
            has_ended = self._log.is_closed
            if (read := self._place.read()) is not None:
                piece, data = read
                return piece.stream, data
            if has_ended:
                return None
            await self._more.wait()

    def close(self) -> None:
        self._log.remove_follower(self._more.set)
        self._place.close()


def _is_between(line: Line, since: float, until: float) -> bool:
    return line.timestamp >= since and (not until or line.timestamp < until)


async def _news(more: asyncio.Event, deadline: float | None) -> bool:
    """Wait until there is more to read; False once the deadline has passed."""
    try:
        async with asyncio.timeout_at(deadline):
            await more.wait()
    except TimeoutError:
        return False
    return True


class Place:
    """A place in a log: a file, the next entry of its index, and how far each stream was read."""

    def __init__(self, log: ContainerLog) -> None:
        self._log = log
        self._number = 0
        self._index: int | None = None
        self._data: dict[str, int] = {}
        self._offsets = dict.fromkeys(STREAMS, 0)
        self._next_entry = 0
        self._pieces: deque[Piece] = deque()
        self._was_overtaken = False

    def was_overtaken(self) -> bool:
        """Whether files were rotated away, since the last call, that were not read."""
        overtaken, self._was_overtaken = self._was_overtaken, False
        return overtaken

    def read(self) -> tuple[Piece, bytes] | None:
        """Return the next bytes and the piece they are of; None at the present end."""
        while self._pieces or self._read_entries() or self._open_next():
            if not self._pieces:
                continue
            piece = self._pieces.popleft()
            length = min(piece.length, _READ_BYTES)
            if piece.length > length:
                self._pieces.appendleft(piece._replace(length=piece.length - length, continues=False))
            data = os.pread(self._of(piece.stream), length, self._offsets[piece.stream])
            self._offsets[piece.stream] += length
            if data:  # otherwise the machine went down before they reached the disk
                return piece, data
        return None

    def go_to_end(self) -> None:
        """Go on with what is written from now on."""
        if present := numbers(self._log.directory):
            self._enter(present[-1])
            while self._read_entries():
                for piece in self._pieces:
                    self._offsets[piece.stream] += piece.length
                self._pieces.clear()

    def go_to_last(self, lines: int, cutter: LineCutter, *, until: float) -> None:
        """Go back far enough for the last `lines`: a little further, but not to the beginning of a long log."""
        wanted = lines + 2 * len(STREAMS)  # the lines of each stream that are cut off at both ends
        for number in reversed(numbers(self._log.directory)):
            if not self._enter(number):
                return  # rotated away meanwhile: go on with the oldest that is left
            pieces = self._all_entries()
            ends = {s: sum(piece.length for piece in pieces if piece.stream == s) for s in STREAMS}
            for at in range(len(pieces) - 1, -1, -1):
                piece = pieces[at]
                ends[piece.stream] -= piece.length
                if not until or piece.timestamp < until:
                    wanted -= self._count_lines(piece, ends[piece.stream])
                if wanted <= 0:
                    self._start_at(pieces, at, ends, cutter)
                    return
            self._start_at(pieces, 0, dict.fromkeys(STREAMS, 0), cutter)

    def go_to_time(self, since: float, cutter: LineCutter) -> None:
        """Go to the first piece that is not older."""
        for number in numbers(self._log.directory):
            if not self._enter(number):
                continue
            pieces = self._all_entries()
            starts = dict.fromkeys(STREAMS, 0)
            for at, piece in enumerate(pieces):
                if piece.timestamp >= since:
                    self._start_at(pieces, at, starts, cutter)
                    return
                starts[piece.stream] += piece.length
            self._start_at(pieces, len(pieces), starts, cutter)

    def _start_at(self, pieces: list[Piece], at: int, offsets: dict[str, int], cutter: LineCutter) -> None:
        self._pieces = deque(pieces[at:])
        self._next_entry = len(pieces) * ENTRY.size
        self._offsets = dict(offsets)
        cutter.forget()
        for stream, offset in offsets.items():
            if offset and os.pread(self._of(stream), 1, offset - 1) != b"\n":
                cutter.skip_to_next_line(stream)

    def _count_lines(self, piece: Piece, offset: int) -> int:
        found = 0
        for at in range(offset, offset + piece.length, _READ_BYTES):
            found += os.pread(self._of(piece.stream), min(_READ_BYTES, offset + piece.length - at), at).count(b"\n")
        return found

    def _all_entries(self) -> list[Piece]:
        assert self._index is not None
        return decode(os.pread(self._index, os.fstat(self._index).st_size, 0))

    def _read_entries(self) -> bool:
        if self._index is None:
            return False
        entries = os.pread(self._index, _ENTRIES_BYTES, self._next_entry)
        self._pieces.extend(decode(entries))
        self._next_entry += len(entries) // ENTRY.size * ENTRY.size
        return bool(self._pieces)

    def _open_next(self) -> bool:
        """Go on to the oldest file after the present one, if there is one: the writer never returns to a former."""
        for number in numbers(self._log.directory):
            # The writer may have added to the present file after our last look and before it went on.
            if number > self._number:
                if self._read_entries():
                    return True
                former = self._number
                if self._enter(number):
                    self._was_overtaken = 0 < former < number - 1
                    return True
        return False

    def _enter(self, number: int) -> bool:
        """Be at the beginning of a file; False if it was rotated away."""
        try:
            index = os.open(path_of(self._log.directory, number, "index"), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        self.close()
        self._index, self._number, self._next_entry = index, number, 0
        self._offsets = dict.fromkeys(STREAMS, 0)
        self._pieces.clear()
        for stream in STREAMS:
            if path_of(self._log.directory, number, stream).exists():
                self._of(stream)  # now: it may be rotated away
        return True

    def _of(self, stream: str) -> int:
        if stream not in self._data:
            try:
                path = path_of(self._log.directory, self._number, stream)
                self._data[stream] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:  # rotated away since its index was opened
                self._data[stream] = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        return self._data[stream]

    def close(self) -> None:
        for descriptor in (*(() if self._index is None else (self._index,)), *self._data.values()):
            os.close(descriptor)
        self._index = None
        self._data.clear()
