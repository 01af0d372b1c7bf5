"""The write-ahead log on disk: sealed frames in numbered segment files, one fdatasync per frame.

    segment = header (magic, version, number, first frame's sequence, salt) frame*
    frame   = length, ~length, sequence, AES-256-GCM(content) with both headers as additional data

Every segment has its own key (sealing). A segment is never appended to after a restart, so no key ever seals two
frames under one number. Frames are written one after the other, each synced before the next: so only the last
one can be torn. A bad frame ends its segment, and the next segment's first sequence proves that nothing valid is
missing; anything else is damage, and refused. What the frames mean: journal.py.

Blocking; to be called from one thread at a time.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from pyswarm.manager.sealing.sealer import SALT_BYTES, TAG_BYTES, FileSealer, SealBroken, Sealer
from pyswarm.proto.certificate_files import sync_directory
from pyswarm.proto.entropy import SYSTEM_ENTROPY, Entropy
from pyswarm.proto.errors import Internal

_MAGIC: Final = b"PYSWARMJ"
_VERSION: Final = 1
_HEADER: Final = struct.Struct(f">8sIQQ{SALT_BYTES}s")
_FRAME: Final = struct.Struct(">IIQ")
_KIND: Final = b"journal"
_SUFFIX: Final = ".wal"


class JournalDamaged(Internal):
    """What is on disk is not what was written, in a place where no crash can have torn it."""

    remedy = (
        "Do not repair it by hand. If the other managers form a majority: remove this node "
        "(`pyswarm node rm --force`), clear its state and let it join again. Otherwise restore a backup of it."
    )


class Disk(Protocol):
    """What a journal needs of a file system; the simulator has one that loses and tears writes."""

    def create(self, path: Path, size: int) -> int:
        """Create `path` with `size` bytes reserved and return its descriptor."""

    def write(self, descriptor: int, data: bytes, offset: int) -> None: ...

    def sync(self, descriptor: int) -> None:
        """Return when all that was written is on the disk."""

    def sync_directory(self, path: Path) -> None: ...


class RealDisk:
    def create(self, path: Path, size: int) -> int:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            # Reserved space makes fdatasync cheaper, and a full disk an error here instead of in mid-write.
            os.posix_fallocate(descriptor, 0, size)
        except OSError:
            os.close(descriptor)
            path.unlink()
            raise
        return descriptor

    def write(self, descriptor: int, data: bytes, offset: int) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(descriptor, view, offset)
            view, offset = view[written:], offset + written

    def sync(self, descriptor: int) -> None:
        os.fdatasync(descriptor)

    def sync_directory(self, path: Path) -> None:
        sync_directory(path)


@dataclass
class _Segment:
    number: int
    path: Path
    mark: int = 0
    """The highest log index in it."""


class Wal:
    """The segments of one journal. Read them with `recover` first, then append."""

    def __init__(
        self,
        directory: Path,
        sealer: Sealer,
        *,
        segment_bytes: int,
        disk: Disk | None = None,
        entropy: Entropy = SYSTEM_ENTROPY,
    ) -> None:
        self._directory = directory
        self._sealer = sealer
        self._segment_bytes = segment_bytes
        self._disk: Disk = disk or RealDisk()
        self._entropy = entropy
        self._segments: list[_Segment] = []
        self._sequence = 0
        self._descriptor: int | None = None
        self._offset = 0
        self._capacity = 0
        self._header = b""
        self._keys: FileSealer | None = None

    def recover(self) -> Iterator[tuple[int, bytes]]:
        """Yield (segment, content) of every frame, in order; cuts a torn tail off.

        Raises:
            JournalDamaged: something is missing or altered that no crash explains.
        """
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._segments = [_Segment(int(path.stem), path) for path in sorted(self._directory.glob(f"*{_SUFFIX}"))]
        expected: int | None = None
        for place, segment in enumerate(list(self._segments)):
            is_last = place == len(self._segments) - 1
            data = segment.path.read_bytes()
            header = _read_header(data, segment)
            if header is None:
                # The crash came before the header was synced, hence before any frame.
                if not is_last:
                    raise JournalDamaged(f"{segment.path} has no valid header")
                segment.path.unlink()
                self._segments.remove(segment)
                return
            first_sequence, salt = header
            if place and segment.number != self._segments[place - 1].number + 1:
                raise JournalDamaged(f"the segment before {segment.path} is missing")
            if expected is not None and first_sequence != expected:
                raise JournalDamaged(f"frames {expected} to {first_sequence - 1} are missing before {segment.path}")
            keys = self._sealer.for_file(_KIND, salt)
            end = _HEADER.size
            sequence = first_sequence
            while (found := _open_frame(data, end, sequence, keys)) is not None:
                content, end = found
                yield segment.number, content
                sequence += 1
            _refuse_damage(data, end, sequence, keys, segment.path)
            expected = sequence
            self._sequence = sequence
            if end < len(data):
                os.truncate(segment.path, end)

    def set_mark(self, number: int, mark: int) -> None:
        """Say which log index a recovered segment reaches to."""
        for segment in self._segments:
            if segment.number == number:
                segment.mark = max(segment.mark, mark)

    @property
    def is_empty(self) -> bool:
        return not self._segments

    def append(self, content: bytes, mark: int) -> None:
        """Write one frame and return when it is on the disk. `mark` is the highest log index in it.

        Raises:
            OSError: it may or may not be on the disk; nothing may be appended any more.
        """
        size = _FRAME.size + len(content) + TAG_BYTES
        if self._descriptor is None or self._offset + size > self._capacity:
            self._roll(size)
        assert self._descriptor is not None
        assert self._keys is not None
        length = len(content) + TAG_BYTES
        head = _FRAME.pack(length, ~length & 0xFFFFFFFF, self._sequence)
        sealed = self._keys.seal(self._sequence, content, self._header + head)
        self._disk.write(self._descriptor, head + sealed, self._offset)
        self._disk.sync(self._descriptor)
        self._offset += size
        self._sequence += 1
        self._segments[-1].mark = max(self._segments[-1].mark, mark)

    def remove_below(self, index: int) -> None:
        """Delete the oldest segments as long as all their entries lie below `index`; never the one in use."""
        while len(self._segments) > 1 and self._segments[0].mark < index:
            self._segments.pop(0).path.unlink()

    def close(self) -> None:
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, self._offset)
            os.close(self._descriptor)
            self._descriptor = None

    def _roll(self, needed: int) -> None:
        self.close()
        number = self._segments[-1].number + 1 if self._segments else 1
        path = self._directory / f"{number:012d}{_SUFFIX}"
        salt = self._entropy.bytes(SALT_BYTES)
        self._capacity = max(self._segment_bytes, _HEADER.size + needed)
        self._descriptor = self._disk.create(path, self._capacity)
        self._header = _HEADER.pack(_MAGIC, _VERSION, number, self._sequence, salt)
        self._keys = self._sealer.for_file(_KIND, salt)
        self._disk.write(self._descriptor, self._header, 0)
        self._disk.sync(self._descriptor)
        self._disk.sync_directory(self._directory)
        self._offset = _HEADER.size
        self._segments.append(_Segment(number, path))


def _read_header(data: bytes, segment: _Segment) -> tuple[int, bytes] | None:
    if len(data) < _HEADER.size:
        return None
    magic, version, number, first_sequence, salt = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        return None
    if version != _VERSION:
        raise JournalDamaged(
            f"{segment.path} is of format {version}, this version reads {_VERSION}",
            remedy="Run the version of pyswarm that wrote it.",
        )
    if number != segment.number:
        raise JournalDamaged(f"{segment.path} contains segment {number}")
    return first_sequence, salt


def _open_frame(data: bytes, offset: int, sequence: int, keys: FileSealer) -> tuple[bytes, int] | None:
    """Return the content of frame `sequence` at `offset` and where it ends, None when it is not valid."""
    if offset + _FRAME.size > len(data):
        return None
    length, inverse, found = _FRAME.unpack_from(data, offset)
    end = offset + _FRAME.size + length
    if length ^ inverse != 0xFFFFFFFF or found != sequence or length < TAG_BYTES or end > len(data):
        return None
    header = data[: _HEADER.size] + data[offset : offset + _FRAME.size]
    try:
        return keys.open(sequence, data[offset + _FRAME.size : end], header), end
    except SealBroken:
        return None


def _refuse_damage(data: bytes, offset: int, sequence: int, keys: FileSealer, path: Path) -> None:
    """Raise when a later frame is whole behind a broken one: that is damage, not a torn tail.

    Where the broken frame ends cannot be believed, so every place is tried where the next number stands.
    """
    rest = data[offset:].rstrip(b"\0")
    following = (sequence + 1).to_bytes(8, "big")
    at = rest.find(following)
    while at >= 0:
        start = offset + at - (_FRAME.size - 8)
        if start > offset and _open_frame(data, start, sequence + 1, keys) is not None:
            raise JournalDamaged(f"{path}: frame {sequence} at byte {offset} is damaged, and valid ones follow it")
        at = rest.find(following, at + 1)
