"""Linearizable reads without a write: the read index of the Raft thesis, section 6.4.

A read takes the commit index at its arrival, waits until a majority has answered a heartbeat sent after that (so
nobody else led in between), and until that index is applied here. All reads of a tick share one round.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

from pyswarm.manager.raft.rules import ALL_RULES, Rules
from pyswarm.proto.errors import SwarmError, Unavailable

READS_MAX = 16_384
"""Reads that may wait for a majority; one more is refused as unavailable."""


class Rounds(Protocol):
    def begin_round(self) -> int: ...


@dataclass(eq=False)
class Read:
    outcome: "asyncio.Future[int]"
    index: int = 0
    is_asked: bool = False
    round: int = 0
    """0 until a round was begun for it."""


@dataclass
class Reads:
    rules: Rules = ALL_RULES
    _open: list[Read] = field(default_factory=list)

    @property
    def are_waiting(self) -> bool:
        return bool(self._open)

    def add(self) -> Read:
        """Raises Unavailable."""
        if len(self._open) >= READS_MAX:
            raise Unavailable("too many reads are waiting", remedy="The managers are overloaded: try again later.")
        read = Read(asyncio.get_running_loop().create_future())
        self._open.append(read)
        return read

    def ask(self, read: Read, index: int) -> None:
        """The read may be answered with `index` once leadership is confirmed."""
        read.index = index
        read.is_asked = True

    def begin(self, rounds: Rounds) -> None:
        """Begin one round for all reads that have none."""
        fresh = [read for read in self._open if read.is_asked and not read.round]
        if fresh:
            number = rounds.begin_round()
            for read in fresh:
                read.round = number

    def settle(self, *, confirmed: int, applied: int) -> None:
        for read in self._open:
            is_confirmed = read.round <= confirmed or not self.rules.confirm_reads
            if read.round and is_confirmed and read.index <= applied and not read.outcome.done():
                read.outcome.set_result(read.index)

    def refuse(self, why: SwarmError) -> None:
        """This member does not lead any more."""
        for read in self._open:
            if not read.outcome.done():
                read.outcome.set_exception(why)

    def drop(self, read: Read) -> None:
        """Nobody waits for it any more."""
        read.outcome.cancel()
        self._open = [other for other in self._open if other is not read]
