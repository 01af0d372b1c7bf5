"""`pyswarm stack …`."""

from collections.abc import Sequence

import click

from pyswarm.manager.cli.client.control import ControlClient, connect
from pyswarm.manager.cli.client.run import run
from pyswarm.manager.cli.commands.following import follow_unless, run_and_follow
from pyswarm.manager.cli.commands.shared import (
    echo_each_failure,
    echo_list,
    filter_option,
    format_option,
    no_trunc_option,
    parse_filters,
    quiet_option,
)
from pyswarm.manager.cli.commands.stack_files import (
    compose_file_option,
    payloads_of,
    prune_option,
    read_stack,
    tell_changes,
)
from pyswarm.manager.cli.commands.stack_plan import plan, rollback
from pyswarm.manager.cli.commands.task_list import TASK_FILTERS, echo_tasks
from pyswarm.manager.cli.progress.convergence import Goal
from pyswarm.manager.cli.progress.follow import goal_before
from pyswarm.manager.cli.records import ServiceRow, TaskList
from pyswarm.manager.cli.settings import Settings, pass_settings
from pyswarm.manager.cli.view.filters import keep_services
from pyswarm.manager.cli.view.services import SERVICE_COLUMNS, STACK_COLUMNS, service_row, stack_rows
from pyswarm.proto.codec.stack_file import StackFile
from pyswarm.proto.errors import NotFound, SwarmError

SERVICE_FILTERS = ("id", "name", "label", "mode")


@click.group(help="Manage stacks: services described in a Compose file.")
def stack() -> None:
    pass


@stack.command(help="Create or update a stack from Compose files, and follow it until it runs.")
@compose_file_option
@prune_option
@click.option("-d", "--detach", is_flag=True, help="Exit at once instead of following until it has converged")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress")
@click.argument("name", metavar="STACK")
@pass_settings
def deploy(settings: Settings, files: Sequence[str], prune: bool, detach: bool, quiet: bool, name: str) -> None:
    parsed = read_stack(files, name)
    run_and_follow(
        _deploy(settings, name, parsed, files=files, prune=prune, detach=detach, quiet=quiet),
        look=f"pyswarm stack ps {name}",
    )


stack.add_command(deploy, "up")


@stack.command("ls", help="List stacks.")
@format_option
@quiet_option
@pass_settings
def list_stacks(settings: Settings, format_: str, quiet: bool) -> None:
    async def find() -> list[ServiceRow]:
        async with connect(settings) as client:
            return await client.services()

    echo_list(stack_rows(run(find())), STACK_COLUMNS, format_=format_, quiet=quiet, id_key="Name")


@stack.command(help="List the tasks of a stack.")
@filter_option
@format_option
@quiet_option
@no_trunc_option
@click.option("--no-resolve", is_flag=True, help="Do not map ids to names")
@click.argument("name", metavar="STACK")
@pass_settings
def ps(
    settings: Settings,
    filters: Sequence[str],
    format_: str,
    quiet: bool,
    no_trunc: bool,
    no_resolve: bool,
    name: str,
) -> None:
    wanted = parse_filters(filters, TASK_FILTERS)

    async def find() -> TaskList:
        async with connect(settings) as client:
            await _services(client, name)
            return await client.tasks(stack=name)

    echo_tasks(run(find()), wanted, format_=format_, quiet=quiet, no_trunc=no_trunc, no_resolve=no_resolve)


@stack.command("services", help="List the services of a stack.")
@filter_option
@format_option
@quiet_option
@click.argument("name", metavar="STACK")
@pass_settings
def services_of_stack(settings: Settings, filters: Sequence[str], format_: str, quiet: bool, name: str) -> None:
    wanted = parse_filters(filters, SERVICE_FILTERS)

    async def find() -> list[ServiceRow]:
        async with connect(settings) as client:
            return keep_services(await _services(client, name), wanted)

    echo_list([service_row(row) for row in run(find())], SERVICE_COLUMNS, format_=format_, quiet=quiet)


@stack.command("rm", help="Remove stacks.")
@click.argument("names", metavar="STACK...", nargs=-1, required=True)
@pass_settings
def remove(settings: Settings, names: Sequence[str]) -> None:
    async def remove_all() -> list[SwarmError]:
        failures: list[SwarmError] = []
        async with connect(settings) as client:
            for name in names:
                try:
                    await _services(client, name)
                    tell_changes(await client.remove_stack(name))
                except SwarmError as error:
                    failures.append(error)
        return failures

    echo_each_failure(run(remove_all()))


stack.add_command(remove, "down")


async def _deploy(
    settings: Settings,
    name: str,
    parsed: StackFile,
    *,
    files: Sequence[str],
    prune: bool,
    detach: bool,
    quiet: bool,
) -> None:
    secrets, configs = payloads_of(parsed, files)
    async with connect(settings) as client:
        before = {row.service.spec.name: row.service.id for row in await client.services(stack=name)}
        known = {} if detach else {n: await goal_before(client, i, n) for n, i in before.items()}
        changes = await client.apply_stack(name, parsed.services, secrets=secrets, configs=configs, prune=prune)
        tell_changes(changes)
        services = [c for c in changes if c.kind == "service" and c.action != "removed"]
        goals = [known.get(c.name, Goal(c.id, c.name)) for c in services]
        await follow_unless(client, goals, detach=detach, quiet=quiet, stack=name)


async def _services(client: ControlClient, stack: str) -> list[ServiceRow]:
    found = await client.services(stack=stack)
    if not found:
        raise NotFound(f"nothing found in stack: {stack}", remedy="`pyswarm stack ls` lists what there is.")
    return found


stack.add_command(plan)
stack.add_command(rollback)
