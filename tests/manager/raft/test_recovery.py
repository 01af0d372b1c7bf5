"""A group's state taken off one member's disk, and planted as the first state of a group of one."""

import asyncio
from pathlib import Path

import pytest
from lib.raft_lab import Ledger, RaftLab, caught_up, eventually, free_port, ready
from msgspec.structs import replace

from pyswarm.manager.raft.recovery import plant, read_all
from pyswarm.manager.raft.settings import RaftSettings
from pyswarm.manager.raft.wal import JournalDamaged
from pyswarm.manager.sealing.keys import open_sealer
from pyswarm.proto.errors import FailedPrecondition

WRITES = [b"write %d" % n for n in range(40)]


async def written(directory: Path, settings: RaftSettings | None = None) -> RaftLab:
    """Return a stopped group of three whose first member holds all of WRITES."""
    lab = RaftLab(directory) if settings is None else RaftLab(directory, settings)
    first = await lab.first()
    await lab.join()
    await lab.join()
    for payload in WRITES:
        await first.engine.propose(payload)
    for member in lab.members:
        await member.stop()
    return lab


async def test_everything_acknowledged_is_there_and_a_group_of_one_goes_on_with_it(tmp_path: Path):
    lab = await written(tmp_path)
    survivor = lab.members[0]
    sealer = open_sealer(survivor.directory / "sealing")
    machine = Ledger()
    index, term = await asyncio.to_thread(read_all, survivor.directory / "raft", sealer=sealer, machine=machine)
    assert machine.entries == WRITES
    survivor.member = replace(survivor.member, raft_id="raft-after")
    plant(
        survivor.directory / "new",
        sealer=sealer,
        member=survivor.member,
        machine=machine,
        index=index + 1,
        term=term + 1,
    )
    (survivor.directory / "raft").rename(survivor.directory / "old")
    (survivor.directory / "new").rename(survivor.directory / "raft")

    await survivor.start()
    await ready(survivor)
    assert [m.raft_id for m in survivor.engine.members()] == [survivor.member.raft_id]
    assert survivor.engine.leadership.term > term
    written_at, _ = await survivor.engine.propose(b"after")
    assert written_at > index, "versions of objects are indexes: they must go on growing"
    assert survivor.ledger.entries == [*WRITES, b"after"]
    # Members that come back find a group they are not in, and do not disturb it, though they are a majority of the old.
    for old in lab.members[1:]:
        await old.start()
    old_leader = await lab.leader(among=lambda member: member is not survivor)
    await old_leader.engine.propose(b"of the old group")
    await survivor.engine.propose(b"and after")
    assert b"of the old group" not in survivor.ledger.entries
    for old in lab.members[1:]:
        assert b"after" not in old.ledger.entries
        await old.stop()
    # A new member is brought up to date from the planted snapshot.
    joiner = await lab.join()
    await survivor.engine.propose(b"with another")
    await caught_up(joiner, survivor.engine.applied_index)
    for member in (survivor, joiner):
        await member.stop()


async def test_the_log_is_read_past_a_member_that_has_moved(tmp_path: Path):
    lab = await written(tmp_path)
    survivor = lab.members[0]
    survivor.member = replace(survivor.member, raft_addr=f"127.0.0.1:{free_port()}")
    for member in lab.members:
        await member.start()
    await eventually(lambda: all(survivor.member in m.engine.members() for m in lab.members))
    await (await lab.leader()).engine.propose(b"after the move")
    await caught_up(survivor, (await lab.leader()).engine.applied_index)
    for member in lab.members:
        await member.stop()
    machine = Ledger()
    sealer = open_sealer(survivor.directory / "sealing")
    await asyncio.to_thread(read_all, survivor.directory / "raft", sealer=sealer, machine=machine)
    assert machine.entries == [*WRITES, b"after the move"]


async def test_a_snapshot_and_the_log_behind_it_are_read_together(tmp_path: Path):
    lab = await written(tmp_path, RaftSettings(snapshot_entries=10, snapshot_tail_entries=2))
    survivor = lab.members[0]
    machine = Ledger()
    read_all(survivor.directory / "raft", sealer=open_sealer(survivor.directory / "sealing"), machine=machine)
    assert machine.restored_at[0] > 2, "a snapshot was taken on the way"
    assert machine.entries == WRITES


def test_where_there_is_nothing_nothing_is_made_up(tmp_path: Path):
    with pytest.raises(FailedPrecondition, match="no cluster state"):
        read_all(tmp_path / "raft", sealer=open_sealer(tmp_path / "sealing"), machine=Ledger())


async def test_damage_is_not_read_over(tmp_path: Path):
    lab = await written(tmp_path)
    survivor = lab.members[0]
    (segment,) = (survivor.directory / "raft" / "journal").iterdir()
    content = bytearray(segment.read_bytes())
    content[len(content) // 2] ^= 0xFF
    segment.write_bytes(content)
    with pytest.raises(JournalDamaged):
        read_all(survivor.directory / "raft", sealer=open_sealer(survivor.directory / "sealing"), machine=Ledger())
