"""Being attached to a running container: hear what it says from now on, write to its input, resize its terminal.

Output comes from its log, or from the taps of a driver that keeps none here: the container never waits for those who
are attached. Several may be at once; what they write is mixed in the order of its arrival, as on Docker.
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable

from pyswarm.agent_runtime.container.entry import Entry
from pyswarm.agent_runtime.container.events import Events
from pyswarm.agent_runtime.container.exec_streams import write_all
from pyswarm.proto.errors import FailedPrecondition
from pyswarm.proto.v1 import runtime_pb2 as pb


class Attachment:
    """One who is attached. `kill` sends a signal to a container by its id."""

    def __init__(
        self, entry: Entry, config: pb.AttachConfig, kill: Callable[[str, str], Awaitable[object]], events: Events
    ) -> None:
        """Raises FailedPrecondition when the container does not run."""
        _check_runs(entry)
        self._entry = entry
        self._kill = kill
        self._listener = entry.listen()
        self._stdin = entry.open_stdin() if config.stdin else None
        self._resize(config.size)
        self._events = events
        events.tell("attach", entry.record)

    async def hear(self) -> AsyncIterator[pb.ExecOutput]:
        """Yield its pid, then what it says, then how it ended."""
        entry = self._entry
        assert entry.record.process is not None, "it runs"
        yield pb.ExecOutput(pid=entry.record.process.pid)
        while (heard := await self._listener.next()) is not None:
            name, data = heard
            yield pb.ExecOutput(stdout=data) if name == "stdout" else pb.ExecOutput(stderr=data)
        await entry.ended.wait()
        if (outcome := entry.record.outcome) is not None:
            yield pb.ExecOutput(end=pb.ExecEnd(exit_code=outcome.exit_code, error=outcome.error))

    async def feed(self, inputs: AsyncIterator[pb.ExecInput]) -> None:
        """Tell the container what the caller sends. Its input has no end: others may attach after this one."""
        async for message in inputs:
            kind = message.WhichOneof("kind")
            if kind == "data" and self._stdin is not None:
                await write_all(self._stdin, message.data)
            elif kind == "resize":
                self._resize(message.resize)
            elif kind == "signal":
                await self._kill(self._entry.record.id, message.signal)

    def _resize(self, size: pb.TerminalSize) -> None:
        if self._entry.terminal is not None and size.rows and size.columns:
            self._entry.terminal.resize(size.rows, size.columns)

    def close(self) -> None:
        self._listener.close()
        self._events.tell("detach", self._entry.record)
        if self._stdin is not None:
            os.close(self._stdin)
            self._stdin = None


def _check_runs(entry: Entry) -> None:
    if not entry.record.is_alive:
        raise FailedPrecondition("you cannot attach to a stopped container", remedy="Start it first.")
    if entry.record.paused:
        raise FailedPrecondition("you cannot attach to a paused container", remedy="Unpause it first.")
