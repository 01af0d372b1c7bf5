"""Proposals waiting to enter the log, and those in it whose outcome is awaited.

All that wait travel in one entry (group commit), and few entries are under way at once: under load each carries
more instead. Every proposal ends in one of three ways: known, refused (nothing was proposed), or unknown.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pyswarm.manager.raft.rules import ALL_RULES, Rules
from pyswarm.proto.errors import NotLeader, OutcomeUnknown, SwarmError, Unavailable

ENTRIES_UNDER_WAY = 2

Result = tuple[int, bytes]


@dataclass(eq=False, slots=True)
class Proposal:
    payload: bytes
    outcome: "asyncio.Future[Result]"
    deadline: float
    """On the monotonic clock."""


@dataclass
class Proposals:
    """`submit` puts one entry into the core's queue and calls back with (index, results) or with None."""

    entry_bytes_max: int
    entry_proposals_max: int
    rules: Rules = ALL_RULES
    waiting: deque[Proposal] = field(default_factory=deque)
    _under_way: list[list[Proposal]] = field(default_factory=list)

    @property
    def is_idle(self) -> bool:
        return not self._under_way

    def next_batches(self) -> Sequence[list[Proposal]]:
        """Take the proposals of the entries that may be submitted now."""
        batches = []
        while self.waiting and len(self._under_way) < ENTRIES_UNDER_WAY:
            batch = self._next_batch()
            if batch:
                self._under_way.append(batch)
                batches.append(batch)
        return batches

    def _next_batch(self) -> list[Proposal]:
        batch: list[Proposal] = []
        size = 0
        while self.waiting and len(batch) < self.entry_proposals_max:
            proposal = self.waiting[0]
            if proposal.outcome.done():
                self.waiting.popleft()
                continue
            size += len(proposal.payload)
            if batch and size > self.entry_bytes_max:
                break
            self.waiting.popleft()
            batch.append(proposal)
        return batch

    def committed(self, batch: list[Proposal], index: int, results: Sequence[bytes]) -> None:
        """The entry is applied."""
        self._forget(batch)
        for proposal, result in zip(batch, results, strict=True):
            # Its caller may have given up, or have been told "unknown" already.
            if not proposal.outcome.done():
                proposal.outcome.set_result((index, result))

    def not_proposed(self, batch: list[Proposal], why: Callable[[], SwarmError]) -> None:
        """The core did not take the entry, or another one was committed in its place."""
        self._forget(batch)
        for proposal in batch:
            _fail(proposal, why)

    def leadership_lost(self, leader: str) -> None:
        """Nothing waiting was proposed; of what is under way nobody knows."""
        for batch in self._under_way:
            for proposal in batch:
                if self.rules.unknown_when_deposed:
                    _fail(proposal, lambda: OutcomeUnknown("leadership was lost while the write was under way"))
                else:
                    _fail(proposal, lambda: NotLeader(leader=leader))
        self._under_way.clear()
        self.refuse_waiting(lambda: NotLeader(leader=leader))

    def refuse_waiting(self, why: Callable[[], SwarmError]) -> None:
        while self.waiting:
            _fail(self.waiting.popleft(), why)

    def expire(self, now: float) -> None:
        """Tell whose deadline has passed. To be called several times within the shortest useful deadline: a timer for
        each proposal would cost as much as half of all else that is done for it."""
        for batch in self._under_way:
            for proposal in batch:
                if proposal.deadline <= now:
                    _fail(proposal, lambda: OutcomeUnknown("the write was not committed before its deadline"))
        if any(proposal.deadline <= now for proposal in self.waiting):
            for proposal in self.waiting:
                if proposal.deadline <= now:
                    _fail(proposal, lambda: Unavailable("the write waited until its deadline and was not proposed"))
            self.waiting = deque(proposal for proposal in self.waiting if not proposal.outcome.done())

    def _forget(self, batch: list[Proposal]) -> None:
        self._under_way = [other for other in self._under_way if other is not batch]


def _fail(proposal: Proposal, why: Callable[[], SwarmError]) -> None:
    if not proposal.outcome.done():
        proposal.outcome.set_exception(why())
