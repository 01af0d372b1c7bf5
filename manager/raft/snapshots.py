"""Raft snapshots on disk: the state machine's pieces in sealed frames, complete or absent.

    file  = magic, version, salt, frame*
    frame = length, AES-256-GCM(kind byte, content): a header, pieces, and an end that counts them

A file is written aside, synced, renamed, and its directory synced; only then are older ones deleted. The same
frames, opened, travel to a follower that has fallen behind (install.py), which seals them under its own key.
Blocking; the engine calls it from a thread.
"""

import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
from msgspec import Struct

from pyswarm.manager.raft.codec import Entry
from pyswarm.manager.raft.port import Member
from pyswarm.manager.sealing.sealer import SALT_BYTES, FileSealer, SealBroken, Sealer
from pyswarm.proto.certificate_files import sync_directory
from pyswarm.proto.entropy import SYSTEM_ENTROPY, Entropy
from pyswarm.proto.errors import Internal

_PREAMBLE: Final = struct.Struct(f">8sI{SALT_BYTES}s")
_MAGIC: Final = b"PYSWARMS"
_VERSION: Final = 1
_LENGTH_BYTES: Final = 4
_KIND: Final = b"snapshot"
_PREFIX: Final = "snapshot-"
_ASIDE: Final = ".new"

HEADER, PIECE, END = b"H", b"P", b"E"
FRAME_BYTES_MAX: Final = 1024 * 1024


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

    def __init__(self, path: Path, sealer: Sealer, entropy: Entropy) -> None:
        self._path = path
        self._aside = path.with_name(path.name + _ASIDE)
        salt = entropy.bytes(SALT_BYTES)
        self._preamble = _PREAMBLE.pack(_MAGIC, _VERSION, salt)
        self._keys = sealer.for_file(_KIND, salt)
        self._number = 0
        self._is_ended = False
        self._file: BinaryIO = open(  # noqa: SIM115 - closed by finish or abort
            self._aside, "wb", opener=lambda p, flags: os.open(p, flags | os.O_CLOEXEC, 0o600)
        )
        self._file.write(self._preamble)

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
        self._file.write(len(sealed).to_bytes(_LENGTH_BYTES, "big") + sealed)
        self._number += 1

    def add_end(self) -> None:
        self.add(END + self._number.to_bytes(8, "big"))

    def sync(self) -> Path:
        """Bring it to the disk, still aside, and return where it is."""
        if not self._is_ended:
            raise RaftSnapshotDamaged("a snapshot is cut short")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return self._aside

    def publish(self) -> None:
        """Give the synced file its name."""
        self._aside.rename(self._path)
        sync_directory(self._path.parent)

    def abort(self) -> None:
        self._file.close()
        self._aside.unlink(missing_ok=True)


class SnapshotReader:
    """The frames of one snapshot, in order, checked. Keeps the file even when a newer one replaces it."""

    def __init__(self, path: Path, sealer: Sealer) -> None:
        self._path = path
        self._file: BinaryIO = path.open("rb")
        preamble = self._file.read(_PREAMBLE.size)
        if len(preamble) < _PREAMBLE.size or not preamble.startswith(_MAGIC):
            self._file.close()
            raise RaftSnapshotDamaged(f"{path} is not a snapshot")
        _, version, salt = _PREAMBLE.unpack(preamble)
        if version != _VERSION:
            self._file.close()
            raise RaftSnapshotDamaged(
                f"{path} is of format {version}, this version reads {_VERSION}",
                remedy="Run the version of pyswarm that wrote it.",
            )
        self._preamble = preamble
        self._keys: FileSealer = sealer.for_file(_KIND, salt)
        self._number = 0
        self._is_ended = False

    def next_frame(self) -> bytes | None:
        """Return the next frame, None behind the end. Raises RaftSnapshotDamaged."""
        if self._is_ended:
            return None
        length = int.from_bytes(self._file.read(_LENGTH_BYTES), "big")
        sealed = self._file.read(length)
        if not length or len(sealed) < length:
            raise RaftSnapshotDamaged(f"{self._path} is cut short")
        try:
            frame = self._keys.open(self._number, sealed, self._preamble)
        except SealBroken as error:
            raise RaftSnapshotDamaged(f"frame {self._number} of {self._path} does not open") from error
        self._number += 1
        self._is_ended = frame.startswith(END)
        return frame

    def pieces(self) -> Iterator[bytes]:
        """Yield the state machine's pieces; to be called when the header was read."""
        while (frame := self.next_frame()) is not None:
            if frame.startswith(PIECE):
                yield frame[1:]

    def close(self) -> None:
        self._file.close()


class SnapshotStore:
    """The snapshots of one member: the newest, and writers of newer ones."""

    def __init__(self, directory: Path, sealer: Sealer, entropy: Entropy = SYSTEM_ENTROPY) -> None:
        self._directory = directory
        self._sealer = sealer
        self._entropy = entropy

    def prepare(self) -> None:
        """Make the directory and remove what a crash left half written."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for leftover in self._directory.glob(f"*{_ASIDE}"):
            leftover.unlink()

    def open_newest(self) -> tuple[SnapshotHeader, SnapshotReader] | None:
        """Return the newest snapshot's header and a reader behind it, None when there is none.

        Raises:
            RaftSnapshotDamaged: it cannot be believed. Older ones are no substitute: the log before it is gone.
        """
        found = sorted(self._directory.glob(f"{_PREFIX}*"))
        names = [path for path in found if not path.name.endswith(_ASIDE)]
        if not names:
            return None
        return self._open(names[-1])

    def open_aside(self, path: Path) -> tuple[SnapshotHeader, SnapshotReader]:
        """Open a snapshot that was received but not given its name yet."""
        return self._open(path)

    def new_writer(self, header: SnapshotHeader) -> SnapshotWriter:
        """Begin a snapshot; its header is written."""
        writer = SnapshotWriter(self._directory / f"{_PREFIX}{header.index:020d}", self._sealer, self._entropy)
        writer.add(encode_header(header))
        return writer

    def write(self, header: SnapshotHeader, pieces: Iterable[bytes]) -> None:
        """Write a whole snapshot and delete older ones. Raises OSError, leaving what was there."""
        writer = self.new_writer(header)
        try:
            for piece in pieces:
                writer.add(PIECE + piece)
            writer.add_end()
            writer.sync()
        except BaseException:
            writer.abort()
            raise
        writer.publish()
        self.delete_before(header.index)

    def delete_before(self, index: int) -> None:
        for path in self._directory.glob(f"{_PREFIX}*"):
            number = path.name.removeprefix(_PREFIX)
            if number.isdecimal() and int(number) < index:
                path.unlink()

    def _open(self, path: Path) -> tuple[SnapshotHeader, SnapshotReader]:
        reader = SnapshotReader(path, self._sealer)
        try:
            frame = reader.next_frame()
            return decode_header(frame or b""), reader
        except RaftSnapshotDamaged:
            reader.close()
            raise
