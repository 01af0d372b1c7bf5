"""Let those who are attached hear what a container says that is kept nowhere here.

What one of them has not taken yet waits for it up to a bound, and what comes beyond that it misses: nobody who listens
slowly, or not at all, holds up the container.
"""

import asyncio
from collections import deque
from typing import Protocol

MOST_WAITING_BYTES = 1024 * 1024


class Listener(Protocol):
    """One who hears a container from the moment he was made."""

    async def next(self) -> tuple[str, bytes] | None:
        """Return (stream, data) as it comes; None at the end."""

    def close(self) -> None: ...


class Taps:
    def __init__(self) -> None:
        self._open: set[Tap] = set()
        self._is_closed = False

    def tell(self, stream: str, data: bytes) -> None:
        for tap in self._open:
            tap.put(stream, data)

    def close(self) -> None:
        """No more will come."""
        self._is_closed = True
        for tap in self._open:
            tap.end()

    def listen(self) -> "Tap":
        """Return a listener, which is the caller's to close."""
        tap = Tap(self._open)
        if self._is_closed:
            tap.end()
        return tap


class Tap:
    """The `Listener` of output that goes past. `others`: those who listen, itself among them until it is closed."""

    def __init__(self, others: "set[Tap]") -> None:
        self._others = others
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._size = 0
        self._has_ended = False
        self._news = asyncio.Event()
        others.add(self)

    def put(self, stream: str, data: bytes) -> None:
        if self._size + len(data) <= MOST_WAITING_BYTES:
            self._waiting.append((stream, data))
            self._size += len(data)
            self._news.set()

    def end(self) -> None:
        self._has_ended = True
        self._news.set()

    async def next(self) -> tuple[str, bytes] | None:
        while not self._waiting:
            if self._has_ended:
                return None
            self._news.clear()
            await self._news.wait()
        stream, data = self._waiting.popleft()
        self._size -= len(data)
        return stream, data

    def close(self) -> None:
        self._others.discard(self)
