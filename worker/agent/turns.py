"""Let many who need the same work done share it: each gets the outcome of a turn that began after they asked."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class SharedTurns(Generic[T]):
    """Does `work` one turn at a time. Those who ask during a turn share the next one, since this one may have missed
    what they ask for; a turn whose asker is cancelled ends with it, and the next in line takes one of its own."""

    def __init__(self, work: Callable[[], Awaitable[T]]) -> None:
        self._work = work
        self._lock = asyncio.Lock()
        self._begun = 0
        self._last: tuple[int, T | None, Exception | None] = (0, None, None)

    async def outcome(self) -> T:
        """Return what a turn returned that began after this call; raise what it raised."""
        needed = self._begun + 1
        async with self._lock:
            if self._last[0] < needed:
                self._last = await self._turn()
        _, result, failure = self._last
        if failure is not None:
            raise failure
        return result  # type: ignore[return-value]  # None only if that is what the work returns

    async def _turn(self) -> tuple[int, T | None, Exception | None]:
        self._begun += 1
        number = self._begun
        try:
            return number, await self._work(), None
        except Exception as failure:  # noqa: BLE001 - raised again by all who asked for this turn
            return number, None, failure
