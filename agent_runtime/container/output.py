"""Read a container's output from its FIFOs into its log.

The FIFOs have names, and the container holds both ends of them open: when daemon and spawner are gone it is neither
killed by SIGPIPE nor stopped for good, since whoever comes next opens them again and reads on.
"""

import asyncio
import fcntl
import os
from contextlib import suppress
from pathlib import Path

from pyswarm.agent_runtime.container.log_file import ContainerLog
from pyswarm.proto.clock import Clock
from pyswarm.proto.log import get_logger

log = get_logger(__name__)

STREAMS = ("stdout", "stderr")
_READ_BYTES = 256 * 1024
"""Of a pipe at once, and what one holds: a container that writes faster than we read then waits less often."""
_F_SETPIPE_SZ = 1031


class OutputPump:
    """Moves what a container writes into its log while the loop runs, and the rest at its end."""

    def __init__(self, directory: Path, target: ContainerLog, clock: Clock) -> None:
        self._log = target
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._open: dict[int, str] = {}
        self._failing = False
        for stream in STREAMS:
            # Both ways, so that our own descriptor never sees an end while nobody has the other side open.
            descriptor = os.open(directory / stream, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            with suppress(PermissionError):  # the machine's limit on pipes is reached: the usual size will do
                fcntl.fcntl(descriptor, _F_SETPIPE_SZ, _READ_BYTES)
            self._open[descriptor] = stream
            self._loop.add_reader(descriptor, self._read, descriptor)

    def _read(self, descriptor: int) -> bool:
        try:
            data = os.read(descriptor, _READ_BYTES)
        except BlockingIOError:
            return False
        try:
            self._log.append(data, self._open[descriptor], self._clock.now())
            self._failing = False
        except OSError as error:
            # A full disk must not stop the container: what cannot be kept is dropped, and said once.
            if not self._failing:
                log.error("dropping a container's output", error=error)
            self._failing = True
        return True

    def finish(self) -> None:
        """Read what is left and close. Call when no process of the container is left."""
        for descriptor in list(self._open):
            self._loop.remove_reader(descriptor)
            while self._read(descriptor):
                pass
            os.close(descriptor)
            del self._open[descriptor]

    def abandon(self) -> None:
        """Close without reading: the daemon stops, the container goes on."""
        for descriptor in list(self._open):
            self._loop.remove_reader(descriptor)
            os.close(descriptor)
            del self._open[descriptor]
