"""A manager that was just admitted knows who leads from the leader's first word on, whatever its snapshot knows."""

import asyncio
from pathlib import Path

import pytest
from lib.raft_lab import LabMember, caught_up, raft_lab


@pytest.mark.parametrize("is_told", [True, False])
async def test_who_joins_names_and_answers_a_leader_that_its_snapshot_does_not_know(
    tmp_path: Path, *, is_told: bool
) -> None:
    """The only snapshot is the founder's first, and the leader came later. Once the newcomer was given it, it must
    not forget the leader, drop its link, lose its own answer and wait for the leader's stream to be given up."""
    async with raft_lab(tmp_path, 2) as lab:
        founder, second = lab.members
        await founder.engine.transfer_leadership()
        assert await lab.leader() is second
        newcomer = LabMember(lab, "3")
        lab.members.append(newcomer)
        # A manager asks the others for the list before it starts; one of an older list may be told nobody.
        await newcomer.start((founder.member, second.member, newcomer.member) if is_told else ())
        named: list[str] = []

        async def note() -> None:
            async for leadership in newcomer.engine.watch_leadership():
                named.append(leadership.leader.node_id if leadership.leader else "nobody")

        async with asyncio.TaskGroup() as group:
            watch = group.create_task(note())
            await second.engine.add_member(newcomer.member)
            index, _ = await second.engine.propose(b"x")
            async with asyncio.timeout(3):
                await caught_up(newcomer, index)
            watch.cancel()
        assert newcomer.engine.leadership.leader == second.member
        assert named in (["nobody", second.member.node_id], [second.member.node_id])
