"""Read a container's terminal and hand what it says to where its output goes.

Our end of the terminal is with the spawner, too: it gives it to the next daemon, and while there is none the container
waits in the end, as with a pipe. When daemon and spawner are gone, so is the terminal, and the container gets SIGHUP.
"""

import asyncio
import errno
import fcntl
import os
import struct
import termios

from pyswarm.agent_runtime.container.output import Target
from pyswarm.proto.clock import Clock
from pyswarm.proto.log import get_logger

log = get_logger(__name__)

_READ_BYTES = 64 * 1024
_LAST_WORDS_SECONDS = 1.0
"""A terminal hands on what was written last only after its writers have gone."""


class TerminalPump:
    """The `output.Pump` of a container with a terminal. Takes over `master`, our end of it, which does not block."""

    def __init__(self, master: int, target: Target, clock: Clock) -> None:
        self._master = master
        self._target = target
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._is_open = True
        self._ended = asyncio.Event()
        self._resume()

    def _resume(self) -> None:
        if self._is_open and not self._ended.is_set():
            self._loop.add_reader(self._master, self._read)

    def _read(self) -> None:
        self._take()
        if self._ended.is_set() or not self._target.wants_more(self._resume):
            self._loop.remove_reader(self._master)

    def _take(self) -> bool:
        try:
            data = os.read(self._master, _READ_BYTES)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            self._ended.set()  # nobody has the other end open any more
            return False
        try:
            self._target.append(data, "stdout", self._clock.now())
        except OSError as error:
            log.error("dropping a container's output", error=error)
        return True

    def resize(self, rows: int, columns: int) -> None:
        size = struct.pack("=4H", min(rows, 0xFFFF), min(columns, 0xFFFF), 0, 0)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)

    def writable(self) -> int:
        """Return a descriptor to write input to, which is the caller's to close."""
        return os.dup(self._master)

    async def drain(self) -> None:
        self._resume()
        try:
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                await self._ended.wait()
        except TimeoutError:
            pass  # somebody has kept the other end open: what was said so far has to do

    def finish(self) -> None:
        self._loop.remove_reader(self._master)
        while self._is_open and self._take():
            pass
        self._close()

    def abandon(self) -> None:
        self._loop.remove_reader(self._master)
        self._close()

    def _close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._ended.set()
            os.close(self._master)
