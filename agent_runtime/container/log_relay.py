"""Hand a container's lines on to a log outside: a syslog, the journal, or nowhere. Nothing is kept here.

Blocking, as Docker's default: when the other side does not take them, no more is read, and in the end the container
waits. Non-blocking: lines wait in a buffer of a given size, and what does not fit is dropped and counted. When the
other side is gone, lines are dropped too, and it is called again after a second.
"""

import asyncio
import os
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from pyswarm.agent_runtime.container.log_format import Line, LineCutter, Piece
from pyswarm.agent_runtime.container.taps import Taps
from pyswarm.proto.log import get_logger

log = get_logger(__name__)

FLUSH_SECONDS = 3.0
"""How long what was read is still tried to be handed on after the container, or we, have ended."""
REOPEN_SECONDS = 1.0
"""Between two calls of somebody who does not answer."""
_READ_BYTES = 64 * 1024
_BLOCKING_BUFFER_BYTES = 256 * 1024
_MOST_LINES = 256
_LINE_OVERHEAD_BYTES = 64


class Sink(Protocol):
    """Somebody who takes lines. Every method may raise OSError."""

    async def open(self) -> None: ...

    async def send(self, lines: Sequence[Line]) -> None:
        """Hand lines on, waiting until they are taken."""

    def close(self) -> None: ...


class Relay:
    """Where the output of one container goes (`output.Target`). `tasks` owns the sending and must outlive it."""

    def __init__(
        self, container_id: str, sink: Sink, *, is_blocking: bool, buffer_bytes: int, tasks: asyncio.TaskGroup
    ) -> None:
        self._container_id = container_id
        self._sink = sink
        self._is_blocking = is_blocking
        self._buffer_bytes = _BLOCKING_BUFFER_BYTES if is_blocking else buffer_bytes
        self._tasks = tasks
        self.taps = Taps()
        self._cutter = LineCutter()
        self._lines: deque[Line] = deque()
        self._size = 0
        self._dropped = 0
        self._news = asyncio.Event()
        self._ended = False
        self._resume: Callable[[], None] | None = None
        self._is_open = False
        self._try_again_at = 0.0
        self._patience: asyncio.Timeout | None = None
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Call the other side before the container starts. Raises OSError."""
        await self._sink.open()
        self._is_open = True

    def begin(self) -> None:
        """Start sending, unless that was done."""
        if self._task is None:
            self._task = self._tasks.create_task(self._run(), name=f"log-{self._container_id}")

    def take(self, pipe: int, stream: str, now: float) -> int:
        data = os.read(pipe, _READ_BYTES)
        self.append(data, stream, now)
        return len(data)

    def append(self, data: bytes, stream: str, now: float) -> None:
        self.taps.tell(stream, data)
        self._keep(self._cutter.cut(Piece(now, len(data), stream), data))

    def _keep(self, lines: Sequence[Line]) -> None:
        for line in lines:
            cost = len(line.data) + _LINE_OVERHEAD_BYTES
            if not self._is_blocking and self._lines and self._size + cost > self._buffer_bytes:
                self._drop(1, "nobody takes it as fast as it comes")
                continue
            self._lines.append(line)
            self._size += cost
        self._news.set()

    def _drop(self, count: int, reason: str) -> None:
        if not self._dropped:
            log.warning("dropping lines of a container's log", container=self._container_id, reason=reason)
        self._dropped += count

    def wants_more(self, when_it_does: Callable[[], None]) -> bool:
        if not self._is_blocking or self._size < self._buffer_bytes:
            return True
        self._resume = when_it_does
        return False

    def close(self) -> None:
        self._resume = None
        self.taps.close()
        self._keep(self._cutter.rest())
        self._ended = True
        self._news.set()
        if self._patience is not None:
            self._patience.reschedule(asyncio.get_running_loop().time() + FLUSH_SECONDS)
        if self._task is None:  # it never began: there is nothing to send
            self._sink.close()

    async def _run(self) -> None:
        try:
            while not (self._ended and not self._lines):
                if not self._lines:
                    self._news.clear()
                    await self._news.wait()
                    continue
                try:
                    async with asyncio.timeout(FLUSH_SECONDS if self._ended else None) as self._patience:
                        await self._send([self._lines[at] for at in range(min(_MOST_LINES, len(self._lines)))])
                except TimeoutError:
                    self._drop(len(self._lines), "it was not taken before the end")
                    return
                finally:
                    self._patience = None
        finally:
            self._sink.close()
            if self._dropped:
                log.warning(
                    "lines of a container's log were dropped", container=self._container_id, lines=self._dropped
                )

    async def _send(self, lines: list[Line]) -> None:
        now = asyncio.get_running_loop().time
        try:
            if not self._is_open:
                if now() < self._try_again_at:
                    raise ConnectionError("nobody takes it")
                await self._sink.open()
                self._is_open = True
            await self._sink.send(lines)
        except OSError as error:
            self._sink.close()
            self._is_open = False
            if now() >= self._try_again_at:
                self._try_again_at = now() + REOPEN_SECONDS
            self._drop(len(lines), str(error))
        self._taken(len(lines))

    def _taken(self, count: int) -> None:
        for _ in range(count):
            line = self._lines.popleft()
            self._size -= len(line.data) + _LINE_OVERHEAD_BYTES
        if self._resume is not None and self._size < self._buffer_bytes // 2:
            resume, self._resume = self._resume, None
            resume()
