"""When this member may stand for election, and whose votes count (pure, given the time and random draws).

Whoever hears no leader for long enough stands; much sooner when the stream to the leader has ended, as it does at once
when a leader's process dies and its machine lives. A leader that lives is heard again before that time is up.

Three rules the core does not have. Pre-vote: nobody stands before a majority has said that it would vote for it,
so a member that was cut off does not depose the leader when it returns. Stickiness: whoever heard a leader within
the shorter election timeout does not take part in deposing it. A vote counts once, however often it arrives.
"""

from collections.abc import Callable
from typing import Final

from pyswarm.manager.raft.rules import ALL_RULES, Rules

Uniform = Callable[[float, float], float]

DOUBT_HEARTBEATS: Final = (1.5, 3.0)
"""How long who lost the stream to its leader waits for a sign of life: a random time between the two, in heartbeats."""


class Elections:
    def __init__(
        self,
        *,
        own_id: str,
        election_seconds: tuple[float, float],
        heartbeat_seconds: float,
        now: float,
        uniform: Uniform,
        rules: Rules = ALL_RULES,
    ) -> None:
        self._rules = rules
        self._own_id = own_id
        self._low, self._high = election_seconds
        self._heartbeat_seconds = heartbeat_seconds
        self._uniform = uniform
        self._leader_heard_at = float("-inf")
        self.doubts_leader = False
        """The stream to the leader has ended, and nothing was heard of it since."""
        self._patience = 0.0
        self._deadline = 0.0
        self._canvass_term = 0
        self._supporters: set[str] = set()
        self._count_term = 0
        self._voters: set[str] = set()
        self.transfer_term = 0
        """The term in which this member stands because the leader told it to."""
        self.put_off(now)

    def put_off(self, now: float) -> None:
        """Wait anew, for a random time, before standing."""
        self._patience = self._uniform(self._low, self._high)
        self._deadline = now + self._patience

    def leader_heard(self, now: float) -> None:
        self._leader_heard_at = now
        self.doubts_leader = False
        self._canvass_term = 0
        # The same time as before: it was drawn for this leadership, and drawing costs more than all else here.
        self._deadline = now + self._patience

    def leader_lost(self) -> None:
        """The leader said itself that it hands over."""
        self._leader_heard_at = float("-inf")

    def leader_vanished(self, now: float) -> None:
        """The stream to the leader has ended: it may be dead, and should be deposed soon if it is."""
        self.doubts_leader = True
        self.hasten(now)

    def hasten(self, now: float) -> None:
        """Wait no longer than for a few more heartbeats before standing."""
        low, high = DOUBT_HEARTBEATS
        doubt = self._uniform(low * self._heartbeat_seconds, high * self._heartbeat_seconds)
        self._deadline = min(self._deadline, now + doubt)

    def is_due(self, now: float) -> bool:
        return now >= self._deadline

    def is_sticky(self, now: float) -> bool:
        """Whether a leader was heard so lately that nobody should be helped to depose it."""
        return self._rules.sticky_leader and not self.doubts_leader and now - self._leader_heard_at < self._low

    def knows_leader(self, now: float) -> bool:
        """Whether a leader was heard within the longer election timeout (twice, to bridge an election)."""
        return now - self._leader_heard_at < self._high * 2

    def canvass(self, term: int, now: float) -> None:
        """Begin to ask who would vote for this member in `term`."""
        self._canvass_term = term
        self._supporters = {self._own_id}
        self.put_off(now)

    def supported(self, voter: str, term: int, *, needed: int) -> bool:
        """Take note of a promise to vote; return whether there are now enough, once per canvass."""
        if term != self._canvass_term:
            return False
        self._supporters.add(voter)
        if len(self._supporters) < needed:
            return False
        self._canvass_term = 0
        return True

    def stand(self, term: int) -> None:
        """Begin to count votes for this member in `term`."""
        if term != self._count_term:
            self._count_term = term
            self._voters = {self._own_id}

    def counts(self, voter: str, term: int) -> bool:
        """Return whether a vote counts: it is for the present candidacy and the voter's first."""
        if term != self._count_term or (self._rules.count_votes_once and voter in self._voters):
            return False
        self._voters.add(voter)
        return True
