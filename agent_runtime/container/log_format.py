"""One line of a container's log on disk, in the format that Kubernetes' runtimes use. Pure.

    2026-11-23T21:58:03.123456Z stdout F the line, without its newline
    2026-11-23T21:58:03.223456Z stderr P the beginning of a line that is not finished

Pieces (`P`) are written at once, so that nothing read from a container waits in our memory; readers join them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

LONGEST_LINE_BYTES = 16 * 1024
"""Longer lines come in pieces, as in Docker."""


@dataclass(frozen=True)
class Line:
    """`timestamp`: seconds since the epoch; `data`: without its newline."""

    timestamp: float
    stream: str
    data: bytes
    is_whole: bool = True


def encode(data: bytes, stream: str, timestamp: float) -> bytes:
    """Return what a container wrote as log lines."""
    moment = datetime.fromtimestamp(timestamp, UTC).isoformat(timespec="microseconds")
    head = f"{moment[:-6]}Z {stream} ".encode()
    pieces = data.split(b"\n")
    if max(map(len, pieces)) <= LONGEST_LINE_BYTES:
        # One joining of what is nearly always all of it: this is what decides how fast a container can write.
        whole = b"".join((head, b"F ", (b"\n" + head + b"F ").join(pieces[:-1]), b"\n")) if len(pieces) > 1 else b""
        return whole + (b"".join((head, b"P ", pieces[-1], b"\n")) if pieces[-1] else b"")
    return b"".join(_in_pieces(pieces, head))


def _in_pieces(lines: list[bytes], head: bytes) -> Iterator[bytes]:
    """Yield lines, the last one unfinished, cut where they are too long."""
    for line in lines[:-1]:
        while len(line) > LONGEST_LINE_BYTES:
            yield head + b"P " + line[:LONGEST_LINE_BYTES] + b"\n"
            line = line[LONGEST_LINE_BYTES:]
        yield head + b"F " + line + b"\n"
    rest = lines[-1]
    for at in range(0, len(rest), LONGEST_LINE_BYTES):
        yield head + b"P " + rest[at : at + LONGEST_LINE_BYTES] + b"\n"


def decode(line: bytes) -> Line | None:
    """Read one line of a log, without its newline; None for what a crash tore."""
    moment, _, rest = line.partition(b" ")
    stream, _, rest = rest.partition(b" ")
    tag, space, data = rest.partition(b" ")
    if not space or tag not in (b"F", b"P") or stream not in (b"stdout", b"stderr"):
        return None
    try:
        timestamp = datetime.fromisoformat(moment.decode("ascii")).timestamp()
    except ValueError:
        return None
    return Line(timestamp, stream.decode(), data, tag == b"F")


class Joiner:
    """Joins the pieces of each stream to whole lines."""

    def __init__(self) -> None:
        self._begun: dict[str, Line] = {}

    def join(self, line: Line) -> Line | None:
        """Return a line to show, or None while it is not finished."""
        begun = self._begun.pop(line.stream, None)
        if begun is not None:
            line = Line(begun.timestamp, line.stream, begun.data + line.data, line.is_whole)
        if line.is_whole or len(line.data) >= LONGEST_LINE_BYTES:
            return line
        self._begun[line.stream] = line
        return None

    def rest(self) -> Iterator[Line]:
        """Return what was never finished, once no more can come."""
        yield from sorted(self._begun.values(), key=lambda line: line.timestamp)
        self._begun.clear()
