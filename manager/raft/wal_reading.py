"""Read one segment of the write-ahead log and judge what does not open: torn by a crash, or damaged (pure).

The format is wal.py's. A frame that does not open is the torn end of what was written when no valid frame with a
later number lies behind it and when it looks torn: a disk writes whole sectors, and those it did not write are still
the zeros that were reserved. Otherwise the disk has lost what it had promised to keep, and no part of the log may be
believed. Bytes come from the disk and are never trusted: whatever they are, the answer is one of the two.
"""

import struct
import zlib
from pathlib import Path
from typing import Final, NamedTuple

from pyswarm.manager.sealing.sealer import SALT_BYTES, TAG_BYTES, FileSealer, SealBroken
from pyswarm.proto.errors import Internal

MAGIC: Final = b"PYSWARMJ"
VERSION: Final = 3
LINK_BYTES: Final = TAG_BYTES
NO_LINK: Final = bytes(LINK_BYTES)
"""Before the first frame of a journal."""

_HEADER_FIELDS: Final = struct.Struct(f">8sIQQ{LINK_BYTES}s{SALT_BYTES}s")
_CHECK_BYTES: Final = 4
HEADER_BYTES: Final = _HEADER_FIELDS.size + _CHECK_BYTES
FRAME: Final = struct.Struct(f">IIQ{LINK_BYTES}s")
KIND: Final = b"journal"

_SEQUENCE_OFFSET: Final = 8
_BLOCK: Final = 1 << 16
_SECTOR_BYTES: Final = 512
_TORN_ZEROS: Final = bytes(8)


class JournalDamaged(Internal):
    """What is on disk is not what was written, in a place where no crash can have torn it."""

    remedy = (
        "Do not repair it by hand. If the other managers form a majority: remove this node "
        "(`pyswarm node rm --force`), clear its state and let it join again. Otherwise restore a backup of it."
    )


class SegmentHeader(NamedTuple):
    first_sequence: int
    link: bytes
    salt: bytes


def pack_header(number: int, header: SegmentHeader) -> bytes:
    """Return the first bytes of segment `number`: they are synced before its first frame is written."""
    fields = _HEADER_FIELDS.pack(MAGIC, VERSION, number, header.first_sequence, header.link, header.salt)
    return fields + zlib.crc32(fields).to_bytes(_CHECK_BYTES, "big")


def read_header(data: bytes, path: Path, number: int) -> SegmentHeader | None:
    """Return the header of segment `number`, None when it was never wholly written (then nothing follows it).

    Raises:
        JournalDamaged: it was, and is not any more; or it is one of another format or segment.
    """
    fields, check = data[: _HEADER_FIELDS.size], data[_HEADER_FIELDS.size : HEADER_BYTES]
    if len(data) < HEADER_BYTES or zlib.crc32(fields) != int.from_bytes(check, "big"):
        if data[HEADER_BYTES:].strip(b"\0"):
            raise JournalDamaged(f"{path}, byte 0: the header is damaged, and frames follow it")
        return None
    magic, version, found, first_sequence, link, salt = _HEADER_FIELDS.unpack(fields)
    if magic != MAGIC:
        raise JournalDamaged(f"{path}, byte 0: it is no segment of a journal")
    if version != VERSION:
        raise JournalDamaged(
            f"{path} is of format {version}, this version reads {VERSION}",
            remedy="Run the version of pyswarm that wrote it.",
        )
    if found != number:
        raise JournalDamaged(f"{path}, byte 0: it contains segment {found}")
    return SegmentHeader(first_sequence, link, salt)


def open_frame(
    data: bytes, offset: int, sequence: int, link: bytes | None, keys: FileSealer
) -> tuple[bytes, int] | None:
    """Return the content of frame `sequence` at `offset` and where it ends, None when it is not valid.

    `link` is what it must continue; None accepts any that it was sealed with.
    """
    if offset + FRAME.size > len(data):
        return None
    length, inverse, found, before = FRAME.unpack_from(data, offset)
    end = offset + FRAME.size + length
    if length ^ inverse != 0xFFFFFFFF or found != sequence or length < TAG_BYTES or end > len(data):
        return None
    if link is not None and before != link:
        return None
    header = data[:HEADER_BYTES] + data[offset : offset + FRAME.size]
    try:
        return keys.open(sequence, data[offset + FRAME.size : end], header), end
    except SealBroken:
        return None


def refuse_damage(data: bytes, offset: int, sequence: int, keys: FileSealer, path: Path) -> None:
    """Raise JournalDamaged when no crash explains the broken frame `sequence` at `offset`.

    Where the broken frame ends cannot be believed, so every place is tried where a later number may stand. Numbers
    are found by their upper bytes, which those of one segment share, or nearly so.
    """
    rest = data[offset:].rstrip(b"\0")
    for upper in {(sequence + 1) // _BLOCK, sequence // _BLOCK + 1}:
        prefix = upper.to_bytes(6, "big")
        at = rest.find(prefix)
        while at >= 0:
            start = offset + at - _SEQUENCE_OFFSET
            later = int.from_bytes(rest[at : at + 8], "big")
            # The frame's own place is left out: were it valid but for its link, it would not be a later one.
            if start >= offset and later > sequence and open_frame(data, start, later, None, keys) is not None:
                raise JournalDamaged(
                    f"{path}, byte {offset}: frame {sequence} is damaged, and the valid frame {later} "
                    f"follows it at byte {start}"
                )
            at = rest.find(prefix, at + 1)
    if rest and not _is_torn(data, offset):
        raise JournalDamaged(f"{path}, byte {offset}: frame {sequence} was written whole and is damaged")


def _is_torn(data: bytes, offset: int) -> bool:
    """Whether a write that a crash interrupted may have left this: some sector of it still holds zeros."""
    sectors_end = -(-(offset + 1) // _SECTOR_BYTES) * _SECTOR_BYTES
    if sectors_end - offset < FRAME.size or len(data) - offset < FRAME.size:
        return True
    length, inverse, _, _ = FRAME.unpack_from(data, offset)
    end = offset + FRAME.size + length
    if length ^ inverse != 0xFFFFFFFF:
        # Both lie in one sector, which was written or was not.
        return not data[offset : offset + FRAME.size].strip(b"\0")
    if end > len(data) or data[end - len(_TORN_ZEROS) : end] == _TORN_ZEROS:
        return True
    starts = range(sectors_end, end, _SECTOR_BYTES)
    return any(not data[start : min(start + _SECTOR_BYTES, end)].strip(b"\0") for start in starts)
