"""A consensus group of one, in memory: for the tests of rooms that need a `Consensus` but not its disk or network.

Passes the same conformance suite as the engine (tests/lib/consensus_suite.py). Members added to it are believed
to be alive and to agree at once. Tests steer it with `lose_leadership`, `lead_again` and `lose_quorum`.
"""

import asyncio
from collections.abc import AsyncIterator

from pyswarm.manager.raft.leadership import LeadershipBoard
from pyswarm.manager.raft.port import Leadership, Member, StateMachine
from pyswarm.proto.errors import AlreadyExists, FailedPrecondition, NotFound, NotLeader, Unavailable

FAKE_MEMBER = Member("raft-1", "node-1", "127.0.0.1:7946", "127.0.0.1:2377")


class SingleNodeConsensus:
    """Implements `port.Consensus`. Leads from the start; a proposal is applied before `propose` returns."""

    def __init__(self, state_machine: StateMachine, member: Member = FAKE_MEMBER) -> None:
        self._machine = state_machine
        self._self = member
        self._members = {member.raft_id: member}
        self._index = 0
        self._has_quorum = True
        self._is_closed = False
        self._board = LeadershipBoard(Leadership(term=1, leader=member, is_leader=True, is_ready=True))

    @property
    def self_member(self) -> Member:
        return self._self

    @property
    def leadership(self) -> Leadership:
        return self._board.present

    @property
    def applied_index(self) -> int:
        return self._index

    def members(self) -> tuple[Member, ...]:
        return tuple(self._members[raft_id] for raft_id in sorted(self._members))

    def reachable(self) -> frozenset[str]:
        return frozenset(self._members) if self._has_quorum else frozenset({self._self.raft_id})

    def watch_leadership(self) -> AsyncIterator[Leadership]:
        return self._board.watch()

    async def propose(self, payload: bytes, *, timeout_seconds: float = 10.0) -> tuple[int, bytes]:  # noqa: ARG002
        await self._must_lead()
        self._index += 1
        return self._index, self._machine.apply(self._index, payload)

    async def read_barrier(self, *, timeout_seconds: float = 5.0) -> int:  # noqa: ARG002
        await self._must_lead()
        return self._index

    async def add_member(self, member: Member) -> None:
        await self._must_lead()
        known = self._members.get(member.raft_id)
        if known == member:
            return
        if known is not None:
            raise AlreadyExists(f"the raft id {member.raft_id} is another member's")
        self._index += 1
        self._members[member.raft_id] = member

    async def remove_member(self, raft_id: str) -> None:
        await self._must_lead()
        if raft_id not in self._members:
            raise NotFound(f"no member has the raft id {raft_id}")
        if raft_id == self._self.raft_id:
            raise FailedPrecondition(
                "the leader cannot remove itself", remedy="Hand leadership over first, then ask the new leader."
            )
        self._index += 1
        del self._members[raft_id]

    async def transfer_leadership(self) -> None:
        await self._must_lead()
        others = [m for m in self.members() if m != self._self]
        if not others:
            raise FailedPrecondition(
                "there is no other manager to lead", remedy="Add a manager first: `pyswarm node promote NODE`."
            )
        self.lose_leadership(others[0])

    async def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._board.close()

    # -- what only tests do

    def lose_leadership(self, leader: Member | None = None) -> None:
        """From now on `leader` leads, or nobody known yet."""
        self._board.post(Leadership(self.leadership.term + 1, leader, is_leader=False, is_ready=False))

    def lead_again(self) -> None:
        """Be elected, in a new term."""
        self._board.post(Leadership(self.leadership.term + 1, self._self, is_leader=True, is_ready=True))

    def lose_quorum(self) -> None:
        """Refuse writes and reads until `regain_quorum`."""
        self._has_quorum = False

    def regain_quorum(self) -> None:
        self._has_quorum = True

    async def _must_lead(self) -> None:
        # A real proposal lets other tasks run; a caller must not come to rely on the contrary.
        await asyncio.sleep(0)
        if self._is_closed:
            raise Unavailable("this manager is shutting down")
        if not self.leadership.is_leader:
            leader = self.leadership.leader
            raise NotLeader(leader=leader.node_id if leader else "")
        if not self._has_quorum:
            raise Unavailable("no majority of the managers is in reach")
