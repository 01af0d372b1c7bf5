"""Follow the store: each commit once, in order, without a gap, or a clear sign to start again.

A subscription holds a bounded queue. A follower that falls behind is not waited for and not fed gaps: its
queue is dropped and it is told so by `Overrun`. Commits may be delivered from another thread than the
follower's (consensus may apply in its own); the follower must be on the event loop it subscribed from.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Container
from types import TracebackType
from typing import Final

from msgspec import Struct

from pyswarm.manager.store.changes import Kind
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.manager.store.transition import Event
from pyswarm.proto.errors import Unavailable

QUEUE_LIMIT: Final = 4096
"""Commits that may wait for one follower."""


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

    def __init__(self, kinds: Container[Kind] | None, limit: int, on_close: Callable[["Subscription"], None]) -> None:
        self._kinds = kinds
        self._limit = limit
        self._on_close = on_close
        self._queue: deque[Commit] = deque()
        self._error: Overrun | None = None
        self._is_closed = False
        self._woken = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    def __aiter__(self) -> "Subscription":
        return self

    async def __anext__(self) -> Commit:
        """Return the next commit; raise `Overrun` (or `Restored`) when there is a gap before it."""
        await self._wait()
        if not self._queue:
            raise StopAsyncIteration
        return self._queue.popleft()

    async def next_batch(self) -> tuple[Commit, ...]:
        """Wait for a commit and return all that have come (none only when closed); raise as iterating does."""
        await self._wait()
        batch: list[Commit] = []
        while self._queue:
            batch.append(self._queue.popleft())
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
        """Queue what interests the follower; return False when it is to be forgotten. For the store alone."""
        if self._is_closed or self._error is not None:
            return False
        if self._kinds is not None:
            kinds = self._kinds
            events = tuple(event for event in commit.events if event.kind in kinds)
            if len(events) < len(commit.events):
                commit = Commit(commit.version, events, commit.snapshot)
        if not commit.events:
            return True
        if len(self._queue) >= self._limit:
            self.fail(Overrun(f"a follower of the store fell {self._limit} commits behind at version {commit.version}"))
            return False
        self._queue.append(commit)
        self._wake()
        return True

    def fail(self, error: Overrun) -> None:
        """Drop what is queued and have the follower told. For the store alone."""
        self._error = error
        self._queue.clear()
        self._wake()

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
