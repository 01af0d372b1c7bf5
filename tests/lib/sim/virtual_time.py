"""An asyncio event loop whose time is a number: it jumps to the next timer as soon as nothing is left to do now.

Everything a host does runs in a context that names it (`HOST`): its tasks, its timers, what it is told by the
network and its disk threads. That is how one loop holds many hosts: what belongs to a paused one is kept until it
goes on, and what belongs to one that is gone never runs. Threads are places in virtual time: a job handed to an
executor runs at one moment, in the order of its executor, and its result is known at a later one.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import ContextVar
from typing import Any, Protocol

from pyswarm.manager.raft.disk_thread import CallSoon, DiskThread, Told

BEGINNING = 1000.0


class Machine(Protocol):
    """What the loop asks of the host that a callback belongs to."""

    is_paused: bool
    backlog: deque[asyncio.Handle]

    def job_seconds(self) -> tuple[float, float]:
        """Return how long a job of a disk thread waits, and how long its result takes to be known."""


HOST: ContextVar[Machine | None] = ContextVar("host", default=None)


class NothingLeftToDo(AssertionError):
    """Everybody waits and no timer runs: in real time this would hang for ever."""


class VirtualLoop(asyncio.BaseEventLoop):
    def __init__(self) -> None:
        super().__init__()
        self._time = BEGINNING
        self._lanes: dict[int, float] = {}

    def time(self) -> float:
        return self._time

    def hold(self, seconds: float) -> None:
        """Whoever runs now takes so long and lets nobody else run meanwhile."""
        self._time += seconds

    def _run_once(self) -> None:
        timers: list[Any] = self._scheduled
        while timers and timers[0]._cancelled:
            heapq.heappop(timers)._scheduled = False
        if not self._ready:
            if not timers:
                raise NothingLeftToDo
            self._time = max(self._time, timers[0]._when)
        while timers and timers[0]._when <= self._time:
            timer = heapq.heappop(timers)
            timer._scheduled = False
            self._ready.append(timer)
        for _ in range(len(self._ready)):
            handle = self._ready.popleft()
            if handle._cancelled:
                continue
            host = handle._context.get(HOST)
            if host is not None and host.is_paused:
                host.backlog.append(handle)
            else:
                handle._run()

    def resume(self, host: Machine) -> None:
        """Let run what was kept while `host` was paused, in its order."""
        self._ready.extend(host.backlog)
        host.backlog.clear()

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> "asyncio.Future[Any]":
        host = HOST.get()
        before, after = host.job_seconds() if host is not None else (0.0, 0.0)
        start = max(self._time, self._lanes.get(id(executor), 0.0)) + before
        self._lanes[id(executor)] = start + after
        outcome: asyncio.Future[Any] = self.create_future()

        def work() -> None:
            try:
                result, error = func(*args), None
            except Exception as failure:  # noqa: BLE001 - a job's failure belongs to whoever waits for it
                result, error = None, failure
            self.call_at(max(self._time, start + after), settle, result, error)

        def settle(result: Any, error: Exception | None) -> None:
            if outcome.cancelled():
                return
            if error is not None:
                outcome.set_exception(error)
            else:
                outcome.set_result(result)

        self.call_at(start, work)
        return outcome

    # -- what a loop with sockets would do

    def _process_events(self, event_list: Any) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody sleeps in a system call."""


class VirtualDiskThread(DiskThread):
    """No thread: a place in the virtual time of its host."""

    def __init__(self) -> None:
        """Nothing to start."""

    def post(self, job: Callable[[], None], told: Told, call_soon: CallSoon) -> None:
        done = asyncio.get_running_loop().run_in_executor(self, job)
        done.add_done_callback(lambda outcome: told(outcome.exception()))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Nothing to end."""
