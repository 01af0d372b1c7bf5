"""`pyswarm container …`: the containers on this node, whoever made them."""

import json
import sys
from collections.abc import Awaitable, Callable, Sequence

import click

from pyswarm.manager.cli.client.containers import ContainersClient, connect_containers
from pyswarm.manager.cli.client.run import run
from pyswarm.manager.cli.commands.container_attach import attach
from pyswarm.manager.cli.commands.container_events import events
from pyswarm.manager.cli.commands.container_exec import execute
from pyswarm.manager.cli.commands.container_usage import stats, top
from pyswarm.manager.cli.commands.shared import (
    echo_each_failure,
    echo_list,
    filter_option,
    format_option,
    no_trunc_option,
    parse_filters,
    quiet_option,
)
from pyswarm.manager.cli.flags.since import parse_since
from pyswarm.manager.cli.flags.types import BYTES, CPUS
from pyswarm.manager.cli.settings import Settings, pass_settings
from pyswarm.manager.cli.view.containers import CONTAINER_COLUMNS, StoredContainer, container_rows, matches
from pyswarm.manager.cli.view.facts import rfc3339
from pyswarm.proto.clock import SYSTEM_CLOCK
from pyswarm.proto.errors import InvalidArgument, SwarmError

_FILTERS = ("id", "name", "label", "status", "ancestor", "health")


@click.group(help="Manage the containers on this node.")
def container() -> None:
    pass


container.add_command(attach)
container.add_command(events)
container.add_command(execute)
container.add_command(stats)
container.add_command(top)


@container.command("ls", help="List containers: those that run, or all.")
@click.option("-a", "--all", "show_all", is_flag=True, help="Those that do not run, too")
@filter_option
@format_option
@quiet_option
@no_trunc_option
@pass_settings
def list_containers(
    settings: Settings, show_all: bool, filters: Sequence[str], format_: str, quiet: bool, no_trunc: bool
) -> None:
    wanted = parse_filters(filters, _FILTERS)

    async def find() -> list[StoredContainer]:
        async with connect_containers(settings) as client:
            return await client.containers()

    found = [
        one
        for one in run(find())
        if (show_all or "status" in wanted or one.state in ("running", "paused")) and matches(one, wanted)
    ]
    rows = container_rows(found, now=SYSTEM_CLOCK.now(), no_trunc=no_trunc)
    echo_list(rows, CONTAINER_COLUMNS, format_=format_, quiet=quiet)


container.add_command(list_containers, "ps")


@container.command(help="Print everything about containers, as JSON.")
@click.argument("names", metavar="CONTAINER...", nargs=-1, required=True)
@pass_settings
def inspect(settings: Settings, names: Sequence[str]) -> None:
    found = []

    async def find(client: ContainersClient, name: str) -> None:
        found.append(await client.facts(name))

    failures = run(_each(settings, names, find))
    click.echo(json.dumps(found, indent=4))
    echo_each_failure(failures)


@container.command(help="Print what a container wrote.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what it writes from now on")
@click.option("-n", "--tail", default="all", metavar="N|all", help="Lines from the end (all)")
@click.option(
    "--since", default="", metavar="TIME", help="Lines since a moment (2026-01-02T13:23:37Z) or a length (42m)"
)
@click.option("--until", default="", metavar="TIME", help="Lines before a moment or a length of time ago; then it ends")
@click.option("-t", "--timestamps", is_flag=True, help="Print when each line was written")
@click.argument("name", metavar="CONTAINER")
@pass_settings
def logs(settings: Settings, follow: bool, tail: str, since: str, until: str, timestamps: bool, name: str) -> None:
    if tail != "all" and not (tail.isascii() and tail.isdigit() and len(tail) <= 9):
        raise InvalidArgument(f'invalid number of lines "{tail}"', remedy="Write a number, or all.")
    lines, now = -1 if tail == "all" else int(tail), SYSTEM_CLOCK.now()
    begins, ends = parse_since(since, now=now), parse_since(until, now=now)

    async def print_all() -> None:
        async with connect_containers(settings) as client:
            async for record in client.logs(name, follow=follow, tail=lines, since=begins, until=ends):
                out = sys.stderr.buffer if record.stream == "stderr" else sys.stdout.buffer
                out.write(f"{rfc3339(record.timestamp)} ".encode() * timestamps + record.data + b"\n")
                out.flush()

    run(print_all())


@container.command(help="Stop containers: their stop signal, then, after the grace period, SIGKILL.")
@click.option("-t", "--time", "seconds", type=click.FloatRange(min=0), metavar="SECONDS", help="The grace period")
@click.argument("names", metavar="CONTAINER...", nargs=-1, required=True)
@pass_settings
def stop(settings: Settings, seconds: float | None, names: Sequence[str]) -> None:
    _echo_each(settings, names, lambda client, name: client.stop(name, seconds))


@container.command(help="Send a signal to containers.")
@click.option("-s", "--signal", default="KILL", metavar="SIGNAL", help="Its name or number (KILL)")
@click.argument("names", metavar="CONTAINER...", nargs=-1, required=True)
@pass_settings
def kill(settings: Settings, signal: str, names: Sequence[str]) -> None:
    _echo_each(settings, names, lambda client, name: client.kill(name, signal))


@container.command(help="Let every process of containers stand still.")
@click.argument("names", metavar="CONTAINER...", nargs=-1, required=True)
@pass_settings
def pause(settings: Settings, names: Sequence[str]) -> None:
    _echo_each(settings, names, lambda client, name: client.pause(name))


@container.command(help="Let paused containers go on.")
@click.argument("names", metavar="CONTAINER...", nargs=-1, required=True)
@pass_settings
def unpause(settings: Settings, names: Sequence[str]) -> None:
    _echo_each(settings, names, lambda client, name: client.unpause(name))


@container.command(help="Change the limits of containers, also while they run; 0 takes a limit away.")
@click.option("--cpus", type=CPUS, help="Number of processors")
@click.option("-m", "--memory", type=BYTES, help="Memory and swap together")
@click.option("--pids-limit", type=click.IntRange(min=-1), metavar="N", help="Number of processes; -1 as 0")
@click.argument("names", metavar="CONTAINER...", nargs=-1, required=True)
@pass_settings
def update(
    settings: Settings, cpus: int | None, memory: int | None, pids_limit: int | None, names: Sequence[str]
) -> None:
    if cpus is None and memory is None and pids_limit is None:
        raise InvalidArgument("there is nothing to change", remedy="Give --cpus, --memory or --pids-limit.")
    pids = None if pids_limit is None else max(0, pids_limit)
    _echo_each(
        settings, names, lambda client, name: client.update(name, nano_cpus=cpus, memory_bytes=memory, pids=pids)
    )


@container.command("rm", help="Remove containers.")
@click.option("-f", "--force", is_flag=True, help="Kill those that run")
@click.argument("names", metavar="CONTAINER...", nargs=-1, required=True)
@pass_settings
def remove(settings: Settings, force: bool, names: Sequence[str]) -> None:
    _echo_each(settings, names, lambda client, name: client.remove(name, force=force))


@container.command(help="Wait until containers have stopped, and print their exit codes.")
@click.argument("names", metavar="CONTAINER...", nargs=-1, required=True)
@pass_settings
def wait(settings: Settings, names: Sequence[str]) -> None:
    async def wait_for(client: ContainersClient, name: str) -> None:
        click.echo(str(await client.wait(name)))

    echo_each_failure(run(_each(settings, names, wait_for)))


def _echo_each(
    settings: Settings, names: Sequence[str], act: Callable[[ContainersClient, str], Awaitable[None]]
) -> None:
    async def act_and_tell(client: ContainersClient, name: str) -> None:
        await act(client, name)
        click.echo(name)

    echo_each_failure(run(_each(settings, names, act_and_tell)))


async def _each(
    settings: Settings, names: Sequence[str], act: Callable[[ContainersClient, str], Awaitable[None]]
) -> list[SwarmError]:
    """Do it with each in turn; return what failed."""
    failures: list[SwarmError] = []
    async with connect_containers(settings) as client:
        for name in names:
            try:
                await act(client, name)
            except SwarmError as error:
                failures.append(error)
    return failures
