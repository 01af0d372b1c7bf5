"""Being attached to a container, for tests: what was heard, and saying something."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from lib.runtime_host import RuntimeHost

from pyswarm.proto.v1 import runtime_pb2 as pb

WAIT_SECONDS = 20.0


class Attached:
    """One who is attached."""

    def __init__(self, host: RuntimeHost, config: pb.AttachConfig) -> None:
        self._inputs: asyncio.Queue[pb.ExecInput] = asyncio.Queue()
        self._inputs.put_nowait(pb.ExecInput(attach=config))
        self._call = host.stub.AttachContainer(self._say())
        self._outputs = aiter(self._call)
        self._said = {"stdout": bytearray(), "stderr": bytearray()}
        self.end: pb.ExecEnd | None = None

    @property
    def said(self) -> dict[str, bytes]:
        """What the container said, by stream."""
        return {stream: bytes(data) for stream, data in self._said.items()}

    async def _say(self) -> AsyncIterator[pb.ExecInput]:
        while True:
            yield await self._inputs.get()

    def say(self, data: bytes) -> None:
        self._inputs.put_nowait(pb.ExecInput(data=data))

    def send(self, message: pb.ExecInput) -> None:
        self._inputs.put_nowait(message)

    async def begin(self) -> int:
        """Return the container's pid once attached."""
        output = await self._next()
        assert output is not None
        return output.pid

    async def until(self, text: bytes, stream: str = "stdout") -> bytes:
        """Return all that was said on a stream, once `text` is in it."""
        while text not in self._said[stream]:
            assert await self._next() is not None, self.said
        return self.said[stream]

    async def to_the_end(self) -> pb.ExecEnd:
        while await self._next() is not None:
            pass
        assert self.end is not None
        return self.end

    async def _next(self) -> pb.ExecOutput | None:
        async with asyncio.timeout(WAIT_SECONDS):
            output: pb.ExecOutput | None = await anext(self._outputs, None)
        if output is not None:
            self._said["stdout"] += output.stdout
            self._said["stderr"] += output.stderr
            if output.HasField("end"):
                self.end = output.end
        return output

    def leave(self) -> None:
        self._call.cancel()


@asynccontextmanager
async def attached(
    host: RuntimeHost, name: str, *, stdin: bool = True, rows: int = 0, columns: int = 0
) -> AsyncIterator[Attached]:
    """Be attached to a container."""
    size = pb.TerminalSize(rows=rows, columns=columns)
    one = Attached(host, pb.AttachConfig(container=name, stdin=stdin, size=size))
    try:
        await one.begin()
        yield one
    finally:
        one.leave()
