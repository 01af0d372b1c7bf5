"""A member's files go over to a new data key while it works, and the old key goes with the last file under it."""

from pathlib import Path

import pytest
from lib.raft_lab import SETTINGS, LabMember, eventually, raft_lab, ready
from msgspec.structs import replace

from pyswarm.manager.raft.snapshots import RaftSnapshotDamaged
from pyswarm.manager.raft.wal import JournalDamaged
from pyswarm.manager.sealing.keys import FILE, open_sealer
from pyswarm.proto.errors import Unavailable

COMPACTING = replace(SETTINGS, snapshot_entries=50, snapshot_tail_entries=10)


async def write(member: LabMember, count: int) -> None:
    for number in range(count):
        await member.engine.propose(b"%d" % number)


async def test_what_was_written_before_between_and_after_rotations_is_read_again(tmp_path: Path) -> None:
    async with raft_lab(tmp_path, 1) as lab:
        (member,) = lab.members
        for _ in range(3):
            await write(member, 5)
            await member.engine.rotate_key()
        await write(member, 5)
        written = member.ledger.entries
        await member.stop()
        await member.start()
        await ready(member)
        assert member.ledger.entries == written == [b"%d" % n for n in range(5)] * 4


async def test_an_old_key_goes_with_the_last_file_that_was_sealed_under_it(tmp_path: Path) -> None:
    async with raft_lab(tmp_path, 1, COMPACTING) as lab:
        (member,) = lab.members
        await write(member, 5)
        first = open_sealer(member.directory / "sealing").fingerprint
        assert await member.engine.rotate_key() == 1
        # The tail of the log that outlasts the first snapshot lies in the old segment: the next snapshot ends that.
        await write(member, 80)
        await eventually(lambda: open_sealer(member.directory / "sealing").key_count == 1)
        assert open_sealer(member.directory / "sealing").fingerprint != first
        await member.stop()
        await member.start()
        await ready(member)
        assert len(member.ledger.entries) == 85


async def test_without_its_key_a_file_is_refused_with_a_remedy(tmp_path: Path) -> None:
    async with raft_lab(tmp_path, 1) as lab:
        (member,) = lab.members
        await write(member, 5)
        await member.stop()
        (member.directory / "sealing" / FILE).unlink()
        with pytest.raises(
            (RaftSnapshotDamaged, JournalDamaged), match=r"data key [0-9a-f]{8}, which this manager does"
        ) as refused:
            await member.start()
        assert refused.value.remedy


async def test_a_key_that_cannot_be_written_stops_the_member_before_anything_is_sealed_under_it(tmp_path: Path) -> None:
    async with raft_lab(tmp_path, 1) as lab:
        (member,) = lab.members
        await write(member, 5)

        def full(_: object) -> None:
            raise OSError("no space left on device")

        member.engine._state._sealer._save = full
        with pytest.raises(Unavailable, match="data key cannot be written"):
            await member.engine.rotate_key()
        with pytest.raises(Unavailable):
            await member.engine.propose(b"x")
        assert member.task is not None
        with pytest.raises(Exception, match="no space left"):
            await member.task
        member.task = None
        await member.start()
        await ready(member)
        assert len(member.ledger.entries) == 5
