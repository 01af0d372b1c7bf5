"""The thread that writes the journal, so that a slow disk stops nothing else.

One job after the other, in the order in which they were given. `append` and `post` are for what is done for every
write: they cost one hand-over each way and nothing in between, where a future of an executor costs as much processor
time as all else that a member does for a write. For everything rare it is an executor like any other. The simulator
has its own.

A Python thread has to fight with the loop for the interpreter's lock. So where the C extension was built, frames are
written by a thread that never needs it (_disk_writer.c), and a follower, which has nothing else to do, waits for that
for a moment: mostly it can acknowledge at once.
"""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any

from pyswarm.manager.raft.wal import Wal

try:
    from pyswarm.manager.raft._disk_writer import Writer
except ImportError:  # there was no compiler when this was installed
    HAS_NATIVE = False
else:
    HAS_NATIVE = True

Told = Callable[[BaseException | None], None]
CallSoon = Callable[..., object]
"""Have a function called on the loop, from any thread: its `call_soon_threadsafe`."""

Job = Callable[[], Callable[[], object]]
"""What is to be done; returns how whoever waits for it is told."""

PATIENCE_SECONDS = 0.0005
"""How long a loop that has nothing else to do may wait for the disk. A sync takes 0.1 to 0.3 ms when the disk is well;
when it is not, this is all that the loop stands still."""


class DiskThread(Executor):
    """A daemon thread: a disk that never answers keeps no process alive."""

    def __init__(self, name: str = "raft-disk") -> None:
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        Thread(target=self._work, name=name, daemon=True).start()

    def append(self, wal: Wal, content: bytes, mark: int, told: Told, *, may_wait: bool) -> None:  # noqa: ARG002
        """Append a frame to `wal`, then have `told` called on the running loop with what that raised, or None.

        `may_wait`: the loop may stand still for it for a moment.
        """
        self.post(partial(wal.append, content, mark), told, asyncio.get_running_loop().call_soon_threadsafe)

    def post(self, job: Callable[[], None], told: Told, call_soon: CallSoon) -> None:
        """Run `job`, then have `told` called by `call_soon` with what it raised, or None."""
        self._give(partial(_run, job, told, call_soon))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        future: Future[Any] = Future()

        def run() -> Callable[[], object]:
            if not future.set_running_or_notify_cancel():
                return lambda: None
            try:
                return partial(future.set_result, fn(*args, **kwargs))
            except BaseException as failure:  # noqa: BLE001 - it belongs to whoever waits for it
                return partial(future.set_exception, failure)

        self._give(run)
        return future

    async def drain(self) -> None:
        """Return when all that was given is done, and told."""
        await asyncio.get_running_loop().run_in_executor(self, lambda: None)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End when all that was given is done."""
        assert not wait, "the loop would stand still"
        assert not cancel_futures, "what was given is done"
        self._jobs.put(None)

    def _give(self, job: Job) -> None:
        self._jobs.put(job)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()()


class NativeDiskThread(DiskThread):
    """Has frames written by the C extension; all else is done by the Python thread, in turn.

    Both are given work by one loop only. A frame goes to the native thread while the Python thread has nothing to do,
    and a job of the Python thread begins when the native one has finished, so there is one order still.
    """

    def __init__(self, name: str = "raft-disk") -> None:
        self._writer = Writer()
        self._told: Told | None = None
        """Whom to tell of the frame under way."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._given = 0
        """Jobs that the Python thread was given; the loop's own count."""
        self._done = 0
        """Jobs that it has done; its own count, and grows before anybody is told."""
        super().__init__(name)

    def append(self, wal: Wal, content: bytes, mark: int, told: Told, *, may_wait: bool) -> None:
        frame = wal.prepare(content, mark) if self._given == self._done and self._told is None else None
        if frame is None:
            super().append(wal, content, mark, told, may_wait=may_wait)
            return
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            loop.add_reader(self._writer.fileno(), self._attend, False)
        self._told = told
        self._writer.post(*frame)
        # Behind what is to be done in this turn of the loop: mostly the disk is ready by then.
        loop.call_soon(self._attend, may_wait)

    async def drain(self) -> None:
        await super().drain()
        self._attend(may_wait=False)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        if self._loop is not None:
            self._loop.remove_reader(self._writer.fileno())
        super().shutdown(wait, cancel_futures=cancel_futures)

    def _attend(self, may_wait: bool) -> None:
        """Tell of the frame under way now if it is written, and else when it is."""
        told = self._told
        if told is not None and ((may_wait and self._writer.wait(PATIENCE_SECONDS)) or self._writer.arm()):
            self._told = None
            number = self._writer.take()
            told(OSError(number, os.strerror(number)) if number else None)

    def _give(self, job: Job) -> None:
        self._given += 1
        super()._give(job)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._writer.wait(-1)
            tell = job()
            self._done += 1
            tell()
        self._writer.wait(-1)
        self._writer.close()


def disk_thread() -> DiskThread:
    """Return the fastest there is."""
    return NativeDiskThread() if HAS_NATIVE else DiskThread()


def _run(job: Callable[[], None], told: Told, call_soon: CallSoon) -> Callable[[], object]:
    failure: BaseException | None = None
    try:
        job()
    except BaseException as error:  # noqa: BLE001 - it belongs to whoever is told
        failure = error
    return partial(_tell, told, failure, call_soon)


def _tell(told: Told, failure: BaseException | None, call_soon: CallSoon) -> None:
    # A loop that was closed meanwhile has nobody left who waits.
    with suppress(RuntimeError):
        call_soon(told, failure)
