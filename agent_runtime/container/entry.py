"""A container in the daemon's memory: its record and what is open for it."""

import asyncio
import errno
import os
from dataclasses import dataclass
from pathlib import Path

from pyswarm.agent_runtime.bundle.become import Steps
from pyswarm.agent_runtime.bundle.runtime_spec import Spec
from pyswarm.agent_runtime.container.log_drivers import target_for
from pyswarm.agent_runtime.container.log_file import ContainerLog
from pyswarm.agent_runtime.container.log_format import STDIN
from pyswarm.agent_runtime.container.log_reader import LogListener
from pyswarm.agent_runtime.container.log_relay import Relay
from pyswarm.agent_runtime.container.output import PipePump, Pump
from pyswarm.agent_runtime.container.record import Record
from pyswarm.agent_runtime.container.taps import Listener
from pyswarm.agent_runtime.container.terminal_pump import TerminalPump
from pyswarm.proto.clock import Clock


@dataclass(frozen=True)
class Held:
    """A child that waits for its start: the steps it has left, what it will execute, and our end of its terminal."""

    steps: Steps
    name: str
    terminal: int | None

    def close(self) -> None:
        if self.terminal is not None:
            os.close(self.terminal)


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
        self.held: Held | None = None
        self.spec: Spec | None = None
        """What it is to be made from, as it was created; None once that was done, or in a later daemon."""
        self._target = target_for(record, directory / "log", tasks)
        self._directory = directory
        self._output: Pump | None = None
        self.reclaiming: asyncio.Task[None] | None = None
        """Getting its terminal back from the spawner, after a restart."""

    @property
    def log(self) -> ContainerLog | None:
        """Its log, if it can be read."""
        return self._target if isinstance(self._target, ContainerLog) else None

    @property
    def has_distant_log(self) -> bool:
        return isinstance(self._target, Relay)

    async def call_log(self) -> None:
        """Make sure that whoever keeps its log outside can be reached. Raises OSError."""
        if isinstance(self._target, Relay):
            await self._target.open()

    def open_output(self, clock: Clock, terminal: int | None = None) -> None:
        """Read what it says from now on, from its pipes or our end of its terminal, which is taken over."""
        if isinstance(self._target, Relay):
            self._target.begin()
        if terminal is None:
            self._output = PipePump(self._directory, self._target, clock)
        else:
            self._output = TerminalPump(terminal, self._target, clock)

    @property
    def terminal(self) -> TerminalPump | None:
        return self._output if isinstance(self._output, TerminalPump) else None

    def listen(self) -> Listener:
        """Return one who hears it from now on, until it has ended; the caller's to close."""
        return LogListener(self._target) if isinstance(self._target, ContainerLog) else self._target.taps.listen()

    def open_stdin(self) -> int | None:
        """Return a descriptor to write its input to, which is the caller's to close; None: it has none."""
        if not self.record.config.open_stdin:
            return None
        if self.terminal is not None:
            return self.terminal.writable()
        if self.record.config.tty:
            return None  # its terminal was lost with the spawner
        try:
            return os.open(self._directory / STDIN, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return None  # it has closed its own end

    async def drain_output(self) -> None:
        """It has ended: wait until its last words can be read."""
        if self.reclaiming is not None:
            await self.reclaiming
        if self._output is not None:
            await self._output.drain()

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

    def abandon_output(self) -> None:
        """Read no more from where it would have spoken."""
        if self._output is not None:
            self._output.abandon()
            self._output = None

    def abandon(self) -> None:
        """The daemon stops; the container goes on."""
        self.abandon_output()
        self._target.close()
        self._close_pidfd()
        if self.held is not None:
            self.held.close()
            self.held = None

    def _close_pidfd(self) -> None:
        if self.pidfd is not None:
            os.close(self.pidfd)
            self.pidfd = None
