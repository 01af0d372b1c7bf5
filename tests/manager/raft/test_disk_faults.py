"""A slow disk costs neither leadership nor a promise; a full or broken one stops the member, and it says why."""

import asyncio
import errno
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from lib.raft_lab import caught_up, raft_lab

from pyswarm.manager.raft.engine import RaftEngine
from pyswarm.proto.errors import Internal, SwarmError, Unavailable

STALL_SECONDS = 2.0


@pytest.mark.parametrize("who", ["leader", "followers", "everybody"])
async def test_a_stalled_disk_costs_no_leadership_and_nothing_is_acknowledged_before_it(
    tmp_path: Path, who: str
) -> None:
    async with raft_lab(tmp_path, 3) as lab:
        leader = await lab.leader()
        stalled = {"leader": [leader], "followers": await lab.followers(), "everybody": lab.members}[who]
        index, _ = await leader.engine.propose(b"before")
        for member in lab.members:
            await caught_up(member, index)
        term = leader.engine.leadership.term
        with ExitStack() as stack:
            for member in stalled:
                stack.enter_context(member.disk.stalled())
            write = asyncio.ensure_future(leader.engine.propose(b"during"))
            longest = await watch_the_loop(leader.engine, write)
            assert all(member.disk.held for member in stalled)
            assert not write.done(), "a write was acknowledged before it was on the disks that count"
            assert all(b"during" not in member.ledger.entries for member in lab.members)
        await write
        assert longest < 0.5, f"the loop stood still for {longest:.2f} s"
        assert (leader.engine.leadership.is_leader, leader.engine.leadership.term) == (True, term)


async def watch_the_loop(leader: RaftEngine, write: "asyncio.Future[tuple[int, bytes]]") -> float:
    """Hold a stall for its length; return the longest time that the loop stood still. Ends early when `write` ends."""
    longest = 0.0
    ends = time.monotonic() + STALL_SECONDS
    while (before := time.monotonic()) < ends and not write.done():
        await asyncio.wait({write}, timeout=0.02)
        longest = max(longest, time.monotonic() - before - 0.02)
        assert leader.leadership.is_leader
    return longest


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
async def test_a_disk_that_fails_stops_its_member_loudly_and_no_other(tmp_path: Path, number: int) -> None:
    async with raft_lab(tmp_path, 3) as lab:
        leader = await lab.leader()
        leader.disk.fail_with(number)
        task, leader.task = leader.task, None
        assert task is not None
        with pytest.raises(SwarmError):
            await leader.engine.propose(b"x", timeout_seconds=5.0)
        with pytest.raises(Internal, match="the journal cannot be written") as stopped:
            await task
        assert "disk" in stopped.value.remedy
        with pytest.raises(Unavailable, match="the journal cannot be written") as refused:
            await leader.engine.propose(b"y")
        assert refused.value.remedy == stopped.value.remedy
        leader.disk.fail_with(0)
        others = await lab.leader()
        await others.engine.propose(b"z")
        await leader.start()
        index, _ = await (await lab.leader()).engine.propose(b"again")
        await caught_up(leader, index)
