"""A conversation with a process in a container: input, output, sizes of the terminal, signals, detach keys."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Sequence

from pyswarm.manager.cli.client.terminal import DetachKeys, caught_signals, resizes, standard_input
from pyswarm.manager.cli.commands.shared import say
from pyswarm.proto.errors import SwarmError, Unavailable
from pyswarm.proto.v1 import runtime_pb2 as pb

_MOST_PIECES = 16

Call = Callable[[AsyncIterator[pb.ExecInput]], AsyncIterator[pb.ExecOutput]]


class _Detached(Exception):
    """The detach keys were typed."""


async def converse(
    call: Call,
    first: pb.ExecInput,
    *,
    reads_input: bool,
    tells_size: bool,
    keys: DetachKeys | None,
    signals: Sequence[int] = (),
) -> int:
    """Say `first`, then what is typed; print what is answered. Return the exit code, 0 when detached.

    `signals` that we get are handed on.
    """
    inputs: asyncio.Queue[pb.ExecInput] = asyncio.Queue(_MOST_PIECES)
    await inputs.put(first)
    # Raised after the group has ended: it would wrap what it lets through.
    code, failure = 0, None
    try:
        async with asyncio.TaskGroup() as tasks:
            senders = [tasks.create_task(_send_input(inputs, keys))] if reads_input else []
            senders += [tasks.create_task(_send_sizes(inputs))] if tells_size else []
            senders += [tasks.create_task(_send_signals(inputs, signals))] if signals else []
            try:
                code = await _hear(call, inputs)
            except SwarmError as error:
                failure = error
            for sender in senders:
                sender.cancel()
    except* _Detached:
        code = 0
    if failure is not None:
        raise failure
    return code


async def _hear(call: Call, inputs: asyncio.Queue[pb.ExecInput]) -> int:
    """Print what the program says and return its exit code."""

    async def say_all() -> AsyncIterator[pb.ExecInput]:
        while True:
            yield await inputs.get()

    is_running = False
    async for output in call(say_all()):
        is_running = True
        kind = output.WhichOneof("kind")
        if kind == "end":
            if output.end.error:
                say(f"Error: {output.end.error}")
            return output.end.exit_code
        if kind in ("stdout", "stderr"):
            out = sys.stdout.buffer if kind == "stdout" else sys.stderr.buffer
            out.write(output.stdout or output.stderr)
            out.flush()
    if not is_running:
        raise Unavailable("the runtime ended the call without an answer", remedy="Try again.")
    return 0


async def _send_input(inputs: asyncio.Queue[pb.ExecInput], keys: DetachKeys | None) -> None:
    async for typed in standard_input():
        data, is_detaching = keys.pass_on(typed) if keys else (typed, False)
        if data:
            await inputs.put(pb.ExecInput(data=data))
        if is_detaching:
            raise _Detached
    await inputs.put(pb.ExecInput(close=True))


async def _send_sizes(inputs: asyncio.Queue[pb.ExecInput]) -> None:
    async for rows, columns in resizes():
        await inputs.put(pb.ExecInput(resize=pb.TerminalSize(rows=rows, columns=columns)))


async def _send_signals(inputs: asyncio.Queue[pb.ExecInput], signals: Sequence[int]) -> None:
    async for number in caught_signals(signals):
        await inputs.put(pb.ExecInput(signal=str(number)))
