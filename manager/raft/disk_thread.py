"""The thread that writes the journal, so that a slow disk stops nothing else.

One job after the other, in the order in which they were given. `post` is for what is done for every write: it costs
one hand-over each way and nothing in between, where a future of an executor costs as much processor time as all else
that a member does for a write. For everything rare it is an executor like any other. The simulator has its own.
"""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any

Told = Callable[[BaseException | None], None]
CallSoon = Callable[..., object]
"""Have a function called on the loop, from any thread: its `call_soon_threadsafe`."""


class DiskThread(Executor):
    """A daemon thread: a disk that never answers keeps no process alive."""

    def __init__(self, name: str = "raft-disk") -> None:
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        Thread(target=self._work, name=name, daemon=True).start()

    def post(self, job: Callable[[], None], told: Told, call_soon: CallSoon) -> None:
        """Run `job`, then have `told` called by `call_soon` with what it raised, or None."""
        self._jobs.put(partial(_run, job, told, call_soon))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        future: Future[Any] = Future()

        def run() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(fn(*args, **kwargs))
                except BaseException as failure:  # noqa: BLE001 - it belongs to whoever waits for it
                    future.set_exception(failure)

        self._jobs.put(run)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End when all that was given is done."""
        assert not wait, "the loop would stand still"
        assert not cancel_futures, "what was given is done"
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()


def _run(job: Callable[[], None], told: Told, call_soon: CallSoon) -> None:
    failure: BaseException | None = None
    try:
        job()
    except BaseException as error:  # noqa: BLE001 - it belongs to whoever is told
        failure = error
    # A loop that was closed meanwhile has nobody left who waits.
    with suppress(RuntimeError):
        call_soon(told, failure)
