"""The present leadership and everybody who waits for it to change.

Watchers see the newest value: one that was slow misses what has been overtaken since, never the last. Used by
the engine and by the fake.
"""

import asyncio
from collections.abc import AsyncIterator

from pyswarm.manager.raft.port import Leadership


class LeadershipBoard:
    """One value, many watchers, nothing queued. Used from one event loop."""

    def __init__(self, present: Leadership) -> None:
        self._present = present
        self._is_closed = False
        self._changed = asyncio.Event()

    @property
    def present(self) -> Leadership:
        return self._present

    def post(self, leadership: Leadership) -> bool:
        """Make `leadership` the present one; return whether that is a change."""
        if leadership == self._present:
            return False
        self._present = leadership
        self._wake()
        return True

    def close(self) -> None:
        """End every watch."""
        self._is_closed = True
        self._wake()

    async def watch(self) -> AsyncIterator[Leadership]:
        """Yield the present leadership at once, then each change, until `close`."""
        while True:
            shown, changed = self._present, self._changed
            if self._is_closed:
                return
            yield shown
            while self._present == shown and not self._is_closed:
                await changed.wait()
                changed = self._changed

    def _wake(self) -> None:
        # A fresh event for those who come later: an event that was set cannot be waited for again.
        self._changed.set()
        self._changed = asyncio.Event()
