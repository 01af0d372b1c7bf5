"""The write-ahead log on disk: sealed frames in numbered segment files, one fdatasync per frame.

    segment = header (magic, version, number, first frame's sequence, link, salt, checksum) frame*
    frame   = length, ~length, sequence, link, AES-256-GCM(content) with both headers as additional data

A link is the tag of the frame before, across segments as well: every frame vouches for all before it, so none
can be put in the place of another, not even from a copy of the same journal that went another way. Every segment
has its own key (sealing). A segment is never appended to after a restart, so no key ever seals two frames under
one number. Frames are written one after the other, each synced before the next: so only the last one can be torn.
A bad frame ends its segment, and the next segment's header proves that nothing valid is missing; anything else is
damage, and refused. What the frames mean: journal.py. How a segment is read and judged: wal_reading.py.

The room that a segment has set aside is filled with zeros a little ahead of small frames, where somebody does that
beside them (disk_thread.py). To write where nothing was ever written changes what the file system knows of the file, so
each sync writes that down as well and takes twice as long.

Blocking; to be called from one thread at a time.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from pyswarm.manager.raft.disk import REAL_DISK, Disk
from pyswarm.manager.raft.wal_reading import (
    FRAME,
    HEADER_BYTES,
    KIND,
    LINK_BYTES,
    NO_LINK,
    JournalDamaged,
    SegmentHeader,
    open_frame,
    pack_header,
    read_header,
    refuse_damage,
)
from pyswarm.manager.sealing.sealer import TAG_BYTES, FileSealer, SealBroken, Sealer
from pyswarm.proto.entropy import SYSTEM_ENTROPY, Entropy

__all__ = ["JournalDamaged", "Wal"]

_SUFFIX: Final = ".wal"
_BLOCK_BYTES: Final = 4096

FILL_BYTES: Final = 256 * 1024
"""How much is filled with zeros at once: 0.5 ms of the disk's time."""

FILL_FOR_BYTES: Final = 48 * 1024
"""Behind larger frames nothing is filled: all is written twice then, which costs more than what each sync spares."""


@dataclass
class _Segment:
    number: int
    path: Path
    mark: int = 0
    """The highest log index in it."""
    size: int = 0
    """Bytes of a segment that is complete."""
    salt: bytes = b""


class SealedFrame(NamedTuple):
    """A frame to be written at `offset` of the system's `descriptor`, and synced.

    Afterwards the bytes from `zeros_from` to `zeros_to` may be filled with zeros, as long as the descriptor is open.
    """

    descriptor: int
    data: bytes
    offset: int
    zeros_from: int = 0
    zeros_to: int = 0


class Wal:
    """The segments of one journal. Read them with `recover` first, then append."""

    def __init__(
        self,
        directory: Path,
        sealer: Sealer,
        *,
        segment_bytes: int,
        disk: Disk = REAL_DISK,
        entropy: Entropy = SYSTEM_ENTROPY,
    ) -> None:
        self._directory = directory
        self._sealer = sealer
        self._segment_bytes = segment_bytes
        self._disk = disk
        self._entropy = entropy
        self._segments: list[_Segment] = []
        self._sequence = 0
        self._link = NO_LINK
        self._descriptor: int | None = None
        self._offset = 0
        self._capacity = 0
        self._filled = 0
        """Up to where the segment in use was filled with zeros, or will be behind the last frame."""
        self._header = b""
        self._keys: FileSealer | None = None

    def recover(self) -> Iterator[tuple[int, bytes]]:
        """Yield (segment, content) of every frame, in order; cuts a torn tail off.

        What was read is durable when the iterator ends: a frame that a killed process had written and not synced
        may be there now and gone after the next power cut, so it is synced before anybody relies on it.

        Raises:
            JournalDamaged: something is missing or altered that no crash explains.
        """
        self._disk.make_directory(self._directory)
        self._segments = self._find_segments()
        for place, segment in enumerate(list(self._segments)):
            is_last = place == len(self._segments) - 1
            descriptor = self._disk.open(segment.path)
            try:
                data = self._disk.read(descriptor, self._disk.size(descriptor), 0)
                header = read_header(data, segment.path, segment.number)
                if header is None and not is_last:
                    raise JournalDamaged(f"{segment.path}, byte 0: no valid header, and a later segment exists")
                if header is not None:
                    self._must_continue(place, segment, header)
                    end = yield from self._frames(data, segment, header)
                    segment.size = end
                    if end < len(data):
                        self._disk.truncate(descriptor, end)
                    if is_last:
                        self._disk.sync(descriptor)
                        if end > HEADER_BYTES:
                            continue
            finally:
                self._disk.close(descriptor)
            if is_last:
                # The crash came before its first frame was synced: it holds nothing, and its number is free again.
                self._disk.unlink(segment.path)
                self._segments.remove(segment)
        self._disk.sync_directory(self._directory)

    def _find_segments(self) -> list[_Segment]:
        found = []
        for name in self._disk.names(self._directory):
            stem = name.removesuffix(_SUFFIX)
            if stem != name:
                if not stem.isdecimal():
                    raise JournalDamaged(f"{self._directory / name} is no segment of this journal")
                found.append(_Segment(int(stem), self._directory / name))
        return sorted(found, key=lambda segment: segment.number)

    def _must_continue(self, place: int, segment: _Segment, header: SegmentHeader) -> None:
        if place and segment.number != self._segments[place - 1].number + 1:
            raise JournalDamaged(f"the segment before {segment.path} is missing")
        if place and header.first_sequence != self._sequence:
            raise JournalDamaged(
                f"frames {self._sequence} to {header.first_sequence - 1} are missing before {segment.path}"
            )
        if place and header.link != self._link:
            raise JournalDamaged(f"{segment.path}, byte 0: it does not continue the segment before it")

    def _frames(self, data: bytes, segment: _Segment, header: SegmentHeader) -> Generator[tuple[int, bytes], None, int]:
        """Yield the segment's frames; return where they end."""
        segment.salt = header.salt
        try:
            keys = self._sealer.for_file(KIND, header.salt)
        except SealBroken as error:
            raise JournalDamaged(f"{segment.path} is {error.message}") from error
        end, sequence, link = HEADER_BYTES, header.first_sequence, header.link
        while (found := open_frame(data, end, sequence, link, keys)) is not None:
            content, end = found
            link = data[end - LINK_BYTES : end]
            sequence += 1
            yield segment.number, content
        refuse_damage(data, end, sequence, keys, segment.path)
        self._sequence, self._link = sequence, link
        return end

    def set_mark(self, number: int, mark: int) -> None:
        """Say which log index a recovered segment reaches to."""
        for segment in self._segments:
            if segment.number == number:
                segment.mark = max(segment.mark, mark)

    @property
    def is_empty(self) -> bool:
        return not self._segments

    @property
    def used_bytes(self) -> int:
        """What the frames on the disk take; the segment in use has room set aside beyond it. From any thread."""
        return sum(segment.size for segment in tuple(self._segments)) + (self._offset if self._descriptor else 0)

    def append(self, content: bytes, mark: int) -> None:
        """Write one frame and return when it is on the disk. `mark` is the highest log index in it.

        Raises:
            OSError: it may or may not be on the disk; nothing may be appended any more.
        """
        if not self._has_room_for(content):
            self._roll(_frame_bytes(content))
        frame = self._seal(content, mark)
        self._disk.write(frame.descriptor, frame.data, frame.offset)
        self._disk.sync(frame.descriptor)

    def prepare(self, content: bytes, mark: int) -> SealedFrame | None:
        """Return the next frame for the caller to write and sync, as `append` would: then it counts as written here.

        None when it takes more than that (a new segment, or a disk of another kind): call `append`. Does not block.
        """
        if not self._disk.has_system_descriptors or not self._has_room_for(content):
            return None
        zeros_from, zeros_to = self._room_to_fill(self._offset + _frame_bytes(content))
        return self._seal(content, mark)._replace(zeros_from=zeros_from, zeros_to=zeros_to)

    def _room_to_fill(self, end: int) -> tuple[int, int]:
        """Return from where to where zeros are to be written behind the frame that ends at `end`."""
        start = max(self._filled, -(-end // _BLOCK_BYTES) * _BLOCK_BYTES)
        is_far = start - end >= FILL_BYTES // 2
        if is_far or end - self._offset > FILL_FOR_BYTES or start >= self._capacity:
            return start, start
        self._filled = min(start + FILL_BYTES, self._capacity)
        return start, self._filled

    def _has_room_for(self, content: bytes) -> bool:
        return self._descriptor is not None and self._offset + _frame_bytes(content) <= self._capacity

    def _seal(self, content: bytes, mark: int) -> SealedFrame:
        assert self._descriptor is not None
        assert self._keys is not None
        length = len(content) + TAG_BYTES
        head = FRAME.pack(length, ~length & 0xFFFFFFFF, self._sequence, self._link)
        sealed = self._keys.seal(self._sequence, content, self._header + head)
        frame = SealedFrame(self._descriptor, head + sealed, self._offset)
        self._offset += len(frame.data)
        self._sequence += 1
        self._link = sealed[-LINK_BYTES:]
        self._segments[-1].mark = max(self._segments[-1].mark, mark)
        return frame

    def remove_below(self, index: int) -> None:
        """Delete the oldest segments as long as all their entries lie below `index`; never the one in use."""
        while len(self._segments) > 1 and self._segments[0].mark < index:
            self._disk.unlink(self._segments.pop(0).path)
            # One by one: a power cut that kept an older one and lost a newer one would look like damage.
            self._disk.sync_directory(self._directory)

    @property
    def salts(self) -> list[bytes]:
        """Of all segments there are: which data keys are needed to read them."""
        return [segment.salt for segment in self._segments]

    def end_segment(self) -> None:
        """Have the next frame begin a new segment, with a key of its own."""
        self.close()

    def close(self) -> None:
        if self._descriptor is not None:
            self._disk.truncate(self._descriptor, self._offset)
            self._disk.close(self._descriptor)
            self._descriptor = None
            self._segments[-1].size = self._offset

    def _roll(self, needed: int) -> None:
        self.close()
        number = self._segments[-1].number + 1 if self._segments else 1
        path = self._directory / f"{number:012d}{_SUFFIX}"
        salt = self._sealer.new_salt(self._entropy)
        self._capacity = max(self._segment_bytes, HEADER_BYTES + needed)
        self._descriptor = self._disk.create(path, self._capacity)
        self._header = pack_header(number, SegmentHeader(self._sequence, self._link, salt))
        self._keys = self._sealer.for_file(KIND, salt)
        self._disk.write(self._descriptor, self._header, 0)
        self._disk.sync(self._descriptor)
        self._disk.sync_directory(self._directory)
        self._offset = self._filled = HEADER_BYTES
        self._segments.append(_Segment(number, path, salt=salt))


def _frame_bytes(content: bytes) -> int:
    return FRAME.size + len(content) + TAG_BYTES
