"""Raft snapshots on disk: the state machine's pieces in sealed frames, complete or absent.

    file  = magic, version, salt, frame*
    frame = length, AES-256-GCM(kind byte, content): a header, pieces, and an end that counts them

A file is written aside, synced, read again to the end, renamed, and its directory synced; only then are older ones
deleted, and journal segments that it covers. It is synced bit by bit, so that the journal's own small syncs never
queue behind all of it. The same
frames, opened, travel to a follower that has fallen behind (install.py), which seals them under its own key.
Blocking; the engine calls it from a thread.
"""

import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from pyswarm.manager.raft.codec import Entry
from pyswarm.manager.raft.disk import REAL_DISK, Disk
from pyswarm.manager.raft.port import Member
from pyswarm.manager.sealing.sealer import SALT_BYTES, FileSealer, SealBroken, Sealer
from pyswarm.proto.entropy import SYSTEM_ENTROPY, Entropy
from pyswarm.proto.errors import Internal

_PREAMBLE: Final = struct.Struct(f">8sI{SALT_BYTES}s")
_MAGIC: Final = b"PYSWARMS"
_VERSION: Final = 2
_LENGTH_BYTES: Final = 4
_KIND: Final = b"snapshot"
_PREFIX: Final = "snapshot-"
_ASIDE: Final = ".new"

HEADER, PIECE, END = b"H", b"P", b"E"
FRAME_BYTES_MAX: Final = 1024 * 1024

_BUFFER_BYTES: Final = 256 * 1024
_SYNC_BYTES: Final = 8 * 1024 * 1024


class RaftSnapshotDamaged(Internal):
    remedy = (
        "If the other managers form a majority: demote or remove this node (`pyswarm node rm --force`), clear its "
        "state and let it join again. Otherwise restore a backup of this manager."
    )


class SnapshotHeader(Struct, frozen=True, array_like=True):
    """Where the snapshot stands: `last` is the last entry it covers, `before` the one before; `members` at `last`."""

    before: Entry
    last: Entry
    members: tuple[Member, ...]
    removed: tuple[str, ...] = ()
    """The raft ids of members removed up to `last`, oldest first: they never come back."""

    @property
    def index(self) -> int:
        return self.last[1]

    @property
    def term(self) -> int:
        return self.last[2]


_encoder = msgspec.msgpack.Encoder()
_header_decoder = msgspec.msgpack.Decoder(SnapshotHeader)


def encode_header(header: SnapshotHeader) -> bytes:
    """Return the first frame of a snapshot."""
    return HEADER + _encoder.encode(header)


def decode_header(frame: bytes) -> SnapshotHeader:
    """Raises RaftSnapshotDamaged."""
    if not frame.startswith(HEADER):
        raise RaftSnapshotDamaged("a snapshot does not begin with its header")
    try:
        return _header_decoder.decode(memoryview(frame)[1:])
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise RaftSnapshotDamaged(f"the header of a snapshot cannot be read: {error}") from error


class SnapshotWriter:
    """One snapshot on its way to the disk: frames in order, then `finish`, or `abort`."""

    def __init__(self, path: Path, aside: Path, sealer: Sealer, entropy: Entropy, disk: Disk) -> None:
        self._path = path
        self._aside = aside
        self._sealer = sealer
        self._disk = disk
        salt = sealer.new_salt(entropy)
        self._preamble = _PREAMBLE.pack(_MAGIC, _VERSION, salt)
        self._keys = sealer.for_file(_KIND, salt)
        self._number = 0
        self._is_ended = False
        self._buffer = bytearray(self._preamble)
        self._offset = 0
        self._unsynced = 0
        self._descriptor: int | None = disk.create(aside, 0)

    def add(self, frame: bytes) -> None:
        """Write one frame: kind byte and content. Raises RaftSnapshotDamaged when it cannot come at this place."""
        kind = frame[:1]
        if self._is_ended or (kind == HEADER) != (self._number == 0) or len(frame) > FRAME_BYTES_MAX * 4:
            raise RaftSnapshotDamaged(f"frame {self._number} of a snapshot cannot be {kind!r}")
        if kind == END:
            if frame[1:] != self._number.to_bytes(8, "big"):
                raise RaftSnapshotDamaged("a snapshot's end does not count its frames")
            self._is_ended = True
        elif kind not in (HEADER, PIECE):
            raise RaftSnapshotDamaged(f"frame {self._number} of a snapshot has the unknown kind {kind!r}")
        sealed = self._keys.seal(self._number, frame, self._preamble)
        self._buffer += len(sealed).to_bytes(_LENGTH_BYTES, "big")
        self._buffer += sealed
        self._number += 1
        if len(self._buffer) >= _BUFFER_BYTES:
            self._write_buffer()

    def add_end(self) -> None:
        self.add(END + self._number.to_bytes(8, "big"))

    def sync(self) -> Path:
        """Bring it to the disk, still aside, and return where it is."""
        if not self._is_ended:
            raise RaftSnapshotDamaged("a snapshot is cut short")
        assert self._descriptor is not None
        self._write_buffer()
        self._disk.sync(self._descriptor)
        self._close()
        return self._aside

    def verify(self, rest: Callable[[], None]) -> None:
        """Read all of the synced file again. Raises RaftSnapshotDamaged: it must not replace anything."""
        reader = SnapshotReader(self._aside, self._sealer, self._disk)
        try:
            decode_header(reader.next_frame() or b"")
            for _ in reader.pieces():
                rest()
        finally:
            reader.close()

    def publish(self) -> None:
        """Give the synced file its name."""
        self._disk.rename(self._aside, self._path)
        self._disk.sync_directory(self._path.parent)

    def abort(self) -> None:
        """Forget what was written; what cannot be deleted now goes at the next start."""
        self._close()
        with suppress(FileNotFoundError):
            self._disk.unlink(self._aside)

    def _write_buffer(self) -> None:
        assert self._descriptor is not None
        self._disk.write(self._descriptor, self._buffer, self._offset)
        self._offset += len(self._buffer)
        self._unsynced += len(self._buffer)
        self._buffer = bytearray()
        if self._unsynced >= _SYNC_BYTES:
            self._disk.sync(self._descriptor)
            self._unsynced = 0

    def _close(self) -> None:
        if self._descriptor is not None:
            self._disk.close(self._descriptor)
            self._descriptor = None


class SnapshotReader:
    """The frames of one snapshot, in order, checked. Keeps the file even when a newer one replaces it."""

    def __init__(self, path: Path, sealer: Sealer, disk: Disk) -> None:
        self._path = path
        self._disk = disk
        self._descriptor: int | None = disk.open(path)
        self._offset = 0
        self._buffer = b""
        self._at = 0
        try:
            preamble = self._read(_PREAMBLE.size)
            if len(preamble) < _PREAMBLE.size or not preamble.startswith(_MAGIC):
                raise RaftSnapshotDamaged(f"{path} is not a snapshot")
            _, version, salt = _PREAMBLE.unpack(preamble)
            if version != _VERSION:
                raise RaftSnapshotDamaged(
                    f"{path} is of format {version}, this version reads {_VERSION}",
                    remedy="Run the version of pyswarm that wrote it.",
                )
            self._keys: FileSealer = sealer.for_file(_KIND, salt)
        except SealBroken as error:
            self.close()
            raise RaftSnapshotDamaged(f"{path} is {error.message}") from error
        except BaseException:
            self.close()
            raise
        self._preamble = preamble
        self._number = 0
        self._is_ended = False

    def next_frame(self) -> bytes | None:
        """Return the next frame, None behind the end. Raises RaftSnapshotDamaged."""
        if self._is_ended:
            return None
        start = self._offset - len(self._buffer) + self._at
        length = int.from_bytes(self._read(_LENGTH_BYTES), "big")
        if length > FRAME_BYTES_MAX * 5:
            raise RaftSnapshotDamaged(f"{self._path}, byte {start}: no frame is {length} bytes long")
        sealed = self._read(length)
        if not length or len(sealed) < length:
            raise RaftSnapshotDamaged(f"{self._path}, byte {start}: it is cut short")
        try:
            frame = self._keys.open(self._number, sealed, self._preamble)
        except SealBroken as error:
            raise RaftSnapshotDamaged(f"{self._path}, byte {start}: frame {self._number} does not open") from error
        self._number += 1
        self._is_ended = frame.startswith(END)
        return frame

    def pieces(self) -> Iterator[bytes]:
        """Yield the state machine's pieces; to be called when the header was read."""
        while (frame := self.next_frame()) is not None:
            if frame.startswith(PIECE):
                yield frame[1:]

    def close(self) -> None:
        if self._descriptor is not None:
            self._disk.close(self._descriptor)
            self._descriptor = None

    def _read(self, size: int) -> bytes:
        """Return the next `size` bytes, fewer at the end of the file."""
        if self._at + size > len(self._buffer):
            assert self._descriptor is not None
            rest = self._buffer[self._at :]
            more = self._disk.read(self._descriptor, max(_BUFFER_BYTES, size - len(rest)), self._offset)
            self._offset += len(more)
            self._buffer, self._at = rest + more, 0
        part = self._buffer[self._at : self._at + size]
        self._at += len(part)
        return part


class SnapshotStore:
    """The snapshots of one member: the newest, and writers of newer ones."""

    def __init__(
        self, directory: Path, sealer: Sealer, entropy: Entropy = SYSTEM_ENTROPY, *, disk: Disk = REAL_DISK
    ) -> None:
        self._directory = directory
        self._sealer = sealer
        self._entropy = entropy
        self._disk = disk
        self._asides = 0

    def prepare(self) -> None:
        """Make the directory and remove what a crash left half written."""
        self._disk.make_directory(self._directory)
        for name in self._disk.names(self._directory):
            if name.endswith(_ASIDE):
                self._disk.unlink(self._directory / name)
        # The newest name may be one whose process was killed before it was synced.
        self._disk.sync_directory(self._directory)

    def open_newest(self) -> tuple[SnapshotHeader, SnapshotReader] | None:
        """Return the newest snapshot's header and a reader behind it, None when there is none.

        Raises:
            RaftSnapshotDamaged: it cannot be believed. Older ones are no substitute: the log before it is gone.
        """
        indexes = self._indexes()
        return self._open(self._path(indexes[-1])) if indexes else None

    def open_aside(self, path: Path) -> tuple[SnapshotHeader, SnapshotReader]:
        """Open a snapshot that was received but not given its name yet."""
        return self._open(path)

    def new_writer(self, header: SnapshotHeader) -> SnapshotWriter:
        """Begin a snapshot; its header is written."""
        self._asides += 1
        path = self._path(header.index)
        # One of its own for every writer: a received snapshot may stand at the index of one being written.
        aside = path.with_name(f"{path.name}.{self._asides}{_ASIDE}")
        writer = SnapshotWriter(path, aside, self._sealer, self._entropy, self._disk)
        writer.add(encode_header(header))
        return writer

    def write(self, header: SnapshotHeader, pieces: Iterable[bytes], rest: Callable[[], None] = lambda: None) -> None:
        """Write a whole snapshot and delete older ones. `rest` is called after each small piece of work (pace.py).

        Raises:
            OSError, RaftSnapshotDamaged: it could not be written, or not be read again; what was there remains.
        """
        writer = self.new_writer(header)
        try:
            for piece in pieces:
                writer.add(PIECE + piece)
                rest()
            writer.add_end()
            writer.sync()
            writer.verify(rest)
        except BaseException:
            writer.abort()
            raise
        writer.publish()
        self.delete_before(header.index)

    def salts(self) -> list[bytes]:
        """Return those of all snapshots there are: which data keys are needed to read them. Blocking."""
        found = []
        for index in self._indexes():
            descriptor = self._disk.open(self._path(index))
            try:
                preamble = self._disk.read(descriptor, _PREAMBLE.size, 0)
            finally:
                self._disk.close(descriptor)
            if len(preamble) == _PREAMBLE.size:
                found.append(_PREAMBLE.unpack(preamble)[2])
        return found

    def delete_before(self, index: int) -> None:
        for found in self._indexes():
            if found < index:
                self._disk.unlink(self._path(found))

    def _indexes(self) -> list[int]:
        suffixes = (
            name.removeprefix(_PREFIX) for name in self._disk.names(self._directory) if name.startswith(_PREFIX)
        )
        return sorted(int(suffix) for suffix in suffixes if suffix.isdecimal())

    def _path(self, index: int) -> Path:
        return self._directory / f"{_PREFIX}{index:020d}"

    def _open(self, path: Path) -> tuple[SnapshotHeader, SnapshotReader]:
        reader = SnapshotReader(path, self._sealer, self._disk)
        try:
            frame = reader.next_frame()
            return decode_header(frame or b""), reader
        except RaftSnapshotDamaged:
            reader.close()
            raise
