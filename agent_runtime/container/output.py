"""Read a container's output from its FIFOs and hand it to where it goes.

The FIFOs have names, and the container holds both ends of them open: when daemon and spawner are gone it is neither
killed by SIGPIPE nor stopped for good, since whoever comes next opens them again and reads on.
"""

import asyncio
import fcntl
import os
import struct
import termios
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from pyswarm.agent_runtime.container.log_format import STREAMS
from pyswarm.proto.clock import Clock
from pyswarm.proto.log import get_logger

log = get_logger(__name__)

_PIPE_BYTES = 1024 * 1024
"""What a pipe holds: a container that writes faster than we read then waits less often."""
_F_SETPIPE_SZ = 1031


class Target(Protocol):
    """Where output goes: files (`log_file`) or somebody else (`log_relay`)."""

    def take(self, pipe: int, stream: str, now: float, /) -> int:
        """Take what is in a pipe; return how many bytes. Raises BlockingIOError when there is nothing.

        Raises another OSError when it cannot be kept; it is still in the pipe then.
        """

    def append(self, data: bytes, stream: str, now: float, /) -> None:
        """Take what was read from a terminal. Raises OSError when it cannot be kept."""

    def wants_more(self, when_it_does: Callable[[], None], /) -> bool:
        """Whether more may be taken; if not, `when_it_does` is called once it may."""

    def close(self) -> None:
        """No more will come."""


class Pump(Protocol):
    """Moves what a container writes to its target while the loop runs, and the rest at its end."""

    async def drain(self) -> None:
        """The container has ended: wait until its last words can be read."""

    def finish(self) -> None:
        """Read what is left and close. Call when no process of the container is left."""

    def abandon(self) -> None:
        """Close without reading: the daemon stops, the container goes on."""


class PipePump:
    """The `Pump` of a container with two FIFOs."""

    def __init__(self, directory: Path, target: Target, clock: Clock) -> None:
        self._target = target
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._open: dict[int, str] = {}
        self._failing = False
        for stream in STREAMS:
            # Both ways, so that our own descriptor never sees an end while nobody has the other side open.
            descriptor = os.open(directory / stream, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            with suppress(PermissionError):  # the machine's limit on pipes is reached: the usual size will do
                fcntl.fcntl(descriptor, _F_SETPIPE_SZ, _PIPE_BYTES)
            self._open[descriptor] = stream
        self._resume()

    def _resume(self) -> None:
        for descriptor in self._open:
            self._loop.add_reader(descriptor, self._read, descriptor)

    def _pause(self) -> None:
        for descriptor in self._open:
            self._loop.remove_reader(descriptor)

    def _read(self, descriptor: int) -> None:
        self._take(descriptor)
        if not self._target.wants_more(self._resume):
            self._pause()  # the container waits, as with Docker's blocking mode

    def _take(self, descriptor: int) -> None:
        try:
            self._target.take(descriptor, self._open[descriptor], self._clock.now())
            self._failing = False
        except BlockingIOError:
            pass
        except OSError as error:
            # A full disk must not stop the container: what cannot be kept is dropped, and said once.
            if not self._failing:
                log.error("dropping a container's output", error=error)
            self._failing = True
            with suppress(BlockingIOError):
                os.read(descriptor, _PIPE_BYTES)

    async def drain(self) -> None:
        pass  # what was written to a pipe is there

    def finish(self) -> None:
        self._pause()
        for descriptor in list(self._open):
            while _waiting_bytes(descriptor):
                self._take(descriptor)
        self._close()

    def abandon(self) -> None:
        self._pause()
        self._close()

    def _close(self) -> None:
        for descriptor in self._open:
            os.close(descriptor)
        self._open.clear()


def _waiting_bytes(pipe: int) -> int:
    (count,) = struct.unpack("=i", fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4))
    return int(count)
