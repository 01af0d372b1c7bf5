"""What a member keeps on its disk, opened together: journal, snapshots, and the members they imply.

    <directory>/journal/    the write-ahead log (wal.py)
    <directory>/snapshots/  raft snapshots (snapshots.py), and the marker that tells the core there is one
    <directory>/removed     there once the cluster has removed this node: which manager said so

The first manager begins with a snapshot of the empty state whose only member is itself. So everybody's members
are those of a snapshot and the changes behind it, and whoever joins always begins with a snapshot as well.
"""

from collections.abc import Sequence
from pathlib import Path

from pyswarm.manager.raft import membership
from pyswarm.manager.raft.commands import NOOP_COMMAND
from pyswarm.manager.raft.disk import REAL_DISK, Disk
from pyswarm.manager.raft.journal import Add, Frame, Journal, decode_frame
from pyswarm.manager.raft.port import Member, StateMachine
from pyswarm.manager.raft.rules import ALL_RULES, Rules
from pyswarm.manager.raft.settings import RaftSettings
from pyswarm.manager.raft.snapshots import SnapshotHeader, SnapshotStore, SnapshotWriter
from pyswarm.manager.raft.wal import JournalDamaged, Wal
from pyswarm.manager.sealing.sealer import Sealer
from pyswarm.proto.entropy import Entropy

FIRST_INDEX = 2
"""Where the first manager's snapshot of the empty state stands: behind two empty entries, as the core wants it."""

_MARKER = "present"


class Members:
    """The members as snapshot and log have them, and what else is known about raft ids."""

    def __init__(self, journal: Journal, rules: Rules = ALL_RULES) -> None:
        self._journal = journal
        self._rules = rules
        # Without the rule, what a restart finds in the log and does not know committed is passed over.
        self._unread = range(journal.getRaftCommitIndex() + 1, journal.last_index + 1)
        self._base: dict[str, Member] = {}
        self._base_index = 0
        self._seen = (-1, -1)
        self._present: dict[str, Member] = {}
        self._base_removed: tuple[str, ...] = ()
        self._removed: frozenset[str] = frozenset()
        self._reported = (-1, -1)

    def rebase(self, header: SnapshotHeader) -> None:
        """Go on from a snapshot."""
        self._refresh()
        self._base = {member.raft_id: member for member in header.members}
        self._base_index = header.index
        self._base_removed = header.removed

    def present(self) -> dict[str, Member]:
        """Return the members by raft id; without a snapshot, whom this member was told about."""
        self._refresh()
        return self._present

    def at(self, index: int) -> dict[str, Member]:
        """Return the members once the entry at `index` was in the log; not before the snapshot."""
        return membership.after(self._base, self._journal.changes, beyond=self._base_index, up_to=index)

    def removed_at(self, index: int) -> tuple[str, ...]:
        """Return the raft ids that were removed up to the entry at `index`, oldest first; not before the snapshot."""
        changes = self._journal.changes
        return membership.removed_after(self._base_removed, changes, beyond=self._base_index, up_to=index)

    def known(self, raft_id: str) -> Member | None:
        return self.present().get(raft_id)

    def was_removed(self, raft_id: str) -> bool:
        """Whether a change in the log, or before its snapshot, removed that member; ids are never reused."""
        self._refresh()
        is_removed = raft_id in self._removed and raft_id not in self._present
        return is_removed and self._rules.refuse_removed

    def last_change_index(self) -> int:
        changes = self._journal.changes
        return changes[-1][0] if changes else 0

    def has_changed(self) -> bool:
        """Return, once per change, whether the members may be others than before."""
        self._refresh()
        changed, self._reported = self._reported != self._seen, self._seen
        return changed

    def _refresh(self) -> None:
        now = (self._journal.changes_version, self._base_index)
        if now == self._seen:
            return
        self._seen = now
        changes = self._journal.changes
        if not self._rules.members_from_log:
            changes = tuple(change for change in changes if change[0] not in self._unread)
        self._removed = frozenset(membership.removed_after(self._base_removed, changes, beyond=self._base_index))
        if self._base_index:
            self._present = membership.after(self._base, changes, beyond=self._base_index)
        else:
            self._present = {member.raft_id: member for member in self._journal.peers}


class DiskState:
    def __init__(
        self,
        *,
        directory: Path,
        journal: Journal,
        wal: Wal,
        snapshots: SnapshotStore,
        machine: StateMachine,
        rules: Rules = ALL_RULES,
        disk: Disk = REAL_DISK,
        sealer: Sealer,
        entropy: Entropy,
    ) -> None:
        self.journal = journal
        self.wal = wal
        self.snapshots = snapshots
        self.members = Members(journal, rules)
        self.header: SnapshotHeader | None = None
        """Of the newest snapshot; None until this member was given its first one."""
        self.marker = directory / "snapshots" / _MARKER
        self.bytes_at_snapshot = 0
        self._machine = machine
        self._disk = disk
        self._sealer = sealer
        self._entropy = entropy
        self._removed = directory / "removed"
        self.removed_by = self._read_removal()
        """The node id of the manager that said this node was removed from the cluster; "" as long as nobody has."""

    def rotate_key(self) -> None:
        """Seal under a new data key from now on. Blocking; in the thread that appends to the journal."""
        self._sealer.rotate(self._entropy)
        self.wal.end_segment()

    def remove_covered(self, first_index: int) -> None:
        """Delete the segments whose entries all lie below `first_index`, and forget the data keys that no file needs.

        Blocking; in the thread that appends to the journal.
        """
        self.wal.remove_below(first_index)
        if self._sealer.key_count > 1:
            self._sealer.forget_unused([*self.wal.salts, *self.snapshots.salts()])

    @property
    def older_keys(self) -> int:
        """How many data keys there are besides the one that new files are sealed under."""
        return self._sealer.key_count - 1

    def note_removal(self, by_node_id: str) -> None:
        """Remember for good that a manager said this node was removed. Blocking, once in a member's life."""
        if self.removed_by:
            return
        self.removed_by = by_node_id
        descriptor = self._disk.create(self._removed, 0)
        try:
            self._disk.write(descriptor, by_node_id.encode(), 0)
            self._disk.sync(descriptor)
        finally:
            self._disk.close(descriptor)
        self._disk.sync_directory(self._removed.parent)

    def _read_removal(self) -> str:
        if self._removed.name not in self._disk.names(self._removed.parent):
            return ""
        descriptor = self._disk.open(self._removed)
        try:
            said = self._disk.read(descriptor, self._disk.size(descriptor), 0)
        finally:
            self._disk.close(descriptor)
        # That it is there is what counts: a crash may have come between its name and its content.
        return said.decode(errors="replace") or "unknown"

    def snapshot_taken(self, header: SnapshotHeader) -> None:
        """A snapshot was written or received, and is on the disk."""
        self.header = header
        self.members.rebase(header)

    def restore_received(self, header: SnapshotHeader, writer: SnapshotWriter) -> None:
        """Bring a received snapshot to the disk and into the state machine; only then does it get its name.

        Blocking. The order matters: a snapshot that cannot be restored must not be found at the next start.
        """
        aside = writer.sync()
        try:
            _, reader = self.snapshots.open_aside(aside)
            try:
                self._machine.restore(header.index, reader.pieces())
            finally:
                reader.close()
        except BaseException:
            writer.abort()
            raise
        writer.publish()
        self.snapshots.delete_before(header.index)


def has_state(directory: Path) -> bool:
    """Whether a group's state is there: a member that was never given a snapshot has none."""
    return any(path.name.removeprefix("snapshot-").isdecimal() for path in (directory / "snapshots").glob("snapshot-*"))


def open_state(
    directory: Path,
    *,
    sealer: Sealer,
    member: Member,
    members: Sequence[Member],
    machine: StateMachine,
    settings: RaftSettings,
    entropy: Entropy,
    disk: Disk = REAL_DISK,
) -> DiskState:
    """Read the disk and restore `machine`; make the first state where there is none. Blocking.

    Raises:
        JournalDamaged, RaftSnapshotDamaged: it cannot be believed, and says what to do.
    """
    disk.make_directory(directory)
    snapshots = SnapshotStore(directory / "snapshots", sealer, entropy, disk=disk)
    snapshots.prepare()
    wal = Wal(directory / "journal", sealer, segment_bytes=settings.segment_bytes, disk=disk, entropy=entropy)
    journal = Journal(tail_entries=settings.snapshot_tail_entries)
    frames: list[Frame] = []
    for segment, content in wal.recover():
        frame = decode_frame(content)
        frames.append(frame)
        wal.set_mark(segment, max((o.index for o in frame.operations if isinstance(o, Add)), default=0))
    journal.replay(frames)
    state = DiskState(
        directory=directory, journal=journal, wal=wal, snapshots=snapshots, machine=machine,
        rules=settings.rules, disk=disk, sealer=sealer, entropy=entropy,
    )  # fmt: skip

    found = snapshots.open_newest()
    if found is None and not frames and tuple(members) == (member,):
        snapshots.write(_first_header(member), machine.snapshot())
        found = snapshots.open_newest()
    if found is None:
        _await_admission(state, members, is_new=not frames)
    else:
        header, reader = found
        try:
            if not frames and header.index > FIRST_INDEX:
                raise JournalDamaged(f"{directory} holds a snapshot but no journal: this member's votes are forgotten")
            machine.restore(header.index, reader.pieces())
        finally:
            reader.close()
        journal.begin_at_snapshot(header.before, header.last)
        state.snapshot_taken(header)
        state.marker.touch()
    return state


def _first_header(member: Member) -> SnapshotHeader:
    before, last = ((NOOP_COMMAND, index, 0) for index in (FIRST_INDEX - 1, FIRST_INDEX))
    return SnapshotHeader(before, last, (member,))


def _await_admission(state: DiskState, members: Sequence[Member], *, is_new: bool) -> None:
    state.marker.unlink(missing_ok=True)
    if is_new:
        state.journal.tell_peers(tuple(members))
    elif state.journal.last_index >= FIRST_INDEX:
        raise JournalDamaged("the journal goes on behind a snapshot, and that snapshot is missing")
