"""`pyswarm service …`: the group and the commands that look; those that write are in files of their own."""

import json
from collections.abc import Sequence

import click

from pyswarm.manager.cli.client.control import connect
from pyswarm.manager.cli.client.run import run
from pyswarm.manager.cli.commands.service_create import create
from pyswarm.manager.cli.commands.service_logs import logs
from pyswarm.manager.cli.commands.service_rebalance import rebalance
from pyswarm.manager.cli.commands.service_update import rollback, scale, update
from pyswarm.manager.cli.commands.shared import (
    echo_each_failure,
    echo_list,
    filter_option,
    format_option,
    no_trunc_option,
    parse_filters,
    quiet_option,
)
from pyswarm.manager.cli.commands.task_list import TASK_FILTERS, echo_tasks
from pyswarm.manager.cli.records import ServiceRow, TaskList
from pyswarm.manager.cli.settings import Settings, pass_settings
from pyswarm.manager.cli.view.docker_json import service_json
from pyswarm.manager.cli.view.filters import keep_services
from pyswarm.manager.cli.view.services import SERVICE_COLUMNS, service_pretty, service_row
from pyswarm.manager.cli.view.template import render, unescape
from pyswarm.proto.clock import SYSTEM_CLOCK
from pyswarm.proto.errors import SwarmError
from pyswarm.proto.model.objects import Service

SERVICE_FILTERS = ("id", "name", "label", "mode")


@click.group(help="Manage services.")
def service() -> None:
    pass


for command in (create, update, scale, rollback, rebalance, logs):
    service.add_command(command)


@service.command("ls", help="List services.")
@filter_option
@format_option
@quiet_option
@no_trunc_option
@pass_settings
def list_services(settings: Settings, filters: Sequence[str], format_: str, quiet: bool, no_trunc: bool) -> None:
    wanted = parse_filters(filters, SERVICE_FILTERS)

    async def find() -> list[ServiceRow]:
        async with connect(settings) as client:
            return keep_services(await client.services(), wanted)

    rows = [service_row(row, no_trunc=no_trunc) for row in run(find())]
    echo_list(rows, SERVICE_COLUMNS, format_=format_, quiet=quiet)


@service.command(help="List the tasks of services.")
@filter_option
@format_option
@quiet_option
@no_trunc_option
@click.option("--no-resolve", is_flag=True, help="Do not map ids to names")
@click.argument("names", metavar="SERVICE...", nargs=-1, required=True)
@pass_settings
def ps(
    settings: Settings,
    filters: Sequence[str],
    format_: str,
    quiet: bool,
    no_trunc: bool,
    no_resolve: bool,
    names: Sequence[str],
) -> None:
    wanted = parse_filters(filters, TASK_FILTERS)

    async def find() -> TaskList:
        async with connect(settings) as client:
            ids = [(await client.service(name)).id for name in names]
            return await client.tasks(service_ids=ids)

    echo_tasks(run(find()), wanted, format_=format_, quiet=quiet, no_trunc=no_trunc, no_resolve=no_resolve)


@service.command(help="Show services in full.")
@click.option("--pretty", is_flag=True, help="Print for people")
@format_option
@click.argument("names", metavar="SERVICE...", nargs=-1, required=True)
@pass_settings
def inspect(settings: Settings, pretty: bool, format_: str, names: Sequence[str]) -> None:
    async def find() -> tuple[list[Service], list[SwarmError]]:
        found: list[Service] = []
        failures: list[SwarmError] = []
        async with connect(settings) as client:
            for name in names:
                try:
                    found.append(await client.service(name))
                except SwarmError as error:
                    failures.append(error)
        return found, failures

    found, failures = run(find())
    if pretty:
        click.echo("\n\n".join(service_pretty(s, now=SYSTEM_CLOCK.now()) for s in found))
    elif format_ and format_ != "json":
        for s in found:
            click.echo(render(unescape(format_), service_json(s)))
    else:
        click.echo(json.dumps([service_json(s) for s in found], indent=4, ensure_ascii=False))
    echo_each_failure(failures)


@service.command("rm", help="Remove services.")
@click.argument("names", metavar="SERVICE...", nargs=-1, required=True)
@pass_settings
def remove(settings: Settings, names: Sequence[str]) -> None:
    async def remove_all() -> list[SwarmError]:
        failures: list[SwarmError] = []
        async with connect(settings) as client:
            for name in names:
                try:
                    await client.remove_service((await client.service(name)).id)
                    click.echo(name)
                except SwarmError as error:
                    failures.append(error)
        return failures

    echo_each_failure(run(remove_all()))
