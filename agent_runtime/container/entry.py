"""A container in the daemon's memory: its record and what is open for it."""

import asyncio
import os
from pathlib import Path

from pyswarm.agent_runtime.container.log_drivers import target_for
from pyswarm.agent_runtime.container.log_file import ContainerLog
from pyswarm.agent_runtime.container.log_relay import Relay
from pyswarm.agent_runtime.container.output import OutputPump
from pyswarm.agent_runtime.container.record import Record
from pyswarm.proto.clock import Clock


class Entry:
    """`turn` serialises operations; `ended` is set once it stopped or is gone; `cleaned` once its cgroup is removed.

    `record` is replaced, never changed, by `Containers` alone.
    """

    def __init__(self, record: Record, directory: Path, tasks: asyncio.TaskGroup) -> None:
        self.record = record
        self.turn = asyncio.Lock()
        self.ended = asyncio.Event()
        self.cleaned = asyncio.Event()
        self.finishing = False
        self.early_exit: int | None = None
        self.pidfd: int | None = None
        self._target = target_for(record, directory / "log", tasks)
        self._directory = directory
        self._output: OutputPump | None = None

    @property
    def log(self) -> ContainerLog | None:
        """Its log, if it can be read."""
        return self._target if isinstance(self._target, ContainerLog) else None

    async def call_log(self) -> None:
        """Make sure that whoever keeps its log outside can be reached. Raises OSError."""
        if isinstance(self._target, Relay):
            await self._target.open()

    def open_output(self, clock: Clock) -> None:
        if isinstance(self._target, Relay):
            self._target.begin()
        self._output = OutputPump(self._directory, self._target, clock)

    def close_output(self) -> None:
        """Read the last output and close the log for its followers."""
        if self._output is not None:
            self._output.finish()
            self._output = None
        self._target.close()

    def close(self) -> None:
        """The container has stopped, or is gone."""
        self.close_output()
        self._close_pidfd()
        self.ended.set()

    def abandon(self) -> None:
        """The daemon stops; the container goes on."""
        if self._output is not None:
            self._output.abandon()
            self._output = None
        self._target.close()
        self._close_pidfd()

    def _close_pidfd(self) -> None:
        if self.pidfd is not None:
            os.close(self.pidfd)
            self.pidfd = None
