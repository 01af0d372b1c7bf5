"""Which nodes are alive: sessions, heartbeats, and how much silence is borne (pure: the time is handed in).

A blip, which a machine under load or a line that drops packets has every day, must move no task; a dead node's tasks
must run elsewhere within seconds. From the leader both look the same until the blip is over, so the grace is the
longest silence that a blip of `BLIP_SECONDS` can cause and nothing more: the period that was running out when it
began, the blip, and the time an agent takes to find a way back. A closed connection shortens it not: an agent that is
killed closes its connection too, and its supervisor has it back, tasks and all, before the grace is over.

The grace adapts. A node whose heartbeats have been coming late is given as much more as it has been late, up to
`LATENESS_SECONDS_MAX`. The period grows with the cluster, so that heartbeats never cost the managers more than
`BEATS_PER_SECOND_MAX`, and the grace with it: managers of thousands of nodes have moments in which all of them want
something. What a node is held to is the period it was last told. After a change of leader every node has
`NEW_LEADER_SECONDS` longer to come back.
"""

import heapq
from dataclasses import dataclass

BLIP_SECONDS = 3.0
"""The longest blip that must move nothing."""

RETURN_SECONDS = 0.8
"""What an agent takes to be heard again after a blip: a pause between attempts and a TLS handshake."""

NEW_LEADER_SECONDS = 2.0
LATENESS_SECONDS_MAX = 6.0
BEATS_PER_SECOND_MAX = 500
"""A heartbeat costs the machines of a cluster some 0.4 ms of processor time, most of it at the managers."""

LATENESS_WEIGHT = 0.2
"""How fast the memory of late heartbeats follows new ones."""

LATENESS_MARGIN = 4.0
"""Deviations from the mean that are still believed to be lateness."""


def grace_seconds(period_seconds: float) -> float:
    """Return how long a node that was never late may be silent."""
    return period_seconds + max(BLIP_SECONDS, period_seconds / 2) + RETURN_SECONDS


@dataclass
class _Heard:
    session_id: str
    at: float
    period: float
    """What the node was told last."""
    lateness: float = 0.0
    deviation: float = 0.0
    queued: float = 0.0
    """When it is looked at next: never later than its deadline."""


class Liveness:
    """The table of sessions of one leader. Moments are seconds on a monotonic clock."""

    def __init__(self, period_seconds: float) -> None:
        if period_seconds <= 0:
            raise ValueError("a heartbeat period is positive")
        self._period_seconds = period_seconds
        self._heard: dict[str, _Heard] = {}
        # One true entry for each node; what it says may be too early, so a heartbeat need not touch it.
        self._queue: list[tuple[float, str]] = []

    @property
    def period_seconds(self) -> float:
        """The period that nodes are to keep now."""
        return max(self._period_seconds, len(self._heard) / BEATS_PER_SECOND_MAX)

    def expect(self, node_id: str, *, now: float) -> None:
        """A new leader has not heard of this node yet: give it time, as nodes UNKNOWN to it (swarm mistake 46)."""
        if node_id not in self._heard:
            self._heard[node_id] = _Heard("", now + NEW_LEADER_SECONDS, self.period_seconds)
            self._look_at(node_id)

    def register(self, node_id: str, session_id: str, *, now: float) -> None:
        """A node opened a session; the one it had is void (swarm mistake 47)."""
        self._heard[node_id] = _Heard(session_id, now, self.period_seconds)
        self._look_at(node_id)

    def beat(self, node_id: str, session_id: str, *, now: float) -> bool:
        """Count a heartbeat; return False when the session is not the node's present one."""
        heard = self._heard.get(node_id)
        if heard is None or heard.session_id != session_id:
            return False
        late = max(0.0, now - heard.at - heard.period)
        heard.deviation += LATENESS_WEIGHT * (abs(late - heard.lateness) - heard.deviation)
        heard.lateness += LATENESS_WEIGHT * (late - heard.lateness)
        heard.at, heard.period = now, self.period_seconds
        if self._deadline(heard) < heard.queued:
            self._look_at(node_id)
        return True

    def is_current(self, node_id: str, session_id: str) -> bool:
        heard = self._heard.get(node_id)
        return heard is not None and heard.session_id == session_id

    def forget(self, node_id: str) -> None:
        self._heard.pop(node_id, None)

    def expired(self, *, now: float) -> list[str]:
        """Return the nodes whose silence has lasted too long, and forget them. Sorted."""
        found = []
        while (deadline := self.next_deadline()) is not None and deadline <= now:
            _, node_id = heapq.heappop(self._queue)
            del self._heard[node_id]
            found.append(node_id)
        return sorted(found)

    def next_deadline(self) -> float | None:
        """Return the earliest moment at which a node may expire."""
        while self._queue:
            moment, node_id = self._queue[0]
            heard = self._heard.get(node_id)
            if heard is None or heard.queued != moment:
                heapq.heappop(self._queue)
            elif (deadline := self._deadline(heard)) > moment:
                heard.queued = deadline
                heapq.heapreplace(self._queue, (deadline, node_id))
            else:
                return deadline
        return None

    def _look_at(self, node_id: str) -> None:
        heard = self._heard[node_id]
        heard.queued = self._deadline(heard)
        heapq.heappush(self._queue, (heard.queued, node_id))

    @staticmethod
    def _deadline(heard: _Heard) -> float:
        late = heard.lateness + LATENESS_MARGIN * heard.deviation
        return heard.at + grace_seconds(heard.period) + min(late, LATENESS_SECONDS_MAX)
