"""Which nodes are alive: sessions, heartbeats, and how much silence is borne (pure: the time is handed in).

The suspicion adapts. A node whose heartbeats come evenly is down after `GRACE_PERIODS` periods of silence; one whose
heartbeats have been coming late (a loaded machine, a bad line) is given as much more as it has been late, up to
`GRACE_PERIODS_MAX` periods. After a change of leader every node has `NEW_LEADER_PERIODS` periods to come back.
"""

from dataclasses import dataclass

GRACE_PERIODS = 3.0
GRACE_PERIODS_MAX = 10.0
NEW_LEADER_PERIODS = 6.0
LATENESS_WEIGHT = 0.2
"""How fast the memory of late heartbeats follows new ones."""

LATENESS_MARGIN = 4.0
"""Deviations from the mean that are still believed to be lateness."""


@dataclass
class _Heard:
    session_id: str
    at: float
    lateness: float = 0.0
    deviation: float = 0.0


class Liveness:
    """The table of sessions of one leader. Moments are seconds on a monotonic clock."""

    def __init__(self, period_seconds: float) -> None:
        if period_seconds <= 0:
            raise ValueError("a heartbeat period is positive")
        self.period_seconds = period_seconds
        self._heard: dict[str, _Heard] = {}

    def expect(self, node_id: str, *, now: float) -> None:
        """A new leader has not heard of this node yet: give it time, as nodes UNKNOWN to it (swarm mistake 46)."""
        extra = (NEW_LEADER_PERIODS - GRACE_PERIODS) * self.period_seconds
        self._heard.setdefault(node_id, _Heard("", now + extra))

    def register(self, node_id: str, session_id: str, *, now: float) -> None:
        """A node opened a session; the one it had is void (swarm mistake 47)."""
        self._heard[node_id] = _Heard(session_id, now)

    def beat(self, node_id: str, session_id: str, *, now: float) -> bool:
        """Count a heartbeat; return False when the session is not the node's present one."""
        heard = self._heard.get(node_id)
        if heard is None or heard.session_id != session_id:
            return False
        late = max(0.0, now - heard.at - self.period_seconds)
        heard.deviation += LATENESS_WEIGHT * (abs(late - heard.lateness) - heard.deviation)
        heard.lateness += LATENESS_WEIGHT * (late - heard.lateness)
        heard.at = now
        return True

    def is_current(self, node_id: str, session_id: str) -> bool:
        heard = self._heard.get(node_id)
        return heard is not None and heard.session_id == session_id

    def forget(self, node_id: str) -> None:
        self._heard.pop(node_id, None)

    def expired(self, *, now: float) -> list[str]:
        """Return the nodes whose silence has lasted too long, and forget them. Sorted."""
        found = sorted(node_id for node_id in self._heard if self._deadline(node_id) <= now)
        for node_id in found:
            del self._heard[node_id]
        return found

    def next_deadline(self) -> float | None:
        """Return the earliest moment at which a node may expire."""
        return min((self._deadline(node_id) for node_id in self._heard), default=None)

    def _deadline(self, node_id: str) -> float:
        heard = self._heard[node_id]
        grace = GRACE_PERIODS * self.period_seconds + heard.lateness + LATENESS_MARGIN * heard.deviation
        return heard.at + min(grace, GRACE_PERIODS_MAX * self.period_seconds)
