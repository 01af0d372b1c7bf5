"""`pyswarm container exec`: another program in a running container."""

import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext

import click

from pyswarm.manager.cli.client.containers import connect_containers
from pyswarm.manager.cli.client.run import run
from pyswarm.manager.cli.client.terminal import (
    DEFAULT_KEYS,
    DetachKeys,
    parse_keys,
    raw_terminal,
    terminal_size,
)
from pyswarm.manager.cli.commands.conversation import converse
from pyswarm.manager.cli.settings import Settings, pass_settings
from pyswarm.proto.errors import InvalidArgument
from pyswarm.proto.v1 import runtime_pb2 as pb


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
        return await converse(
            client.execute,
            pb.ExecInput(start=config),
            reads_input=config.stdin,
            tells_size=config.tty and config.stdin,
            keys=keys,
        )
