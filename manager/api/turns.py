"""Answer with thousands of objects in turns: heartbeats, writes and other callers do not wait for all of them."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

T = TypeVar("T")

OBJECTS_IN_A_TURN = 100
"""To put so many into messages takes some milliseconds."""


async def in_turns(objects: Iterable[T], *, at_once: int = OBJECTS_IN_A_TURN) -> AsyncIterator[T]:
    """Yield `objects`; others get their turn on the event loop whenever `at_once` of them were taken."""
    for number, item in enumerate(objects, start=1):
        yield item
        if number % at_once == 0:
            await asyncio.sleep(0)
