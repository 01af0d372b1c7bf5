"""Write a whole state out as a stream of bytes, and read it back (pure).

The stream is a run of records, each behind its length: a header, the objects and writers in their one order,
and a trailer with their number and a SHA-256 over all before it. It is cut into pieces without regard to
records, so a piece says nothing by itself. Reading checks everything before it believes anything.
"""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec
from immutables import Map
from msgspec import Struct

from pyswarm.manager.store.apply import UNREADABLE, State, StoredWriter, WriterRecord, state_objects, state_writers
from pyswarm.manager.store.digest import tally
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.proto.errors import Internal
from pyswarm.proto.model.objects import Cluster, Config, Node, Object, Revision, Secret, Service, Stack, Task

PIECE_BYTES: Final = 64 * 1024
FORMAT: Final = 1
_LENGTH_BYTES: Final = 4


class SnapshotDamaged(Internal):
    """A stored snapshot is cut short, altered, or of another format; the state it should replace is untouched."""

    remedy = "Remove this manager's raft directory and let it catch up from the others, or restore a backup."


class Header(Struct, frozen=True, tag="header"):
    format: int
    version: int


class Trailer(Struct, frozen=True, tag="trailer"):
    records: int
    sha256: bytes


_Record = Header | Trailer | StoredWriter | Cluster | Node | Service | Revision | Task | Secret | Config | Stack

_encoder = msgspec.msgpack.Encoder()
_decoder: "msgspec.msgpack.Decoder[_Record]" = msgspec.msgpack.Decoder(_Record)


def write_pieces(state: State) -> Iterator[bytes]:
    """Yield `state` in pieces of at most 64 KiB. May run in a thread while later states are made."""
    buffer = bytearray()
    for framed in _framed_records(state):
        buffer += framed
        while len(buffer) >= PIECE_BYTES:
            yield bytes(buffer[:PIECE_BYTES])
            del buffer[:PIECE_BYTES]
    if buffer:
        yield bytes(buffer)


def read_pieces(index: int, pieces: Iterable[bytes]) -> State:
    """Return the state that was written out at or before `index`; pieces may be cut differently than they were written.

    Raises:
        SnapshotDamaged: anything at all is wrong with it.
    """
    objects: list[Object] = []
    writers: dict[str, WriterRecord] = {}
    hasher = hashlib.sha256()
    header: Header | None = None
    trailer: Trailer | None = None
    count = 0
    for framed, record in _records(pieces):
        if trailer is not None:
            raise SnapshotDamaged("the snapshot goes on behind its end")
        if isinstance(record, Trailer):
            trailer = record
            continue
        hasher.update(framed)
        count += 1
        if isinstance(record, Header):
            header = record
        elif isinstance(record, StoredWriter):
            writers[record.client_id] = WriterRecord(record.last_index, record.settled_below, Map(record.outcomes))
        else:
            objects.append(record)
    if trailer is None or trailer.records != count or trailer.sha256 != hasher.digest():
        raise SnapshotDamaged("the snapshot is cut short or altered")
    if header is None or header.format != FORMAT:
        raise SnapshotDamaged(
            f"the snapshot is of format {header.format if header else 0}, this version reads {FORMAT}"
        )
    if header.version > index:
        raise SnapshotDamaged(f"the snapshot of index {index} contains version {header.version}")
    # The version, not the index: entries of consensus itself have an index too but leave no version, and all
    # managers must agree on it, whether they applied or restored.
    return State(Snapshot.of(*objects, version=header.version), Map(writers), tally(objects))


def _framed_records(state: State) -> Iterator[bytes]:
    hasher = hashlib.sha256()
    count = 0
    for record in _all_records(state):
        framed = _frame(record)
        hasher.update(framed)
        count += 1
        yield framed
    yield _frame(Trailer(count, hasher.digest()))


def _all_records(state: State) -> Iterator[Struct]:
    yield Header(FORMAT, state.view.version)
    yield from state_objects(state)
    yield from state_writers(state)


def _frame(record: Struct) -> bytes:
    data = _encoder.encode(record)
    return len(data).to_bytes(_LENGTH_BYTES, "big") + data


def _records(pieces: Iterable[bytes]) -> Iterator[tuple[bytes, _Record]]:
    buffer = bytearray()
    for piece in pieces:
        buffer += piece
        start = 0
        while len(buffer) - start >= _LENGTH_BYTES:
            end = start + _LENGTH_BYTES + int.from_bytes(buffer[start : start + _LENGTH_BYTES], "big")
            if end > len(buffer):
                break
            framed = bytes(buffer[start:end])
            try:
                yield framed, _decoder.decode(framed[_LENGTH_BYTES:])
            except UNREADABLE as error:
                raise SnapshotDamaged(f"the snapshot holds a record that cannot be read: {error}") from error
            start = end
        del buffer[:start]
    if buffer:
        raise SnapshotDamaged("the snapshot ends inside a record")
