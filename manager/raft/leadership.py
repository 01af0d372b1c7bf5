"""One present value and everybody who waits for it to change: who leads, who the members are.

Watchers see the newest value: one that was slow misses what has been overtaken since, never the last. Used by
the engine and by the fake.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

from pyswarm.manager.raft.port import Leadership

T = TypeVar("T")


class Board(Generic[T]):
    """One value, many watchers, nothing queued. Used from one event loop."""

    def __init__(self, present: T) -> None:
        self._present = present
        self._is_closed = False
        self._changed = asyncio.Event()

    @property
    def present(self) -> T:
        return self._present

    def post(self, value: T) -> bool:
        """Make `value` the present one; return whether that is a change."""
        if value == self._present:
            return False
        self._present = value
        self._wake()
        return True

    def close(self) -> None:
        """End every watch."""
        self._is_closed = True
        self._wake()

    async def watch(self) -> AsyncIterator[T]:
        """Yield the present value at once, then each change, until `close`."""
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


class LeadershipBoard(Board[Leadership]):
    """The present leadership."""
