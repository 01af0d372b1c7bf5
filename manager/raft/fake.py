"""A consensus group of one in memory: the fake that ships with the port, for tests of the rooms above it.

Commits at once, in order. Passes the same conformance suite as the real engine, apart from surviving anything.
"""

import asyncio
from collections.abc import AsyncIterator

from pyswarm.manager.raft.port import Leadership, Member, StateMachine
from pyswarm.proto.errors import FailedPrecondition, NotLeader, Unavailable


class SingleNodeConsensus:
    """Implements `Consensus` for one member that always leads, until told otherwise by `lose_leadership`."""

    def __init__(self, state_machine: StateMachine, member: Member | None = None) -> None:
        self._machine = state_machine
        self._member = member or Member("raft1", "node1", "127.0.0.1:7946", "127.0.0.1:2377")
        self._members = {self._member.raft_id: self._member}
        self._index = 0
        self._is_closed = False
        self._leadership = Leadership(term=1, leader=self._member, is_leader=True, is_ready=True)
        self._changed = asyncio.Event()

    @property
    def self_member(self) -> Member:
        return self._member

    @property
    def leadership(self) -> Leadership:
        return self._leadership

    @property
    def applied_index(self) -> int:
        return self._index

    def members(self) -> tuple[Member, ...]:
        return tuple(self._members[key] for key in sorted(self._members))

    def reachable(self) -> frozenset[str]:
        return frozenset(self._members)

    async def watch_leadership(self) -> AsyncIterator[Leadership]:
        told: Leadership | None = None
        while True:
            if told != self._leadership:
                told = self._leadership
                yield told
            else:
                self._changed.clear()
                await self._changed.wait()

    async def propose(self, payload: bytes, *, timeout_seconds: float = 10.0) -> tuple[int, bytes]:
        self._check()
        self._index += 1
        result = self._machine.apply(self._index, payload)
        await asyncio.sleep(0)
        return self._index, result

    async def read_barrier(self, *, timeout_seconds: float = 5.0) -> int:
        self._check()
        return self._index

    async def add_member(self, member: Member) -> None:
        self._check()
        self._members[member.raft_id] = member

    async def remove_member(self, raft_id: str) -> None:
        self._check()
        if raft_id == self._member.raft_id:
            raise FailedPrecondition("the leader cannot remove itself", remedy="Transfer leadership first.")
        self._members.pop(raft_id, None)

    async def transfer_leadership(self) -> None:
        raise FailedPrecondition("there is no other member to lead", remedy="Add a manager first.")

    async def close(self) -> None:
        self._is_closed = True

    def lose_leadership(self) -> None:
        """For tests: from now on another, unknown member leads."""
        self._leadership = Leadership(term=self._leadership.term + 1, leader=None, is_leader=False, is_ready=False)
        self._changed.set()

    def lead_again(self) -> None:
        """For tests: lead in a new term."""
        self._leadership = Leadership(self._leadership.term + 1, self._member, is_leader=True, is_ready=True)
        self._changed.set()

    def _check(self) -> None:
        if self._is_closed:
            raise Unavailable("the consensus group was closed")
        if not self._leadership.is_leader:
            raise NotLeader(leader="")
