"""Let writes leave in groups: under load many share one entry, whose cost hardly depends on how many it carries.

An entry costs three managers a round of messages and a sync each, a write in it next to nothing. Calls come one by one,
so without this each entry would leave with the few that happened to be there. A write that finds hardly any under way
leaves at once, for nobody should wait for company; one that finds more waits until those have ended, and leaves with
all that wait by then.
"""

import asyncio
from typing import Final

ALONE_MAX: Final = 2
"""Writes under way below which another one leaves at once: two entries may be under way side by side."""


class Departures:
    """Used on one event loop: `await enter()`, propose, `leave()`."""

    def __init__(self) -> None:
        self._under_way = 0
        self._is_open = False
        """A group has begun to leave in this step of the loop; whoever comes in it leaves too."""
        self._waiting: list[asyncio.Future[None]] = []

    async def enter(self, deadline: float) -> None:
        """Return when the write may be proposed; `leave` must follow then. Raises TimeoutError at `deadline`."""
        # Behind those that wait already: a trickle that always finds a place would keep them for ever.
        if self._is_open or (self._under_way < ALONE_MAX and not self._waiting):
            self._under_way += 1
            self._open()
            return
        called: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(called)
        try:
            async with asyncio.timeout_at(deadline):
                await called
        except BaseException:
            if called.done() and not called.cancelled():
                # Called, and given up before it could leave: it counts as under way.
                self.leave()
            elif called in self._waiting:
                self._waiting.remove(called)
            raise

    def leave(self) -> None:
        """The write that entered has an outcome, or none will be known: it is waited for no longer."""
        self._under_way -= 1
        if self._under_way:
            return
        waiting, self._waiting = self._waiting, []
        for called in waiting:
            if not called.done():
                self._under_way += 1
                called.set_result(None)
        if self._under_way:
            self._open()

    def _open(self) -> None:
        if not self._is_open:
            self._is_open = True
            asyncio.get_running_loop().call_soon(self._close)

    def _close(self) -> None:
        self._is_open = False
