"""`pyswarm container stats` and `top`: what containers on this node use, and which processes they have."""

import asyncio
import pwd
import sys
from collections.abc import Sequence

import click

from pyswarm.manager.cli.client.containers import ContainersClient, connect_containers
from pyswarm.manager.cli.client.run import run
from pyswarm.manager.cli.commands.shared import format_option, no_trunc_option
from pyswarm.manager.cli.settings import Settings, pass_settings
from pyswarm.manager.cli.view.container_stats import (
    PRESSURE_COLUMNS,
    STATS_COLUMNS,
    TOP_COLUMNS,
    stats_rows,
    top_rows,
)
from pyswarm.manager.cli.view.table import render_list
from pyswarm.proto.clock import SYSTEM_CLOCK
from pyswarm.proto.errors import InvalidArgument
from pyswarm.proto.v1 import runtime_pb2 as pb

_INTERVAL_SECONDS = 1.0
_CLEAR = "\x1b[H\x1b[2J"


@click.command(help="Show what containers use: those that run, or those named. Goes on until Ctrl-C.")
@click.option("-a", "--all", "show_all", is_flag=True, help="Those that do not run, too")
@click.option("--no-stream", is_flag=True, help="Show it once, over one second")
@click.option("--pressure", is_flag=True, help="How much of the last 10 seconds some / all processes waited (PSI), too")
@format_option
@no_trunc_option
@click.argument("names", metavar="[CONTAINER...]", nargs=-1)
@pass_settings
def stats(
    settings: Settings,
    show_all: bool,
    no_stream: bool,
    pressure: bool,
    format_: str,
    no_trunc: bool,
    names: Sequence[str],
) -> None:
    columns = (*STATS_COLUMNS, *(PRESSURE_COLUMNS if pressure else ()))

    def show(before: Sequence[pb.ContainerStats], after: Sequence[pb.ContainerStats]) -> None:
        text = render_list(stats_rows(before, after, no_trunc=no_trunc), columns, format_=format_)
        click.echo(f"{_CLEAR if not no_stream and sys.stdout.isatty() else ''}{text}")

    async def watch() -> None:
        async with connect_containers(settings) as client:
            before = await _read(client, names, show_all=show_all)
            while True:
                # A rate is what happened between two moments: there is nothing to wait for but the second one.
                await asyncio.sleep(_INTERVAL_SECONDS)
                after = await _read(client, names, show_all=show_all)
                show(before, after)
                before = after
                if no_stream:
                    return

    run(watch())


async def _read(client: ContainersClient, names: Sequence[str], *, show_all: bool) -> list[pb.ContainerStats]:
    if names:
        return await client.stats([await client.find(name) for name in names])
    if show_all:
        ids = [container.id for container in await client.containers()]
        return await client.stats(ids) if ids else []
    return await client.stats([])


@click.command(help="Show the processes of a running container.", context_settings={"ignore_unknown_options": True})
@click.argument("name", metavar="CONTAINER")
@click.argument("options", metavar="", nargs=-1)
@pass_settings
def top(settings: Settings, name: str, options: Sequence[str]) -> None:
    if options not in ((), ("-ef",)):
        raise InvalidArgument(
            f"ps options are not supported: {' '.join(options)}",
            remedy="Leave them out: the columns are those of `ps -ef`.",
        )

    async def find() -> list[pb.ProcessRow]:
        async with connect_containers(settings) as client:
            return await client.top(name)

    users = {entry.pw_uid: entry.pw_name for entry in pwd.getpwall()}
    click.echo(render_list(top_rows(run(find()), users, now=SYSTEM_CLOCK.now()), TOP_COLUMNS))
