"""`pyswarm container exec`: another program in a running container."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import nullcontext

import click

from pyswarm.manager.cli.client.containers import ContainersClient, connect_containers
from pyswarm.manager.cli.client.run import run
from pyswarm.manager.cli.client.terminal import (
    DEFAULT_KEYS,
    DetachKeys,
    parse_keys,
    raw_terminal,
    resizes,
    standard_input,
    terminal_size,
)
from pyswarm.manager.cli.commands.shared import say
from pyswarm.manager.cli.settings import Settings, pass_settings
from pyswarm.proto.errors import InvalidArgument, SwarmError, Unavailable
from pyswarm.proto.v1 import runtime_pb2 as pb

_MOST_PIECES = 16


class _Detached(Exception):
    """The detach keys were typed."""


@click.command(
    "exec",
    help="Execute a program in a running container. The exit status is the program's; 126 or 127 if there is none.",
    context_settings={"allow_interspersed_args": False},
)
@click.option("-d", "--detach", is_flag=True, help="Leave it running in the background")
@click.option("-i", "--interactive", is_flag=True, help="Hand standard input on")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal")
@click.option("-e", "--env", "env", multiple=True, metavar="NAME=VALUE", help="Set a variable, or hand ours on")
@click.option("-u", "--user", default="", metavar="USER[:GROUP]", help="Run it as this user")
@click.option("-w", "--workdir", default="", metavar="DIR", help="Run it in this directory")
@click.option("--detach-keys", default=DEFAULT_KEYS, metavar="KEYS", help=f"Keys that let go of it ({DEFAULT_KEYS})")
@click.argument("name", metavar="CONTAINER")
@click.argument("command", metavar="COMMAND [ARG...]", nargs=-1, required=True, type=click.UNPROCESSED)
@pass_settings
def execute(
    settings: Settings,
    detach: bool,
    interactive: bool,
    tty: bool,
    env: Sequence[str],
    user: str,
    workdir: str,
    detach_keys: str,
    name: str,
    command: Sequence[str],
) -> int:
    keys = parse_keys(detach_keys)
    if tty and interactive and not detach and not sys.stdin.isatty():
        raise InvalidArgument("the input device is not a TTY", remedy="Leave -t out.")
    rows, columns = terminal_size() if tty else (0, 0)
    config = pb.ExecConfig(
        args=command,
        env=[
            text if "=" in text else f"{text}={os.environ[text]}" for text in env if "=" in text or text in os.environ
        ],
        dir=workdir,
        user=user,
        tty=tty,
        stdin=interactive and not detach,
        detach=detach,
        size=pb.TerminalSize(rows=rows, columns=columns),
    )
    with raw_terminal() if tty and config.stdin else nullcontext():
        return run(_execute(settings, name, config, DetachKeys(keys) if tty else None))


async def _execute(settings: Settings, name: str, config: pb.ExecConfig, keys: DetachKeys | None) -> int:
    async with connect_containers(settings) as client:
        config.container = await client.find(name)
        inputs: asyncio.Queue[pb.ExecInput] = asyncio.Queue(_MOST_PIECES)
        await inputs.put(pb.ExecInput(start=config))
        # Raised after the group has ended: it would wrap what it lets through.
        code, failure = 0, None
        try:
            async with asyncio.TaskGroup() as tasks:
                senders = [tasks.create_task(_send_input(inputs, keys))] if config.stdin else []
                senders += [tasks.create_task(_send_sizes(inputs))] if config.tty and config.stdin else []
                try:
                    code = await _hear(client, inputs)
                except SwarmError as error:
                    failure = error
                for sender in senders:
                    sender.cancel()
        except* _Detached:
            code = 0
        if failure is not None:
            raise failure
        return code


async def _hear(client: ContainersClient, inputs: asyncio.Queue[pb.ExecInput]) -> int:
    """Print what the program says and return its exit code."""

    async def say_all() -> AsyncIterator[pb.ExecInput]:
        while True:
            yield await inputs.get()

    is_running = False
    async for output in client.execute(say_all()):
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
