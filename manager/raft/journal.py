"""The log of one member: in memory for the core, staged for the disk, and what of it is known to be durable.

The core sees a list of entries (command, index, term) through PySyncObj's Journal interface and believes in it
at once. Everything it changes is staged; `take` hands out all that is staged as one frame, `mark_durable` is told
when that frame is on the disk. Until then nothing that depends on it may leave this member (gate.py), and the
leader's own copy does not count (guard.py). Term, vote and commit index travel in every frame, so each segment
of the write-ahead log (wal.py) can be read without those before it.
"""

from collections.abc import Iterable
from typing import Any, Literal

import msgspec
from msgspec import Struct
from pysyncobj.journal import Journal as CoreJournal

from pyswarm.manager.raft.codec import Entry
from pyswarm.manager.raft.commands import MemberChange, change_in
from pyswarm.manager.raft.port import Member
from pyswarm.manager.raft.wal import JournalDamaged


class Add(Struct, frozen=True, array_like=True, tag=0):
    index: int
    term: int
    command: bytes


class Cut(Struct, frozen=True, array_like=True, tag=1):
    """All entries from `index` on are gone."""

    index: int


class Reset(Struct, frozen=True, array_like=True, tag=2):
    """All entries are gone: a snapshot takes their place."""


Operation = Add | Cut | Reset


class Frame(Struct, frozen=True, array_like=True):
    """One durable step. `peers` is whom a member without a snapshot was told about when it was made."""

    format: Literal[1]
    term: int
    voted_for: str
    commit: int
    peers: tuple[Member, ...]
    operations: tuple[Operation, ...]


class Staged(Struct, frozen=True):
    """A frame to write. `position` is passed to `mark_durable`; `mark` is the highest index in it."""

    content: bytes
    position: int
    mark: int
    last_index: int


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Frame)


def decode_frame(content: bytes) -> Frame:
    """Raises JournalDamaged."""
    try:
        return _decoder.decode(content)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise JournalDamaged(f"a frame of the journal opens but cannot be read: {error}") from error


class Journal(CoreJournal):  # type: ignore[misc]
    """Indexed by place, as the core wants it: place 0 is `first_index`."""

    def __init__(self, *, tail_entries: int = 0) -> None:
        """`tail_entries`: how many of the entries that a snapshot covers are kept for slow followers."""
        self._tail_entries = tail_entries
        self._entries: list[Entry] = []
        self._changes: list[tuple[int, MemberChange]] = []
        self._bytes = 0
        self._term = 0
        self._voted_for = ""
        self._commit = 1
        self.peers: tuple[Member, ...] = ()
        self._operations: list[Operation] = []
        self._mark = 0
        self.position = 0
        """Counts what was staged; a promise made now depends on all up to here."""
        self.term_position = 0
        """Where term and vote changed last; a message that shows the term depends on all up to here."""
        self.durable_position = 0
        self._taken_position = 0
        self.durable_index = 0
        """All entries up to here are on the disk."""
        self.changes_version = 0
        """Grows whenever a membership change enters or leaves the log."""

    # -- from disk

    def replay(self, frames: Iterable[Frame]) -> None:
        """Become what the frames say. Raises JournalDamaged when they do not fit each other."""
        for frame in frames:
            self._term, self._voted_for, self._commit = frame.term, frame.voted_for, frame.commit
            self.peers = frame.peers
            for operation in frame.operations:
                self._replay(operation)
        self._mark_all_durable()

    def _replay(self, operation: Operation) -> None:
        if isinstance(operation, Reset):
            self._drop_from(0)
        elif isinstance(operation, Cut):
            if self._entries and operation.index <= self.last_index:
                self._drop_from(max(0, operation.index - self.first_index))
        else:
            if self._entries and operation.index != self.last_index + 1:
                raise JournalDamaged(f"entry {operation.index} of the journal follows entry {self.last_index}")
            self._push((operation.command, operation.index, operation.term))

    def begin_at_snapshot(self, before: Entry, last: Entry) -> None:
        """Let the log begin with the two entries the snapshot ends with, keeping what follows them.

        A crash between writing a snapshot and cutting the log leaves them apart; the core would then throw the
        whole log away, acknowledged entries included.

        Raises:
            JournalDamaged: entries between the snapshot and the log are missing.
        """
        index = last[1]
        if self._entries and self.first_index > index + 1:
            raise JournalDamaged(f"the snapshot ends with entry {index} and the journal begins with {self.first_index}")
        continues = bool(self._entries) and (self.term_at(index) == last[2] or self.first_index == index + 1)
        if continues and self.first_index < index:
            self._drop_before(index - 1 - self.first_index)
            self._entries[0], self._entries[1] = before, last
        elif not continues or self._entries[0] != before:
            rest = self._entries[index + 1 - self.first_index :] if continues else []
            self.clear()
            for entry in (before, last, *rest):
                self.add(*entry)
        self._commit = max(index, min(self._commit, self.last_index))

    # -- what the core calls

    def add(self, command: bytes, idx: int, term: int) -> None:
        assert not self._entries or idx == self.last_index + 1, f"entry {idx} added behind {self.last_index}"
        self._push((command, idx, term))
        self._stage(Add(idx, term, command))
        self._mark = max(self._mark, idx)

    def clear(self) -> None:
        self._drop_from(0)
        self.durable_index = 0
        self._stage(Reset())

    def deleteEntriesFrom(self, entryFrom: int) -> None:
        index = self._entries[0][1] + entryFrom
        self._drop_from(entryFrom)
        self.durable_index = min(self.durable_index, index - 1)
        self._stage(Cut(index))

    def deleteEntriesTo(self, entryTo: int) -> None:
        """A snapshot covers the first `entryTo` entries."""
        self._drop_before(entryTo - self._tail_entries)

    def __getitem__(self, place: Any) -> Any:
        return self._entries[place]

    def __len__(self) -> int:
        return len(self._entries)

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:
        # Not urgent: it goes with the next frame. One that is lost is learnt again from the leader.
        self._commit = raftCommitIndex

    def getRaftCommitIndex(self) -> int:
        # Below what a snapshot covers it never is; above the end of the log it says nothing.
        return min(self._commit, self.last_index) if self._entries else 1

    def setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:
        self._term, self._voted_for = term, votedForNodeId or ""
        self.position += 1
        self.term_position = self.position

    def getCurrentTerm(self) -> int:
        return self._term

    def getVotedForNodeId(self) -> str | None:
        return self._voted_for or None

    def onOneSecondTimer(self) -> None:
        """Nothing waits for a timer here."""

    def _destroy(self) -> None:
        """The engine flushes and closes."""

    # -- what the guard and the engine ask

    @property
    def first_index(self) -> int:
        return self._entries[0][1]

    @property
    def last_index(self) -> int:
        return self._entries[-1][1] if self._entries else 0

    @property
    def last_term(self) -> int:
        return self._entries[-1][2] if self._entries else 0

    @property
    def bytes(self) -> int:
        """Size of all commands in memory."""
        return self._bytes

    @property
    def changes(self) -> tuple[tuple[int, MemberChange], ...]:
        """The membership changes in the log, with their indexes."""
        return tuple(self._changes)

    def term_at(self, index: int) -> int | None:
        """Return the term of an entry, None when it is not in the log."""
        place = index - self._entries[0][1] if self._entries else -1
        return self._entries[place][2] if 0 <= place < len(self._entries) else None

    @property
    def is_staged(self) -> bool:
        """Whether something waits to be written that somebody may wait for."""
        return self.position > self._taken_position

    def take(self) -> Staged:
        """Return all that is staged, as one frame."""
        frame = Frame(1, self._term, self._voted_for, self._commit, self.peers, tuple(self._operations))
        staged = Staged(_encoder.encode(frame), self.position, self._mark, self.last_index)
        self._operations.clear()
        self._mark = 0
        self._taken_position = self.position
        return staged

    def mark_durable(self, staged: Staged) -> None:
        """The frame, and all before it, is on the disk."""
        self.durable_position = staged.position
        # What was cut since has lowered it already, and what was added behind the cut is not on the disk.
        if not any(isinstance(o, Cut | Reset) for o in self._operations):
            self.durable_index = staged.last_index

    def tell_peers(self, peers: tuple[Member, ...]) -> None:
        """Remember whom this member was told about, until its first snapshot names the members."""
        self.peers = peers
        self.position += 1

    def _stage(self, operation: Operation) -> None:
        self._operations.append(operation)
        self.position += 1

    def _push(self, entry: Entry) -> None:
        self._entries.append(entry)
        self._bytes += len(entry[0])
        change = change_in(entry[0])
        if change is not None:
            self._changes.append((entry[1], change))
            self.changes_version += 1

    def _drop_from(self, place: int) -> None:
        if place >= len(self._entries):
            return
        index = self._entries[place][1]
        self._bytes -= sum(len(e[0]) for e in self._entries[place:])
        del self._entries[place:]
        self._keep_changes(lambda i: i < index)

    def _drop_before(self, place: int) -> None:
        if place <= 0:
            return
        self._bytes -= sum(len(e[0]) for e in self._entries[:place])
        del self._entries[:place]
        first = self._entries[0][1] if self._entries else 0
        self._keep_changes(lambda i: i >= first)

    def _keep_changes(self, keep: Any) -> None:
        kept = [(index, change) for index, change in self._changes if keep(index)]
        if len(kept) != len(self._changes):
            self._changes = kept
            self.changes_version += 1

    def _mark_all_durable(self) -> None:
        self.durable_position = self._taken_position = self.position
        self.durable_index = self.last_index
