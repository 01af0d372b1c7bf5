"""`pyswarm stack …`."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

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
    say,
)
from pyswarm.manager.cli.commands.task_list import TASK_FILTERS, echo_tasks
from pyswarm.manager.cli.progress.convergence import Goal
from pyswarm.manager.cli.progress.follow import goal_before
from pyswarm.manager.cli.records import ServiceRow, StackChange, TaskList
from pyswarm.manager.cli.settings import Settings, pass_settings
from pyswarm.manager.cli.view.filters import keep_services
from pyswarm.manager.cli.view.services import SERVICE_COLUMNS, STACK_COLUMNS, service_row, stack_rows
from pyswarm.proto.codec.stack_file import StackData, StackFile, parse_stack
from pyswarm.proto.errors import InvalidStackFile, NotFound, SwarmError
from pyswarm.proto.model.spec import ConfigSpec, SecretSpec

SERVICE_FILTERS = ("id", "name", "label", "mode")
_PROGRESSIVE = {"created": "Creating", "updated": "Updating", "removed": "Removing"}


@click.group(help="Manage stacks: services described in a Compose file.")
def stack() -> None:
    pass


@stack.command(help="Create or update a stack from Compose files, and follow it until it runs.")
@click.option(
    "-c", "--compose-file", "files", multiple=True, required=True, metavar="FILE", help="Compose file, `-` for stdin"
)
@click.option("--prune", is_flag=True, help="Remove services that the files do not have any more")
@click.option("-d", "--detach", is_flag=True, help="Exit at once instead of following until it has converged")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress")
@click.argument("name", metavar="STACK")
@pass_settings
def deploy(settings: Settings, files: Sequence[str], prune: bool, detach: bool, quiet: bool, name: str) -> None:
    parsed = parse_stack([_read(file) for file in files], stack=name, environment=os.environ)
    for warning in parsed.warnings:
        say(f"Warning: {warning}")
    run_and_follow(
        _deploy(settings, name, parsed, files=files, prune=prune, detach=detach, quiet=quiet),
        look=f"pyswarm stack ps {name}",
    )


stack.add_command(deploy, "up")


@stack.command("ls", help="List stacks.")
@format_option
@pass_settings
def list_stacks(settings: Settings, format_: str) -> None:
    async def find() -> list[ServiceRow]:
        async with connect(settings) as client:
            return await client.services()

    echo_list(stack_rows(run(find())), STACK_COLUMNS, format_=format_, quiet=False, id_key="Name")


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
                    _tell(await client.remove_stack(name))
                except SwarmError as error:
                    failures.append(error)
        return failures

    echo_each_failure(run(remove_all()))


stack.add_command(remove, "down")


def _read(file: str) -> tuple[str, str]:
    """Return (name, text). Raises InvalidStackFile for a file that is not text, OSError for one that is not there."""
    name = "<stdin>" if file == "-" else file
    content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    try:
        return name, content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InvalidStackFile(
            f"{name}:{line}: the file is not UTF-8 text", remedy="Save it in UTF-8, and check its name."
        ) from error


def _content(data: StackData, files: Sequence[str]) -> bytes:
    """Return what a secret or config of the stack holds; a relative path counts from the first Compose file.

    Raises InvalidStackFile, which names the place in the stack file.
    """
    if data.content is not None:
        return data.content
    folder = Path.cwd() if files[0] == "-" else Path(files[0]).parent
    path = folder / Path(data.file).expanduser()
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidStackFile(
            f"{data.place}: cannot read {path}: {error.strerror}", remedy="Paths count from the stack file's folder."
        ) from error


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
    secrets = [SecretSpec(data.name, data.labels, _content(data, files)) for data in parsed.secrets]
    configs = [ConfigSpec(data.name, data.labels, _content(data, files)) for data in parsed.configs]
    async with connect(settings) as client:
        before = {row.service.spec.name: row.service.id for row in await client.services(stack=name)}
        known = {} if detach else {n: await goal_before(client, i, n) for n, i in before.items()}
        changes = await client.apply_stack(name, parsed.services, secrets=secrets, configs=configs, prune=prune)
        _tell(changes)
        services = [c for c in changes if c.kind == "service" and c.action != "removed"]
        goals = [known.get(c.name, Goal(c.id, c.name)) for c in services]
        await follow_unless(client, goals, detach=detach, quiet=quiet, stack=name)


async def _services(client: ControlClient, stack: str) -> list[ServiceRow]:
    found = await client.services(stack=stack)
    if not found:
        raise NotFound(f"nothing found in stack: {stack}", remedy="`pyswarm stack ls` lists what there is.")
    return found


def _tell(changes: Sequence[StackChange]) -> None:
    for change in changes:
        if change.action in _PROGRESSIVE:
            click.echo(f"{_PROGRESSIVE[change.action]} {change.kind} {change.name}")
        else:
            click.echo(f"{change.kind.title()} {change.name} is {change.action}")
