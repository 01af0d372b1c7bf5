"""A conversation with an exec'd process: what it says, what it is told, how it ended.

It lives as long as the process, not as long as its caller: when nobody listens any more, it reads on and drops what
it reads, so that the process is neither stopped nor killed by a full or broken pipe.
"""

import asyncio
import signal
from collections.abc import AsyncIterator

from pyswarm.agent_runtime.container.exec_streams import Streams
from pyswarm.agent_runtime.container.execs import Running
from pyswarm.agent_runtime.container.record import LOST_EXIT_CODE, parse_signal
from pyswarm.agent_runtime.kernel.process import exit_code
from pyswarm.proto.v1 import runtime_pb2 as pb

_MOST_PIECES = 16
"""How many pieces of output wait for the caller; then the process waits."""


class ExecSession:
    """Owns `streams` from now on. `tasks` must outlive it. The process is killed after `timeout_seconds`, if given."""

    def __init__(
        self, running: Running, streams: Streams, tasks: asyncio.TaskGroup, *, timeout_seconds: float | None = None
    ) -> None:
        self._running = running
        self._timeout_seconds = timeout_seconds
        self._timed_out = False
        self._streams = streams
        self._output: asyncio.Queue[pb.ExecOutput] = asyncio.Queue(_MOST_PIECES)
        self._heard = True
        self.task = tasks.create_task(self._converse())

    async def _converse(self) -> None:
        try:
            async with asyncio.TaskGroup() as pumps:
                for name in self._streams.outputs:
                    pumps.create_task(self._pump(name))
                status = await self._end()
                self._streams.process_ended()
            code = LOST_EXIT_CODE if status is None else exit_code(status)
            error = "its exit status was lost: the spawner died" if status is None else ""
            end = pb.ExecEnd(exit_code=code, error=error, timed_out=self._timed_out)
            await self._say(pb.ExecOutput(end=end))
        finally:
            self._streams.close()

    async def _end(self) -> int | None:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await asyncio.shield(self._running.ended)
        except TimeoutError:
            self._timed_out = True
            self._running.signal(signal.SIGKILL)
        return await self._running.ended

    async def _pump(self, name: str) -> None:
        while data := await self._streams.read(name):
            await self._say(pb.ExecOutput(stdout=data) if name == "stdout" else pb.ExecOutput(stderr=data))

    async def _say(self, output: pb.ExecOutput) -> None:
        if self._heard:
            await self._output.put(output)

    async def hear(self) -> AsyncIterator[pb.ExecOutput]:
        """Yield everything the process says, its end last."""
        while True:
            output = await self._output.get()
            yield output
            if output.WhichOneof("kind") == "end":
                return

    def abandon(self) -> None:
        """Nobody listens any more: let the process go on by itself."""
        self._heard = False
        while not self._output.empty():
            self._output.get_nowait()  # who waits for room may go on

    async def feed(self, inputs: AsyncIterator[pb.ExecInput]) -> None:
        """Tell the process what the caller sends, until the caller has said everything."""
        async for message in inputs:
            kind = message.WhichOneof("kind")
            if kind == "data":
                await self._streams.write(message.data)
            elif kind == "close" and not self._streams.is_tty:
                self._streams.close_stdin()
            elif kind == "resize":
                self._streams.resize(message.resize.rows, message.resize.columns)
            elif kind == "signal":
                self._running.signal(parse_signal(message.signal))
