"""Bring a snapshot to a follower that is behind the leader's log: numbered pieces of a numbered stream.

The sender keeps a few pieces under way and goes on as they are acknowledged; the receiver takes piece n + 1 only
after piece n of the same stream, so a reconnect can never splice two halves. The receiver writes aside; the
follower's engine syncs, restores and publishes it before the follower says that it is installed.
"""

from pyswarm.manager.raft.codec import SnapshotPiece
from pyswarm.manager.raft.rules import ALL_RULES, Rules
from pyswarm.manager.raft.snapshots import (
    END,
    SnapshotHeader,
    SnapshotReader,
    SnapshotStore,
    SnapshotWriter,
    decode_header,
    encode_header,
)

PIECES_UNDER_WAY = 16
STALLED_SECONDS = 5.0
"""A stream without an answer for this long is given up; another one begins."""

CONFIRM_SECONDS = 1.0
"""How often a follower that has all pieces is asked whether they are installed."""


class SnapshotSender:
    def __init__(self, header: SnapshotHeader, reader: SnapshotReader, *, stream: int, now: float) -> None:
        self.header = header
        self.stream = stream
        self._reader = reader
        self._number = 0
        self._received = 0
        self._is_sent = False
        self._progressed_at = now
        self._asked_at = now

    def next_pieces(self, term: int) -> list[SnapshotPiece]:
        """Return what may be sent now."""
        pieces = []
        while not self._is_sent and self._number - self._received < PIECES_UNDER_WAY:
            data = encode_header(self.header) if self._number == 0 else self._reader.next_frame()
            assert data is not None, "a snapshot ends with its end frame"
            self._is_sent = data.startswith(END)
            pieces.append(SnapshotPiece(term, self.stream, self._number, self._is_sent, data))
            self._number += 1
        return pieces

    def question(self, term: int, now: float) -> SnapshotPiece | None:
        """Return the first piece again when it is time to ask whether all are installed.

        The follower says so once, and that may be lost with its link while this one lives. Who holds what a first
        piece announces says so again; who is installing it says that it has come.
        """
        if not self._is_all_received or now - self._asked_at < CONFIRM_SECONDS:
            return None
        self._asked_at = now
        return SnapshotPiece(term, self.stream, 0, False, encode_header(self.header))

    def acknowledged(self, received: int, now: float) -> None:
        if received > self._received:
            self._received = received
            self._progressed_at = self._asked_at = now

    @property
    def _is_all_received(self) -> bool:
        return self._is_sent and self._received == self._number

    def heard(self, now: float) -> None:
        """The follower lives. While it syncs and restores the last piece, that is all it can say."""
        if self._is_all_received:
            self._progressed_at = now

    def is_stalled(self, now: float) -> bool:
        return now - self._progressed_at > STALLED_SECONDS

    def close(self) -> None:
        self._reader.close()


class SnapshotReceiver:
    """Takes one stream at a time; a newer one replaces what has come of the older."""

    def __init__(self, store: SnapshotStore, *, rules: Rules = ALL_RULES) -> None:
        self._numbered = rules.number_pieces
        self._store = store
        self._stream: int | None = None
        self._writer: SnapshotWriter | None = None
        self.header: SnapshotHeader | None = None
        self.received = 0

    def begins(self, piece: SnapshotPiece) -> SnapshotHeader | None:
        """Return the header when `piece` begins another stream. Raises RaftSnapshotDamaged."""
        return decode_header(piece.data) if piece.number == 0 and piece.stream != self._stream else None

    def start(self, piece: SnapshotPiece, header: SnapshotHeader) -> None:
        """Begin to write the stream that `piece` opens."""
        self.abort()
        self._writer = self._store.new_writer(header)
        self._stream = piece.stream
        self.header = header
        self.received = 1

    def take(self, piece: SnapshotPiece) -> bool:
        """Write `piece` if it is the next one; return whether the snapshot is complete now.

        Raises:
            RaftSnapshotDamaged: it cannot come at this place.
        """
        is_next = piece.stream == self._stream and piece.number == self.received
        if self._writer is None or (self._numbered and not is_next):
            return False
        self._writer.add(piece.data)
        self.received += 1
        return piece.is_last

    def is_current(self, piece: SnapshotPiece) -> bool:
        return piece.stream == self._stream

    def hand_over(self) -> tuple[SnapshotHeader, SnapshotWriter]:
        """Give the complete snapshot away, to be synced and published."""
        assert self._writer is not None
        assert self.header is not None
        handed = self.header, self._writer
        self._writer = None
        return handed

    def abort(self) -> None:
        if self._writer is not None:
            self._writer.abort()
            self._writer = None
        self._stream = None
        self.header = None
        self.received = 0
