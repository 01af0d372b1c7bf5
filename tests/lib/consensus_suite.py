"""What every `Consensus` must do: run against the engine, alone and in company, and against the fake.

A subclass gives the fixture `group`, a `Group` whose `leader` leads and is ready.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest
from lib.raft_lab import Ledger

from pyswarm.manager.raft.port import Consensus, Leadership, Member
from pyswarm.proto.errors import FailedPrecondition, NotFound, Unavailable


@dataclass
class Group:
    leader: Consensus
    ledger: Ledger
    """The leader's state machine."""
    new_member: Callable[[], Awaitable[Member]]
    """Make somebody who can be added."""


class ConsensusSuite:
    async def test_a_proposal_is_applied_before_it_returns(self, group: Group) -> None:
        index, result = await group.leader.propose(b"one")
        assert group.ledger.entries == [b"one"]
        assert result == b"1"
        assert group.ledger.indexes == [index]
        assert group.leader.applied_index >= index

    async def test_proposals_get_growing_indexes(self, group: Group) -> None:
        indexes = [(await group.leader.propose(b"%d" % n))[0] for n in range(5)]
        assert indexes == sorted(set(indexes))

    async def test_many_proposals_at_once_are_all_applied_once_in_one_order(self, group: Group) -> None:
        payloads = [b"%d" % n for n in range(300)]
        outcomes = await asyncio.gather(*(group.leader.propose(p) for p in payloads))
        assert sorted(group.ledger.entries) == sorted(payloads)
        for payload, (_, place) in zip(payloads, outcomes, strict=True):
            assert group.ledger.entries[int(place) - 1] == payload

    async def test_a_large_proposal_travels_whole(self, group: Group) -> None:
        payload = bytes(range(256)) * 4096
        await group.leader.propose(payload)
        assert group.ledger.entries == [payload]

    async def test_an_abandoned_proposal_harms_nobody(self, group: Group) -> None:
        abandoned = asyncio.ensure_future(group.leader.propose(b"abandoned"))
        await asyncio.sleep(0)
        abandoned.cancel()
        await asyncio.wait([abandoned])
        await group.leader.propose(b"next")
        assert group.ledger.entries[-1] == b"next"

    async def test_a_read_barrier_covers_what_was_acknowledged(self, group: Group) -> None:
        index, _ = await group.leader.propose(b"one")
        assert await group.leader.read_barrier() >= index
        assert group.leader.applied_index >= index

    async def test_many_reads_at_once_are_all_answered(self, group: Group) -> None:
        index, _ = await group.leader.propose(b"one")
        answers = await asyncio.gather(*(group.leader.read_barrier() for _ in range(100)))
        assert min(answers) >= index

    async def test_the_leader_names_itself(self, group: Group) -> None:
        leadership = group.leader.leadership
        assert leadership.is_leader
        assert leadership.is_ready
        assert leadership.leader == group.leader.self_member

    async def test_a_watch_begins_with_the_present_leadership(self, group: Group) -> None:
        assert await anext(group.leader.watch_leadership()) == group.leader.leadership

    async def test_members_are_sorted_and_reachable(self, group: Group) -> None:
        members = group.leader.members()
        assert list(members) == sorted(members, key=lambda m: m.raft_id)
        assert group.leader.self_member in members
        assert group.leader.reachable() == {m.raft_id for m in members}

    async def test_a_member_can_be_added_and_removed(self, group: Group) -> None:
        before = group.leader.members()
        joiner = await group.new_member()
        await group.leader.add_member(joiner)
        assert joiner in group.leader.members()
        await group.leader.propose(b"together")
        await group.leader.remove_member(joiner.raft_id)
        assert group.leader.members() == before
        await group.leader.propose(b"without it")
        assert group.ledger.entries == [b"together", b"without it"]

    async def test_adding_a_member_again_changes_nothing(self, group: Group) -> None:
        before = group.leader.members()
        await group.leader.add_member(group.leader.self_member)
        assert group.leader.members() == before

    async def test_nobody_unknown_can_be_removed(self, group: Group) -> None:
        with pytest.raises(NotFound):
            await group.leader.remove_member("raft-nobody")

    async def test_the_leader_does_not_remove_itself(self, group: Group) -> None:
        with pytest.raises(FailedPrecondition):
            await group.leader.remove_member(group.leader.self_member.raft_id)

    async def test_leadership_cannot_be_handed_to_nobody(self, group: Group) -> None:
        if len(group.leader.members()) == 1:
            with pytest.raises(FailedPrecondition):
                await group.leader.transfer_leadership()

    async def test_leadership_is_handed_over(self, group: Group) -> None:
        joiner = await group.new_member()
        await group.leader.add_member(joiner)
        await group.leader.transfer_leadership()
        assert not group.leader.leadership.is_leader
        with pytest.raises(FailedPrecondition):
            await group.leader.propose(b"late")
        with pytest.raises(FailedPrecondition):
            await group.leader.read_barrier()

    async def test_after_closing_nothing_is_taken(self, group: Group) -> None:
        seen: list[Leadership] = []
        watch = group.leader.watch_leadership()
        seen.append(await anext(watch))
        await group.leader.close()
        await group.leader.close()
        with pytest.raises(Unavailable):
            await group.leader.propose(b"late")
        seen += [leadership async for leadership in watch]
        assert len(seen) <= 2, "a watch ends when the member is closed"
