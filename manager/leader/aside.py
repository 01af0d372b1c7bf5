"""Take long decisions beside the event loop: neither heartbeats nor people at the API wait for them.

A decision is a pure function of an immutable view, so another thread may take it. The interpreter goes to and fro
between that thread and the loop's (`SWITCH_SECONDS` in main.py), so the loop is held for fractions of a millisecond
where it was held for as long as the decision took. The world moves on meanwhile: orchestrator/late.py says what of a
decision still holds then.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

T = TypeVar("T")

SHORT_TASKS = 300
"""A decision about so many tasks takes some milliseconds at most: no more than to have another thread take it."""


class Aside(Protocol):
    async def __call__(self, decide: Callable[[], T], *, tasks: int) -> T:
        """Return what `decide` returns; it looks at about `tasks` tasks."""


async def at_once(decide: Callable[[], T], *, tasks: int) -> T:  # noqa: ARG001 - takes all in the same way
    """Decide on the event loop, whatever it takes."""
    return decide()


class DecisionThread:
    """Takes long decisions in a thread, one after the other: two at a time would only share the interpreter."""

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def __call__(self, decide: Callable[[], T], *, tasks: int) -> T:
        if tasks <= SHORT_TASKS:
            return decide()
        return await asyncio.get_running_loop().run_in_executor(self._thread, decide)

    def close(self) -> None:
        """Let the thread end with the decision it is at, which nobody waits for."""
        self._thread.shutdown(wait=False, cancel_futures=True)
