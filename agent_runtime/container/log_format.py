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
    out: list[bytes] = []
    pieces = data.split(b"\n")
    last = len(pieces) - 1
    for at, piece in enumerate(pieces):
        while len(piece) > LONGEST_LINE_BYTES:
            out += (head, b"P ", piece[:LONGEST_LINE_BYTES], b"\n")
            piece = piece[LONGEST_LINE_BYTES:]
        if at < last:
            out += (head, b"F ", piece, b"\n")
        elif piece:
            out += (head, b"P ", piece, b"\n")
    return b"".join(out)


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
