"""Follow the store: each commit once, in order, without a gap, or a clear sign to start again.

A subscription holds a bounded queue. A follower that falls behind is not waited for and not fed gaps: its queue is
dropped and it is told so by `Overrun`. Who is told of what is fanout.py's matter, coming back history.py's. Commits may
be delivered from another thread than the follower's (consensus may apply in its own); the follower must be on the event
loop it subscribed from.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Final

from msgspec import Struct

from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.manager.store.transition import Event
from pyswarm.proto.errors import Unavailable

QUEUE_LIMIT: Final = 4096
"""Commits that may wait for one follower."""

QUEUED_EVENTS_MAX: Final = 262_144
"""Events that may wait for one follower, in however few commits."""


class Commit(Struct, frozen=True):
    """One applied entry: what happened to which object (of the kinds asked for), and the view after it."""

    version: int
    events: tuple[Event, ...]
    snapshot: Snapshot


class Overrun(Unavailable):
    """The follower missed commits: it must take a new view and watch from there."""

    remedy = "Read the present state again and watch from there."


class Restored(Overrun):
    """The whole state was replaced by a snapshot from the leader: there are no single commits to tell."""


class Subscription:
    """Commits from one version on: iterate with `async for`, close by `with` (or `async with`)."""

    def __init__(self, *, after: int, limit: int, on_close: Callable[["Subscription"], None]) -> None:
        """`after` is the version that the follower has: commits up to it are not for it."""
        self._after = after
        self._limit = limit
        self._on_close = on_close
        # Two counters, each with one writer: the store may deliver from another thread than the follower takes in.
        self._delivered_events = 0
        self._taken_events = 0
        self._queue: deque[Commit] = deque()
        self._error: Overrun | None = None
        self._is_closed = False
        self._woken = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    @property
    def waiting(self) -> int:
        """How many commits have come and were not taken yet."""
        return len(self._queue)

    def __aiter__(self) -> "Subscription":
        return self

    async def __anext__(self) -> Commit:
        """Return the next commit; raise `Overrun` (or `Restored`) when there is a gap before it."""
        while (commit := self._take()) is None:
            if self._is_closed:
                raise StopAsyncIteration
            await self._wait()
        return commit

    async def next_batch(self) -> tuple[Commit, ...]:
        """Wait for a commit and return all that have come (none only when closed); raise as iterating does."""
        batch: list[Commit] = []
        while not batch and not self._is_closed:
            await self._wait()
            while (commit := self._take()) is not None:
                batch.append(commit)
        return tuple(batch)

    def close(self) -> None:
        """Stop following; whoever waits gets the end of the iteration. May be called again."""
        if not self._is_closed:
            self._is_closed = True
            self._queue.clear()
            self._wake()
            self._on_close(self)

    def __enter__(self) -> "Subscription":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> "Subscription":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def deliver(self, commit: Commit) -> bool:
        """Queue events the follower asked for; return False when it is to be forgotten. For the store alone."""
        if self._is_closed or self._error is not None:
            return False
        if commit.version <= self._after:
            return True
        waiting = len(self._queue)
        events = self._delivered_events - self._taken_events + len(commit.events)
        if waiting >= self._limit or (waiting and events > QUEUED_EVENTS_MAX):
            behind = f"{waiting} commits ({events} events)"
            self.fail(Overrun(f"a follower of the store fell {behind} behind at version {commit.version}"))
            return False
        self._delivered_events += len(commit.events)
        self._queue.append(commit)
        self._wake()
        return True

    def fail(self, error: Overrun) -> None:
        """Drop what is queued and have the follower told. For the store alone."""
        self._error = error
        self._queue.clear()
        self._wake()

    def _take(self) -> Commit | None:
        """Return the oldest commit that waits; None also when a failure in another thread has just dropped it."""
        try:
            commit = self._queue.popleft()
        except IndexError:
            return None
        self._taken_events += len(commit.events)
        return commit

    async def _wait(self) -> None:
        """Return when a commit is queued or the subscription is closed; raise when there is a gap."""
        while not self._queue and not self._is_closed:
            if self._error is not None:
                raise self._error
            self._woken.clear()
            # Looked at again after clearing: a commit may have come in between, from another thread.
            if not (self._queue or self._is_closed or self._error is not None):
                await self._woken.wait()

    def _wake(self) -> None:
        if threading.get_ident() == self._thread:
            self._woken.set()
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._woken.set)
