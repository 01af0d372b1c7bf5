"""Let a thread of long work take a small share of the time, so that the event loop hardly notices it.

Python runs one thread at a time: one that computes without pause takes half of what the loop needs. After every
slice of work the thread rests for a multiple of it. Nothing waits for a snapshot, so it may take its time; whoever
does wait (a manager that stops) tells it to hurry.
"""

import threading
import time

SHARE = 0.06
"""Of one processor: writing and checking 100 MiB costs about 0.3 s of it and so takes about 5 s."""

SLICE_SECONDS = 0.0005


class Pace:
    """Made on the loop; `rest` is called by the one thread that works."""

    def __init__(self, share: float = SHARE) -> None:
        self._rest_factor = 1 / share - 1
        self._is_urgent = threading.Event()
        self._used = 0.0

    def begin(self) -> None:
        """The work begins, in the thread that calls."""
        self._used = time.thread_time()

    def rest(self) -> None:
        """Rest, if enough was done since the last rest. To be called between small pieces of work."""
        worked = time.thread_time() - self._used
        if worked >= SLICE_SECONDS and not self._is_urgent.is_set():
            self._is_urgent.wait(worked * self._rest_factor)
            self._used = time.thread_time()

    def hurry(self) -> None:
        """Rest no more."""
        self._is_urgent.set()
