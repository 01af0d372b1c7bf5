"""Groups of real members: losing some, all, and getting them back. Real TLS on loopback, real disks."""

import asyncio
import time
from pathlib import Path

import pytest
from lib.raft_lab import SETTINGS, LabMember, RaftLab, caught_up, eventually, raft_lab
from msgspec.structs import replace

from pyswarm.manager.raft.codec import TermNotice
from pyswarm.manager.raft.port import Member
from pyswarm.proto.errors import FailedPrecondition, NotLeader, OutcomeUnknown, SwarmError, Unavailable

COMPACTING = replace(SETTINGS, snapshot_entries=50, snapshot_tail_entries=10, segment_bytes=64 * 1024)


class Client:
    """Proposes unique values wherever the leader is, and keeps what was acknowledged."""

    def __init__(self, lab: RaftLab) -> None:
        self._lab = lab
        self.acknowledged: list[bytes] = []
        self.unknown: list[bytes] = []
        self._number = 0

    async def write(self, leader: LabMember, count: int) -> None:
        async def one(payload: bytes) -> None:
            try:
                await leader.engine.propose(payload)
                self.acknowledged.append(payload)
            except OutcomeUnknown:
                self.unknown.append(payload)
            except (NotLeader, Unavailable):
                pass

        payloads = [b"%d" % (self._number + n) for n in range(count)]
        self._number += count
        await asyncio.gather(*(one(p) for p in payloads))

    def assert_nothing_is_lost(self, member: LabMember) -> None:
        held = [entry for entry in member.ledger.entries if entry != AGREED]
        assert len(set(held)) == len(held), "an entry was applied twice"
        assert set(self.acknowledged) <= set(held)
        assert set(held) <= set(self.acknowledged) | set(self.unknown)


AGREED = b"agreed?"


async def agree(lab: RaftLab) -> None:
    """Wait until every running member has the same state."""
    leader = await lab.leader()
    index, _ = await leader.engine.propose(AGREED)
    running = [m for m in lab.members if m.is_running]
    for member in running:
        await caught_up(member, index)
    for member in running:
        assert member.ledger.entries == leader.ledger.entries


async def test_followers_apply_what_the_leader_acknowledged(tmp_path: Path) -> None:
    async with raft_lab(tmp_path, 3) as lab:
        client = Client(lab)
        await client.write(await lab.leader(), 200)
        assert len(client.acknowledged) == 200
        await agree(lab)
        for member in lab.members:
            client.assert_nothing_is_lost(member)


async def test_a_killed_leader_is_replaced_and_no_acknowledged_write_is_lost(tmp_path: Path) -> None:
    async with raft_lab(tmp_path, 3) as lab:
        client = Client(lab)
        old = await lab.leader()
        await client.write(old, 100)
        under_way = asyncio.ensure_future(client.write(old, 100))
        await asyncio.sleep(0)
        began = time.monotonic()
        await old.kill()
        await under_way
        new = await lab.leader()
        await client.write(new, 1)
        assert time.monotonic() - began < 2.0
        await old.start()
        await client.write(new, 50)
        await agree(lab)
        for member in lab.members:
            client.assert_nothing_is_lost(member)


async def test_all_members_killed_at_once_come_back_with_every_acknowledged_write(tmp_path: Path) -> None:
    async with raft_lab(tmp_path, 3, COMPACTING) as lab:
        client = Client(lab)
        for _ in range(3):
            leader = await lab.leader()
            await client.write(leader, 120)
            under_way = asyncio.ensure_future(client.write(leader, 20))
            await asyncio.sleep(0)
            for member in lab.members:
                await member.kill()
            await under_way
            for member in lab.members:
                await member.start()
        await agree(lab)
        for member in lab.members:
            client.assert_nothing_is_lost(member)


async def test_a_member_alone_keeps_its_writes_over_restarts(tmp_path: Path) -> None:
    async with raft_lab(tmp_path, 1, COMPACTING) as lab:
        client = Client(lab)
        (member,) = lab.members
        for _ in range(4):
            await client.write(await lab.leader(), 70)
            await member.kill()
            await member.start()
        await lab.leader()
        client.assert_nothing_is_lost(member)
        assert len(client.acknowledged) == 280
        assert member.engine.members() == (member.member,)


async def test_a_closed_member_finds_its_members_and_state_on_disk(tmp_path: Path) -> None:
    async with raft_lab(tmp_path, 3) as lab:
        await (await lab.leader()).engine.propose(b"kept")
        await agree(lab)
        follower = (await lab.followers())[0]
        await follower.stop()
        await follower.start()
        assert follower.engine.members() == lab.members[0].engine.members()
        await agree(lab)
        assert follower.ledger.entries == [b"kept", AGREED, AGREED]


async def test_a_follower_that_lagged_behind_the_log_is_given_a_snapshot(tmp_path: Path) -> None:
    async with raft_lab(tmp_path, 3, COMPACTING) as lab:
        client = Client(lab)
        leader = await lab.leader()
        lagging = (await lab.followers())[0]
        await lagging.kill()
        for _ in range(10):
            await client.write(leader, 40)
        for n in range(150):
            await leader.engine.propose(b"more %d" % n)
            client.acknowledged.append(b"more %d" % n)
        await lagging.start()
        restored_at_start = list(lagging.ledger.restored_at)
        await agree(lab)
        assert lagging.ledger.restored_at != restored_at_start
        client.assert_nothing_is_lost(lagging)
        # And it is a full member: with another one gone, it makes the majority.
        other = next(m for m in lab.members if m not in (leader, lagging))
        await other.kill()
        await leader.engine.propose(b"two are enough")


async def test_old_journal_segments_and_snapshots_are_removed(tmp_path: Path) -> None:
    async with raft_lab(tmp_path, 1, COMPACTING) as lab:
        (member,) = lab.members
        for n in range(400):
            await member.engine.propose(b"%d" % n + bytes(1000))
        directory = member.directory / "raft"
        await eventually(lambda: len(list((directory / "journal").iterdir())) <= 4)
        await eventually(lambda: len(list((directory / "snapshots").glob("snapshot-*"))) == 1)
        await member.kill()
        await member.start()
        await lab.leader()
        assert len(member.ledger.entries) == 400


async def test_a_member_is_added_and_another_removed_while_writes_go_on(tmp_path: Path) -> None:
    async with raft_lab(tmp_path, 3, COMPACTING) as lab:
        client = Client(lab)
        leader = await lab.leader()
        await client.write(leader, 200)
        writing = asyncio.ensure_future(client.write(leader, 200))
        fourth = await lab.join()
        leaving = (await lab.followers())[0]
        await leader.engine.remove_member(leaving.member.raft_id)
        await writing
        await leaving.stop()
        await agree(lab)
        assert leaving.member not in fourth.engine.members()
        assert [m.raft_id for m in fourth.engine.members()] == sorted(
            m.member.raft_id for m in lab.members if m is not leaving
        )
        client.assert_nothing_is_lost(fourth)


async def test_a_removed_member_does_not_disturb_the_others(tmp_path: Path) -> None:
    async with raft_lab(tmp_path, 3) as lab:
        leader = await lab.leader()
        removed = (await lab.followers())[0]
        await leader.engine.remove_member(removed.member.raft_id)
        term = leader.engine.leadership.term
        # Long enough for it to miss its leader and to try to stand, several times.
        loop = asyncio.get_running_loop()
        until = loop.time() + 2.0
        await eventually(lambda: loop.time() > until)
        assert leader.engine.leadership.is_leader
        assert leader.engine.leadership.term == term
        assert not removed.engine.leadership.is_leader


async def test_without_a_majority_nothing_is_written_and_the_leader_steps_down(tmp_path: Path) -> None:
    async with raft_lab(tmp_path, 3) as lab:
        leader = await lab.leader()
        for follower in await lab.followers():
            await follower.kill()
        with pytest.raises((OutcomeUnknown, Unavailable)):
            await leader.engine.propose(b"nobody agrees", timeout_seconds=3)
        await eventually(lambda: not leader.engine.leadership.is_leader)
        with pytest.raises(NotLeader):
            await leader.engine.propose(b"nobody leads")
        with pytest.raises(NotLeader):
            await leader.engine.read_barrier()
        assert leader.engine.reachable() == {leader.member.raft_id}


async def test_a_member_that_stops_refuses_what_is_proposed_in_the_same_step(tmp_path: Path) -> None:
    async with raft_lab(tmp_path, 1) as lab:
        engine = (await lab.leader()).engine
        async with asyncio.timeout(5):
            told = await asyncio.gather(
                engine.propose(b"before"), engine.close(), engine.propose(b"after"), return_exceptions=True
            )
        assert isinstance(told[2], Unavailable)


async def test_a_deposed_leader_refuses_what_is_proposed_in_the_same_step(tmp_path: Path) -> None:
    async with raft_lab(tmp_path, 3) as lab:
        leader = await lab.leader()
        other = next(m for m in lab.members if m is not leader)

        async def depose() -> None:
            leader.engine.received(other.member, TermNotice(leader.engine.leadership.term + 1))

        told = await asyncio.gather(
            leader.engine.propose(b"before"), depose(), leader.engine.propose(b"after"), return_exceptions=True
        )
        assert isinstance(told[2], NotLeader)


async def test_a_member_whose_removal_would_cost_the_majority_stays(tmp_path: Path) -> None:
    async with raft_lab(tmp_path, 3) as lab:
        leader = await lab.leader()
        dead, alive = await lab.followers()
        await dead.kill()
        await eventually(lambda: dead.member.raft_id not in leader.engine.reachable())
        with pytest.raises(FailedPrecondition):
            await leader.engine.remove_member(alive.member.raft_id)
        await leader.engine.remove_member(dead.member.raft_id)
        assert len(leader.engine.members()) == 2


async def test_a_member_that_cannot_be_reached_is_not_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyswarm.manager.raft.roster.LINK_SECONDS", 0.3)
    async with raft_lab(tmp_path, 1) as lab:
        leader = await lab.leader()
        nowhere = Member("raft-9", "node-9", "127.0.0.1:1", "127.0.0.1:2")
        with pytest.raises(FailedPrecondition):
            await leader.engine.add_member(nowhere)
        await leader.engine.propose(b"still alone")
        assert leader.engine.members() == (leader.member,)


async def test_leadership_is_handed_over_without_losing_a_write(tmp_path: Path) -> None:
    async with raft_lab(tmp_path, 3) as lab:
        client = Client(lab)
        old = await lab.leader()
        writing = asyncio.ensure_future(client.write(old, 300))
        began = time.monotonic()
        await old.engine.transfer_leadership()
        await writing
        new = await lab.leader(among=lambda m: m is not old)
        assert time.monotonic() - began < 0.4, "a hand-over does not wait for an election timeout"
        await client.write(new, 10)
        await agree(lab)
        for member in lab.members:
            client.assert_nothing_is_lost(member)


async def test_a_snapshot_is_taken_while_writes_go_on(tmp_path: Path) -> None:
    async with raft_lab(tmp_path, 3, COMPACTING) as lab:
        client = Client(lab)
        leader = await lab.leader()
        for _ in range(20):
            await client.write(leader, 50)
        assert len(client.acknowledged) == 1000
        await agree(lab)
        for member in lab.members:
            client.assert_nothing_is_lost(member)


async def test_a_journal_that_cannot_be_written_stops_the_member_and_the_others_go_on(tmp_path: Path) -> None:
    async with raft_lab(tmp_path, 3) as lab:
        leader = await lab.leader()

        def full_disk(content: bytes, mark: int) -> None:
            raise OSError(28, "No space left on device")

        wal = leader.engine._state.wal
        wal.append = full_disk  # type: ignore[method-assign]
        wal.prepare = lambda content, mark: None  # type: ignore[method-assign]
        with pytest.raises(SwarmError):
            await leader.engine.propose(b"does not fit")
        assert leader.task is not None
        with pytest.raises(SwarmError, match="No space left on device"):
            await leader.task
        leader.task = None
        new = await lab.leader()
        await new.engine.propose(b"fits here")
