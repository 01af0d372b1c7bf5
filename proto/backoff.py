"""Exponential backoff with full jitter (pure: the random draw is handed in)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """Delays of at most `first_seconds`, doubling up to `cap_seconds`."""

    first_seconds: float
    cap_seconds: float

    def delay_seconds(self, attempt: int, draw: float) -> float:
        """Return the wait before retry number `attempt` (from 0); `draw` is uniform in [0, 1)."""
        ceiling = min(self.cap_seconds, self.first_seconds * 2.0 ** min(attempt, 32))
        return ceiling * (0.5 + 0.5 * draw)
