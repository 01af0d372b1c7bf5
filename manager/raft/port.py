"""What the rest of the manager sees of consensus: two small protocols and a handful of records.

`Consensus` is implemented by `manager/raft/engine.py` (PySyncObj) and by the single-node fake that ships
in `manager/raft/fake.py`; both pass the same conformance suite. The replicated `StateMachine` is the store.
"""

from collections.abc import AsyncIterator, Iterable
from typing import Protocol

from msgspec import Struct


class Member(Struct, frozen=True):
    """A voter. `raft_id` is random, made at each join and never reused; a node that rejoins gets a new one."""

    raft_id: str
    node_id: str
    raft_addr: str
    api_addr: str


class Leadership(Struct, frozen=True):
    """Who leads, as this member believes it. `is_ready` is true on the leader once all entries of the
    log at its election are applied here: only then may leader-only work begin."""

    term: int
    leader: Member | None
    is_leader: bool
    is_ready: bool


class StateMachine(Protocol):
    """What is replicated. Every method must be deterministic: no clock, no randomness, no set order."""

    def apply(self, index: int, payload: bytes) -> bytes:
        """Apply one committed payload; never raises. The result travels only to the local proposer."""

    def snapshot(self) -> Iterable[bytes]:
        """Return the state as pieces of at most 64 KiB each.

        They come from an immutable view, so they may be consumed later, in a thread.
        """

    def restore(self, index: int, pieces: Iterable[bytes]) -> None:
        """Replace the whole state by a snapshot taken at `index`."""


class Consensus(Protocol):
    """A member of the managers' consensus group."""

    @property
    def self_member(self) -> Member: ...

    @property
    def leadership(self) -> Leadership: ...

    @property
    def applied_index(self) -> int: ...

    def members(self) -> tuple[Member, ...]:
        """Return the present voters, sorted by raft id."""

    def reachable(self) -> frozenset[str]:
        """Return the raft ids of the members this one has heard from lately, itself included."""

    def watch_leadership(self) -> AsyncIterator[Leadership]:
        """Yield the present leadership at once, then each change."""

    async def propose(self, payload: bytes, *, timeout_seconds: float = 10.0) -> tuple[int, bytes]:
        """Commit `payload` and return (index, what `apply` returned).

        Raises:
            NotLeader: nothing was proposed; ask `leader`.
            Unavailable: nothing was proposed: no quorum in reach.
            OutcomeUnknown: leadership was lost or the deadline passed while it was in flight.
        """

    async def read_barrier(self, *, timeout_seconds: float = 5.0) -> int:
        """Return an index after which a read of the local state is linearizable; leader only, else `NotLeader`."""

    async def add_member(self, member: Member) -> None:
        """Add a voter; one change at a time. Leader only."""

    async def remove_member(self, raft_id: str) -> None:
        """Remove a voter; refuses (`FailedPrecondition`) when the rest would have no reachable quorum."""

    async def transfer_leadership(self) -> None:
        """Hand leadership to the most advanced other member and return when this one no longer leads."""

    async def close(self) -> None:
        """Stop taking part, flush and close the journal."""
