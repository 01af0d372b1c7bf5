"""The one door to wall and monotonic time, so that tests and the simulator can hand in their own.

Decisions never import this: the edge reads the clock and hands `now` in.
"""

import time
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since the epoch."""

    def monotonic(self) -> float:
        """Seconds on a clock that never steps back; only differences mean anything."""


class SystemClock:
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


SYSTEM_CLOCK: Clock = SystemClock()
