"""Watch over a whole group and stop the run at the first thing that must never be.

    election safety        a term has one leader
    state machine safety   the same payloads at an index on every member, in one order, for ever; none applied twice
    log matching           an entry with the same index and term is the same everywhere, and so is what precedes it
    no write lost          what was acknowledged at an index is what is applied at that index, everywhere
    told truly             what was reported as not proposed is never applied

Linearizability is judged at the end from the clients' history (linearizability.py), progress by simulation.py.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from zlib import crc32

from pyswarm.manager.raft.codec import Entry


class InvariantBroken(AssertionError):
    """The run has shown a defect, or the harness has one."""


class Oracle:
    def __init__(self) -> None:
        self.leaders: dict[int, str] = {}
        self.applied: dict[int, list[int]] = {}
        self._entries: dict[tuple[int, int], tuple[int, int]] = {}
        self._refused: set[int] = set()
        self._seen: set[int] = set()
        self.acknowledged: dict[int, int] = {}
        """Fingerprint of the payload -> the index it was acknowledged at."""

    def elected(self, term: int, raft_id: str) -> None:
        known = self.leaders.setdefault(term, raft_id)
        if known != raft_id:
            raise InvariantBroken(f"term {term} has two leaders: {known} and {raft_id}")

    def observed(self, entries: Sequence[Entry]) -> None:
        """Entries that follow each other in some member's log; the first one's predecessor is in it as well."""
        for (_, _, before), (command, index, term) in pairwise(entries):
            found = (crc32(command), before)
            known = self._entries.setdefault((index, term), found)
            if known != found:
                raise InvariantBroken(f"two logs hold different entries {index} of term {term}")

    def apply(self, where: str, index: int, place: int, payload: bytes) -> None:
        """A member applied `payload`, the `place`-th of its entry."""
        known = self.applied.setdefault(index, [])
        mark = crc32(payload)
        if place < len(known):
            if known[place] != mark:
                raise InvariantBroken(f"{where} applied another payload at index {index}, place {place}")
            return
        if place > len(known):
            raise InvariantBroken(f"{where} passed over a payload at index {index}")
        known.append(mark)
        self._seen.add(mark)
        if mark in self._refused:
            raise InvariantBroken(f"{where} applied at index {index} what was reported as not proposed")

    def acknowledge(self, index: int, payload: bytes) -> None:
        mark = crc32(payload)
        self.acknowledged[mark] = index
        if mark not in self.applied.get(index, ()):
            raise InvariantBroken(f"a write was acknowledged at index {index} and was not applied there")

    def refuse(self, payload: bytes) -> None:
        mark = crc32(payload)
        self._refused.add(mark)
        if mark in self._seen:
            raise InvariantBroken("a write was reported as not proposed and had been applied")

    def settled(self, where: str, applied: Iterable[int], state: Iterable[int]) -> None:
        """At the end: `state` is what the member `where` has made of everything; nothing acknowledged is missing."""
        held = set(state)
        reach = max(applied, default=0)
        for mark, index in self.acknowledged.items():
            if index > reach or mark not in held:
                raise InvariantBroken(f"{where} does not hold the write that was acknowledged at index {index}")
