"""Let writes leave in groups: under load many share one entry, whose cost hardly depends on how many it carries.

An entry costs three managers a round of messages and a sync each, a write in it next to nothing. Calls come one by one,
so without this each entry would leave with the few that happened to be there. A write that finds hardly any under way
leaves at once, for nobody should wait for company; one that finds more waits until those have ended, and leaves with
all that wait by then. Once a crowd has left together, its like is waited for: whoever was answered writes again, but
each call takes its caller and this manager some tenths of a millisecond, so they come back one after the other, and
the first of them would be off with an entry of its own. The wait is over when as many have come as were answered; where
fewer write again, when nobody has come for a while. (PostgreSQL: `commit_siblings` and `commit_delay`.)
"""

import asyncio
from typing import Final

ALONE_MAX: Final = 2
"""Writes under way below which another one leaves at once: two entries may be under way side by side."""

CROWD_MIN: Final = 3
"""Writes that had waited and left together from which on more are expected to come back like this. Two or three
callers hardly ever make such a group: they would lose by waiting for each other."""

QUIET_SECONDS: Final = 0.008
"""A crowd has gathered when nobody has come for so long: callers that share two busy processors with three managers
come in bursts, as each process is given its turn. With 2 ms, entries left with a fifth of those who were about
to come."""

GATHERING_SECONDS: Final = 0.05
"""Since a crowd left: so long may the next one gather at most, and so long it is remembered."""


class Departures:
    """Used on one event loop: `await enter()`, propose, `leave()`."""

    def __init__(self) -> None:
        self._under_way = 0
        self._is_open = False
        """A group has begun to leave in this step of the loop; whoever comes in it leaves too."""
        self._waiting: list[asyncio.Future[None]] = []
        self._came_at = 0.0
        """When the last one began to wait, by the loop's clock."""
        self._crowd_until = 0.0
        """Until then another crowd may gather."""
        self._awaited = 0
        """How many of the crowd were answered and have not come back."""
        self._gathering: asyncio.TimerHandle | None = None

    async def enter(self, deadline: float) -> None:
        """Return when the write may be proposed; `leave` must follow then. Raises TimeoutError at `deadline`."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._awaited = max(0, self._awaited - 1)
        # Behind those that wait already: a trickle that always finds a place would keep them for ever.
        is_alone = self._under_way < ALONE_MAX and not self._waiting and now >= self._crowd_until
        if self._is_open or is_alone:
            self._under_way += 1
            self._open()
            return
        called: asyncio.Future[None] = loop.create_future()
        self._waiting.append(called)
        self._came_at = now
        self._depart_if_gathered()
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
        if asyncio.get_running_loop().time() < self._crowd_until:
            self._awaited += 1
        self._depart_if_gathered()

    def _depart_if_gathered(self) -> None:
        """Let those that wait leave, unless others are under way or a crowd is still gathering: then look again."""
        if self._under_way or not self._waiting:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        gathered_at = min(self._crowd_until, self._came_at + QUIET_SECONDS)
        if not self._awaited or now >= gathered_at:
            self._depart(now)
        elif self._gathering is None:
            # Not put off by each that comes: then as many timers would be set as there are writes.
            self._gathering = loop.call_at(gathered_at, self._look_again)

    def _look_again(self) -> None:
        self._gathering = None
        self._depart_if_gathered()

    def _depart(self, now: float) -> None:
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        # Those that are still to come belong to the crowd, however few were quick.
        late = self._awaited if now < self._crowd_until else 0
        self._awaited = 0
        waiting, self._waiting = self._waiting, []
        for called in waiting:
            if not called.done():
                self._under_way += 1
                called.set_result(None)
        self._crowd_until = now + GATHERING_SECONDS if self._under_way + late >= CROWD_MIN else 0.0
        if self._under_way:
            self._open()

    def _open(self) -> None:
        if not self._is_open:
            self._is_open = True
            asyncio.get_running_loop().call_soon(self._close)

    def _close(self) -> None:
        self._is_open = False
