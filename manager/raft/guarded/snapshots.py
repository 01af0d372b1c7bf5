"""Snapshots on disk: written aside from an immutable view in a thread, sealed frame by frame, verified before use.

The file is a row of frames of one size, each sealed by itself (salt, AES-256-GCM), because the core sends a snapshot by
reading the file in pieces of that size: what leaves is opened first and sealed again by the receiver under its own key.
Inside is one stream: a header (the log's last two entries, the members), the state machine's pieces, and a digest.
"""

import hashlib
import os
import struct
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from msgspec import Struct, msgpack
from pysyncobj.config import SERIALIZER_STATE

from pyswarm.manager.raft.guarded.commands import join, split
from pyswarm.manager.raft.guarded.journal import Entry
from pyswarm.manager.raft.port import Member
from pyswarm.manager.sealing.sealer import SALT_BYTES, SealBroken, Sealer
from pyswarm.proto.certificate_files import sync_directory
from pyswarm.proto.entropy import SYSTEM_ENTROPY
from pyswarm.proto.errors import Internal
from pyswarm.proto.log import get_logger

log = get_logger(__name__)

PLAIN_BYTES = 64 * 1024
FRAME_BYTES = PLAIN_BYTES + SALT_BYTES + 16
_KIND = b"snapshot"
_LENGTH = struct.Struct(">I")
_END = 0xFFFFFFFF


class SnapshotDamaged(Internal):
    """A snapshot does not verify."""

    remedy = "Remove this manager from the cluster and let it join again: the others hold everything."


class Header(Struct, frozen=True):
    """`last` and `before_last` are (kind, payload, index, term) of the entries the log begins with after it."""

    last: tuple[int, bytes, int, int]
    before_last: tuple[int, bytes, int, int]
    voters: tuple[str, ...]
    members: tuple[Member, ...]

    @property
    def index(self) -> int:
        return self.last[2]

    def entries(self) -> tuple[Entry, Entry]:
        """Return (before_last, last) as the core has entries."""
        return _entry(self.before_last), _entry(self.last)


def _entry(stored: tuple[int, bytes, int, int]) -> Entry:
    kind, payload, index, term = stored
    return join(kind, payload), index, term


def _stored(entry: Entry) -> tuple[int, bytes, int, int]:
    command, index, term = entry
    kind, payload = split(command)
    return kind, payload, index, term


def seal_frame(sealer: Sealer, plain: bytes) -> bytes:
    salt = SYSTEM_ENTROPY.bytes(SALT_BYTES)
    return salt + sealer.for_file(_KIND, salt).seal(0, plain, b"")


def open_frame(sealer: Sealer, frame: bytes) -> bytes:
    """Return the plain bytes of a frame. Raises SealBroken."""
    if len(frame) < SALT_BYTES:
        raise SealBroken("a snapshot's frame is too short")
    return sealer.for_file(_KIND, frame[:SALT_BYTES]).open(0, frame[SALT_BYTES:], b"")


def write_snapshot(path: Path, sealer: Sealer, header: Header, pieces: Iterable[bytes]) -> None:
    """Write a snapshot: aside, synced, renamed, and the directory synced. May run in a thread."""
    aside = path.with_name(path.name + ".new")
    digest = hashlib.sha256()

    def stream() -> Iterator[bytes]:
        for piece in (msgpack.encode(header), *pieces):
            part = _LENGTH.pack(len(piece)) + piece
            digest.update(part)
            yield part
        yield _LENGTH.pack(_END) + digest.digest()

    with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        buffer = bytearray()
        for part in stream():
            buffer += part
            while len(buffer) >= PLAIN_BYTES:
                file.write(seal_frame(sealer, bytes(buffer[:PLAIN_BYTES])))
                del buffer[:PLAIN_BYTES]
        if buffer:
            file.write(seal_frame(sealer, bytes(buffer)))
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)
    sync_directory(path.parent)


def read_snapshot(path: Path, sealer: Sealer) -> tuple[Header, list[bytes]]:
    """Return a snapshot's header and pieces, wholly verified. Raises SnapshotDamaged."""
    try:
        parts = list(_parts(path, sealer))
        header = msgpack.decode(parts[0], type=Header)
    except (SealBroken, ValueError, IndexError) as error:
        raise SnapshotDamaged(f"{path} does not verify: {error}") from error
    return header, parts[1:]


def _parts(path: Path, sealer: Sealer) -> Iterator[bytes]:
    digest = hashlib.sha256()
    buffer = bytearray()
    with path.open("rb") as file:
        while frame := file.read(FRAME_BYTES):
            buffer += open_frame(sealer, frame)
            while len(buffer) >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(buffer)
                end = _LENGTH.size + length
                if length == _END or len(buffer) < end:
                    break
                digest.update(buffer[:end])
                yield bytes(buffer[_LENGTH.size : end])
                del buffer[:end]
    if bytes(buffer) != _LENGTH.pack(_END) + digest.digest():
        raise ValueError("it is cut off, or its digest is wrong")


class SnapshotWriter:
    """Writes one snapshot at a time in a thread, and tells the core how it goes (conf.serializeChecker)."""

    def __init__(self, path: Path, sealer: Sealer) -> None:
        self._path = path
        self._sealer = sealer
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    def begin(
        self,
        last: Entry,
        before_last: Entry,
        voters: Iterable[str],
        members: Iterable[Member],
        pieces: Iterable[bytes],
    ) -> None:
        """Start writing; `pieces` come from an immutable view and are consumed in the thread."""
        header = Header(_stored(last), _stored(before_last), tuple(sorted(voters)), tuple(members))
        self._failure = None

        def write() -> None:
            try:
                write_snapshot(self._path, self._sealer, header, pieces)
            except BaseException as error:  # noqa: BLE001 - reported by `check` in the owner's thread
                self._failure = error

        self._thread = threading.Thread(target=write, name="raft-snapshot")
        self._thread.start()

    def check(self) -> int:
        """Return the core's word for how the snapshot under way is getting on."""
        if self._thread is None:
            return int(SERIALIZER_STATE.NOT_SERIALIZING)
        if self._thread.is_alive():
            return int(SERIALIZER_STATE.SERIALIZING)
        self._thread.join()
        self._thread = None
        if self._failure is not None:
            log.error("a snapshot could not be written", error=repr(self._failure))
            return int(SERIALIZER_STATE.FAILED)
        log.info("snapshot written", bytes=self._path.stat().st_size)
        return int(SERIALIZER_STATE.SUCCESS)

    def wait(self) -> None:
        if self._thread is not None:
            self._thread.join()
