"""Take a group's state off a disk, and plant it as the first state of a new group: for the day a quorum is lost.

Not part of consensus: whoever runs this has decided that the other members will not come back. The whole log counts,
also entries that are not known to be committed: what was acknowledged is among them, and nobody is left who could have
decided otherwise. The manager must not be running.
"""

from pathlib import Path

from pyswarm.manager.raft.commands import NOOP_COMMAND, REGULAR, decode_batch
from pyswarm.manager.raft.journal import Frame, Journal, decode_frame
from pyswarm.manager.raft.port import Member, StateMachine
from pyswarm.manager.raft.settings import RaftSettings
from pyswarm.manager.raft.snapshots import SnapshotHeader, SnapshotStore
from pyswarm.manager.raft.state import FIRST_INDEX
from pyswarm.manager.raft.wal import JournalDamaged, Wal
from pyswarm.manager.sealing.sealer import Sealer
from pyswarm.proto.certificate_files import sync_directory
from pyswarm.proto.entropy import SYSTEM_ENTROPY, Entropy
from pyswarm.proto.errors import FailedPrecondition


def read_all(directory: Path, *, sealer: Sealer, machine: StateMachine) -> tuple[int, int]:
    """Bring `machine` to the end of the log on this disk; return (index, term) of its last entry. Blocking.

    Raises:
        FailedPrecondition: there is no state.
        JournalDamaged, RaftSnapshotDamaged: it cannot be believed, and says what to do.
    """
    found = SnapshotStore(directory / "snapshots", sealer).open_newest()
    if found is None:
        raise FailedPrecondition(
            f"there is no cluster state in {directory}", remedy="Restore a backup: `pyswarm restore FILE`."
        )
    header, reader = found
    try:
        machine.restore(header.index, reader.pieces())
    finally:
        reader.close()
    journal = _journal(directory, sealer)
    journal.begin_at_snapshot(header.before, header.last)
    for command, index, _ in journal[:]:
        if index > header.index and command[0] == REGULAR:
            for payload in decode_batch(command[1:]):
                machine.apply(index, payload)
    return journal.last_index, max(journal.last_term, journal.getCurrentTerm())


def _journal(directory: Path, sealer: Sealer) -> Journal:
    wal = Wal(directory / "journal", sealer, segment_bytes=RaftSettings().segment_bytes)
    journal = Journal()
    frames: list[Frame] = [decode_frame(content) for _, content in wal.recover()]
    journal.replay(frames)
    wal.close()
    return journal


def plant(
    directory: Path,
    *,
    sealer: Sealer,
    member: Member,
    machine: StateMachine,
    index: int,
    term: int,
    entropy: Entropy = SYSTEM_ENTROPY,
) -> None:
    """Write the state of a group whose only member is `member` into an empty `directory`. Blocking.

    `machine` holds the state at `index`; `term` is above every term the member has voted in. Raises OSError.
    """
    assert index >= FIRST_INDEX, "a group begins with two entries"
    directory.mkdir(parents=True, mode=0o700)
    before, last = ((NOOP_COMMAND, i, term) for i in (index - 1, index))
    snapshots = SnapshotStore(directory / "snapshots", sealer, entropy)
    snapshots.prepare()
    snapshots.write(SnapshotHeader(before, last, (member,)), machine.snapshot())
    journal = Journal()
    journal.begin_at_snapshot(before, last)
    journal.setCurrentTerm(term, None)
    staged = journal.take()
    wal = Wal(directory / "journal", sealer, segment_bytes=RaftSettings().segment_bytes, entropy=entropy)
    if list(wal.recover()):
        raise JournalDamaged(f"{directory} is not empty")
    wal.append(staged.content, staged.mark)
    wal.close()
    sync_directory(directory)
