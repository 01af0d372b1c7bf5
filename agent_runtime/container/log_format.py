"""How a container's log lies on disk, and how lines are made of it. Pure.

    000001.stdout    what the container wrote, byte for byte
    000001.stderr
    000001.index     an entry for each piece of it, in the order they were read: when, of which stream, how long

Nothing is looked at when it is written: the kernel moves it from the container's pipe into the file, and an entry of 16
bytes follows. Lines are cut by whoever reads. Bytes without an entry are those of a daemon that was killed in between.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

STREAMS = ("stdout", "stderr")
STDIN = "stdin"
LONGEST_LINE_BYTES = 16 * 1024
"""Longer lines come in pieces, as in Docker."""

ENTRY = struct.Struct("<dIHH")
_CONTINUES = 1


class Piece(NamedTuple):
    """`timestamp`: seconds since the epoch; `continues`: the first of its stream in a file, in the middle of a line."""

    timestamp: float
    length: int
    stream: str
    continues: bool = False

    def encode(self) -> bytes:
        return ENTRY.pack(self.timestamp, self.length, STREAMS.index(self.stream), _CONTINUES * self.continues)


def decode(entries: bytes) -> list[Piece]:
    """Return the pieces of an index; what a crash tore at its end, or an entry of no stream, is left out."""
    whole = memoryview(entries)[: len(entries) // ENTRY.size * ENTRY.size]
    return [
        Piece(timestamp, length, STREAMS[stream], bool(flags & _CONTINUES))
        for timestamp, length, stream, flags in ENTRY.iter_unpack(whole)
        if stream < len(STREAMS)
    ]


class Line(NamedTuple):
    """`timestamp`: seconds since the epoch, of its beginning; `data`: without its newline."""

    timestamp: float
    stream: str
    data: bytes


class _Begun(NamedTuple):
    timestamp: float
    data: bytes
    is_skipped: bool


class LineCutter:
    """Cuts what each stream said into lines. Of a line whose beginning is not there, nothing is told."""

    def __init__(self) -> None:
        self._begun: dict[str, _Begun] = {}

    def skip_to_next_line(self, stream: str) -> None:
        """The next bytes are the rest of a line that was not wanted."""
        self._begun[stream] = _Begun(0.0, b"", True)

    def forget(self) -> None:
        """What comes next does not go on from what came before."""
        self._begun.clear()

    def cut(self, piece: Piece, data: bytes) -> list[Line]:
        """Return the lines that `data`, of this piece, ends."""
        begun = self._begun.pop(piece.stream, None)
        if begun is None:
            begun = _Begun(piece.timestamp, b"", piece.continues)
        pieces = data.split(b"\n")
        rest = pieces.pop()
        lines: list[Line] = []
        if not pieces:
            started, rest, skipped = begun.timestamp, begun.data + rest, begun.is_skipped
        else:
            if not begun.is_skipped:
                lines.extend(_lines(begun.timestamp, piece.stream, begun.data + pieces[0]))
            timestamp, stream = piece.timestamp, piece.stream
            if len(data) <= LONGEST_LINE_BYTES or max(map(len, pieces)) <= LONGEST_LINE_BYTES:
                lines.extend([Line(timestamp, stream, text) for text in pieces[1:]])
            else:
                lines.extend(line for text in pieces[1:] for line in _lines(timestamp, stream, text))
            started, skipped = timestamp, False
        if skipped:
            self._begun[piece.stream] = _Begun(0.0, b"", True)
            return lines
        while len(rest) > LONGEST_LINE_BYTES:
            lines.append(Line(started, piece.stream, rest[:LONGEST_LINE_BYTES]))
            started, rest = piece.timestamp, rest[LONGEST_LINE_BYTES:]
        if rest:
            self._begun[piece.stream] = _Begun(started, rest, False)
        return lines

    def rest(self) -> list[Line]:
        """Return what was never finished, once no more can come."""
        begun = [Line(b.timestamp, stream, b.data) for stream, b in self._begun.items() if not b.is_skipped]
        self._begun.clear()
        return sorted(begun)


def _lines(timestamp: float, stream: str, text: bytes) -> Iterator[Line]:
    if len(text) <= LONGEST_LINE_BYTES:
        yield Line(timestamp, stream, text)
        return
    for at in range(0, len(text), LONGEST_LINE_BYTES):
        yield Line(timestamp, stream, text[at : at + LONGEST_LINE_BYTES])
