"""`pyswarm container attach`: our standard streams for those of a running container."""

import signal
import sys
from contextlib import nullcontext

import click

from pyswarm.manager.cli.client.containers import connect_containers
from pyswarm.manager.cli.client.run import run
from pyswarm.manager.cli.client.terminal import DEFAULT_KEYS, DetachKeys, parse_keys, raw_terminal, terminal_size
from pyswarm.manager.cli.commands.conversation import converse
from pyswarm.manager.cli.settings import Settings, pass_settings
from pyswarm.proto.errors import InvalidArgument
from pyswarm.proto.v1 import runtime_pb2 as pb

PROXIED = (
    signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2,
    signal.SIGCONT, signal.SIGTSTP,
)  # fmt: skip
"""Signals that are the container's rather than ours while we are attached."""


@click.command(
    help="See what a running container says from now on, and write to its standard input if it is open. The exit "
    "status is the container's; 0 after the detach keys.",
)
@click.option("--detach-keys", default=DEFAULT_KEYS, metavar="KEYS", help=f"Keys that let go of it ({DEFAULT_KEYS})")
@click.option("--no-stdin", is_flag=True, help="Do not hand standard input on")
@click.option(
    "--sig-proxy", type=bool, is_flag=False, flag_value=True, default=True, help="Hand signals on to it (true)"
)
@click.argument("name", metavar="CONTAINER")
@pass_settings
def attach(settings: Settings, detach_keys: str, no_stdin: bool, sig_proxy: bool, name: str) -> int:
    keys = parse_keys(detach_keys)
    container_id, is_terminal = run(_look_up(settings, name))
    reads_input = not no_stdin
    if is_terminal and reads_input and not sys.stdin.isatty():
        raise InvalidArgument(
            "cannot attach stdin to a TTY-enabled container because stdin is not a terminal", remedy="Use --no-stdin."
        )
    rows, columns = terminal_size() if is_terminal and sys.stdout.isatty() else (0, 0)
    first = pb.AttachConfig(container=container_id, stdin=reads_input, size=pb.TerminalSize(rows=rows, columns=columns))

    async def take_part() -> int:
        async with connect_containers(settings) as client:
            return await converse(
                client.attach,
                pb.ExecInput(attach=first),
                reads_input=reads_input,
                tells_size=bool(rows),
                keys=DetachKeys(keys) if is_terminal else None,
                signals=PROXIED if sig_proxy and not is_terminal else (),
            )

    with raw_terminal() if is_terminal and reads_input else nullcontext():
        return run(take_part())


async def _look_up(settings: Settings, name: str) -> tuple[str, bool]:
    """Return a container's id and whether it has a terminal."""
    async with connect_containers(settings) as client:
        container_id = await client.find(name)
        return container_id, await client.has_terminal(container_id)
