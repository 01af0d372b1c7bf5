"""The durable journal: PySyncObj's log, term and vote, in sealed segments that are synced before anything depends on them.

In memory it is the list the core wants. Each change is also noted as an operation; `flush` writes all operations since the
last one as one sealed frame and syncs it (group commit). Segments are never appended to after a restart. A torn
frame at the end of a segment is what a crash leaves and is cut; a bad frame with valid ones after it is damage and refused.

    segment = magic, salt, number of its first frame; frame = length, number, AES-256-GCM of the operations
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from pysyncobj.journal import Journal as CoreJournal

from pyswarm.manager.raft.guarded.commands import ForeignCommand, join, split
from pyswarm.manager.sealing.sealer import SALT_BYTES, FileSealer, SealBroken, Sealer
from pyswarm.proto.certificate_files import sync_directory
from pyswarm.proto.entropy import SYSTEM_ENTROPY
from pyswarm.proto.errors import Internal
from pyswarm.proto.log import get_logger

log = get_logger(__name__)

MAGIC = b"PSWWAL01"
_FIRST = struct.Struct(">Q")
_FRAME = struct.Struct(">IQ")
_HEADER_BYTES = len(MAGIC) + SALT_BYTES + _FIRST.size
_KIND = b"journal"

SEGMENT_BYTES = 16 * 1024 * 1024

Entry = tuple[bytes, int, int]
"""(command, index, term), as the core has it."""


class JournalDamaged(Internal):
    """The journal cannot be believed."""

    remedy = (
        "Remove this manager from the cluster (`pyswarm node demote` and `node rm --force` on another one), run "
        "`pyswarm leave --force` here and join again: the others hold everything."
    )


class SealedJournal(CoreJournal):
    """Implements PySyncObj's Journal. Single-threaded; the engine calls `flush` before anything depends on it."""

    def __init__(self, directory: Path, sealer: Sealer) -> None:
        self._directory = directory
        self._sealer = sealer
        self._entries: list[Entry] = []
        self._term = 0
        self._vote: str | None = None
        self._commit = 0
        self._operations: list[list[Any]] = []
        self._must_sync = False
        self._next_frame = 1
        self._file: int | None = None
        self._seal: FileSealer | None = None
        self._size = 0
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._read()
        self._begin_segment()

    # -- what the core calls

    def add(self, command: bytes, idx: int, term: int) -> None:
        assert not self._entries or idx == self._entries[-1][1] + 1, "the log has no holes"
        self._entries.append((command, idx, term))
        kind, payload = split(command)
        self._note(["a", idx, term, kind, payload])

    def clear(self) -> None:
        self._entries = []
        self._note(["c"])

    def deleteEntriesFrom(self, entryFrom: int) -> None:
        if entryFrom < len(self._entries):
            assert self._entries[entryFrom][1] > self._commit, "a committed entry cannot be taken back"
            self._note(["f", self._entries[entryFrom][1]])
            del self._entries[entryFrom:]

    def deleteEntriesTo(self, entryTo: int) -> None:
        """Forget what a snapshot covers; the segments that held it go with the next flush."""
        self._entries = self._entries[entryTo:]
        self._rewrite()

    def __getitem__(self, item: Any) -> Any:
        return self._entries[item]

    def __len__(self) -> int:
        return len(self._entries)

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:
        if raftCommitIndex != self._commit:
            self._commit = raftCommitIndex
            # Only saves work after a restart: not worth a sync of its own.
            self._operations.append(["i", raftCommitIndex])

    def getRaftCommitIndex(self) -> int:
        return min(self._commit, self._entries[-1][1]) if self._entries else 0

    def setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:
        if (term, votedForNodeId) != (self._term, self._vote):
            self._term, self._vote = term, votedForNodeId
            self._note(["t", term, votedForNodeId])

    def getCurrentTerm(self) -> int:
        return self._term

    def getVotedForNodeId(self) -> str | None:
        return self._vote

    def onOneSecondTimer(self) -> None:
        """Nothing is written by a clock here."""

    def _destroy(self) -> None:
        self.close()

    # -- what the engine calls

    @property
    def first_index(self) -> int:
        return self._entries[0][1]

    @property
    def last_index(self) -> int:
        return self._entries[-1][1]

    def term_at(self, index: int) -> int | None:
        """Return the term of the entry at `index`, None when it is not in the journal."""
        if not self._entries or not self.first_index <= index <= self.last_index:
            return None
        return self._entries[index - self.first_index][2]

    def flush(self) -> None:
        """Make everything noted so far durable. Raises OSError: this member must stop taking part then."""
        if not self._must_sync:
            return
        assert self._file is not None, "the journal is closed"
        self._write_frame(self._operations)
        self._operations = []
        self._must_sync = False
        os.fdatasync(self._file)
        if self._size > SEGMENT_BYTES:
            self._begin_segment()

    def start_at(self, first: Entry, second: Entry) -> None:
        """Begin the log with a snapshot's last two entries, keeping what follows them here (repairs S6a).

        After a crash between a snapshot's rename and the journal's trimming the two do not meet otherwise.
        """
        if self.term_at(second[1]) == second[2] and self.term_at(first[1]) == first[2]:
            self._entries = self._entries[first[1] - self.first_index :]
        else:
            self._entries = [first, second]
        self._commit = max(self._commit, second[1])
        self._rewrite()

    def close(self) -> None:
        if self._file is not None:
            if self._must_sync:
                self.flush()
            os.close(self._file)
            self._file = None

    # -- writing

    def _note(self, operation: list[Any]) -> None:
        self._operations.append(operation)
        self._must_sync = True

    def _write_frame(self, operations: list[list[Any]]) -> None:
        assert self._file is not None, "the journal is closed"
        assert self._seal is not None, "a segment has a sealer"
        plain = msgspec.msgpack.encode(operations)
        number = self._next_frame
        header = _FRAME.pack(len(plain) + 16, number)
        sealed = header + self._seal.seal(number, plain, header)
        view = memoryview(sealed)
        while view:
            view = view[os.write(self._file, view) :]
        self._next_frame += 1
        self._size += len(sealed)

    def _begin_segment(self) -> None:
        """Go on in a new file: a segment is never appended to once another process has closed it."""
        if self._file is not None:
            os.close(self._file)
        path = self._directory / f"{self._next_frame:016x}.wal"
        salt = SYSTEM_ENTROPY.bytes(SALT_BYTES)
        # Of the same number is only one that holds no frame: nothing was ever written to it.
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        os.write(self._file, MAGIC + salt + _FIRST.pack(self._next_frame))
        os.fdatasync(self._file)
        sync_directory(self._directory)
        self._seal = self._sealer.for_file(_KIND, salt)
        self._size = _HEADER_BYTES

    def _rewrite(self) -> None:
        """Write the whole present state into a new segment, then delete the older ones (repairs S6b)."""
        older = sorted(self._directory.glob("*.wal"))
        self._begin_segment()
        operations: list[list[Any]] = [["c"], ["t", self._term, self._vote], ["i", self._commit]]
        for command, index, term in self._entries:
            kind, payload = split(command)
            operations.append(["a", index, term, kind, payload])
        self._operations, self._must_sync = operations, True
        self.flush()
        current = f"{self._next_frame - 1:016x}.wal"
        for path in older:
            if path.name < current:
                path.unlink()
        sync_directory(self._directory)

    # -- reading

    def _read(self) -> None:
        segments = sorted(self._directory.glob("*.wal"))
        for position, path in enumerate(segments):
            is_last = position == len(segments) - 1
            following = None if is_last else int(segments[position + 1].stem, 16)
            for operations in self._frames(path, following):
                for operation in operations:
                    self._replay(operation)
        self._commit = self.getRaftCommitIndex()

    def _frames(self, path: Path, following: int | None) -> Iterator[list[list[Any]]]:
        """Yield the operations of each frame; stop at a torn end. Raises JournalDamaged."""
        data = path.read_bytes()
        if len(data) < _HEADER_BYTES:
            if following is None:
                return  # the crash came before its header was whole
            raise JournalDamaged(f"{path} is cut off in its header")
        salt = data[len(MAGIC) : len(MAGIC) + SALT_BYTES]
        (first,) = _FIRST.unpack(data[len(MAGIC) + SALT_BYTES : _HEADER_BYTES])
        if not data.startswith(MAGIC) or (self._next_frame != first and self._next_frame != 1):
            raise JournalDamaged(f"{path} does not continue the segment before it")
        self._next_frame = first
        seal = self._sealer.for_file(_KIND, salt)
        at = _HEADER_BYTES
        while at < len(data):
            frame = self._open_frame(data, at, seal, self._next_frame)
            if frame is None:
                if following is not None and following != self._next_frame:
                    raise JournalDamaged(f"{path} is damaged at byte {at}: frames after it are missing")
                if self._valid_after(data, at, seal):
                    raise JournalDamaged(f"{path} is damaged at byte {at}, with valid frames after it")
                log.warning("cut a torn frame off the journal", file=path, at=at, bytes=len(data) - at)
                return
            operations, at = frame
            self._next_frame += 1
            yield operations

    @staticmethod
    def _open_frame(data: bytes, at: int, seal: FileSealer, number: int) -> tuple[list[list[Any]], int] | None:
        if at + _FRAME.size > len(data):
            return None
        header = data[at : at + _FRAME.size]
        length, found = _FRAME.unpack(header)
        end = at + _FRAME.size + length
        if found != number or end > len(data):
            return None
        try:
            return msgspec.msgpack.decode(seal.open(number, data[at + _FRAME.size : end], header)), end
        except (SealBroken, msgspec.DecodeError):
            return None

    def _valid_after(self, data: bytes, at: int, seal: FileSealer) -> bool:
        """Whether a whole frame follows the bad one: then this is no torn end."""
        if at + _FRAME.size > len(data):
            return False
        length, _ = _FRAME.unpack(data[at : at + _FRAME.size])
        return self._open_frame(data, at + _FRAME.size + length, seal, self._next_frame + 1) is not None

    def _replay(self, operation: list[Any]) -> None:
        match operation:
            case ["a", index, term, kind, payload]:
                try:
                    self._entries.append((join(kind, payload), index, term))
                except ForeignCommand as error:
                    raise JournalDamaged(f"entry {index} cannot be read: {error}") from error
            case ["f", index]:
                del self._entries[index - self._entries[0][1] :]
            case ["c"]:
                self._entries = []
            case ["t", term, vote]:
                self._term, self._vote = term, vote
            case ["i", index]:
                self._commit = index
            case _:
                raise JournalDamaged(f"the journal holds an operation that this version does not know: {operation[:1]}")
