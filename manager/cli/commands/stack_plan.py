"""`pyswarm stack plan` and `pyswarm stack rollback`."""

import json
from collections.abc import Sequence

import click
from google.protobuf.json_format import MessageToDict

from pyswarm.manager.cli.client.control import connect
from pyswarm.manager.cli.client.run import run
from pyswarm.manager.cli.commands.following import follow_unless, run_and_follow
from pyswarm.manager.cli.commands.stack_files import (
    compose_file_option,
    payloads_of,
    prune_option,
    read_stack,
    tell_changes,
)
from pyswarm.manager.cli.progress.convergence import Goal
from pyswarm.manager.cli.progress.follow import goal_before
from pyswarm.manager.cli.settings import Settings, pass_settings
from pyswarm.manager.cli.view.stack_plan import plan_text
from pyswarm.proto.v1 import control_pb2 as pb


@click.command(help="Show what a deploy would create, change and stop, and where tasks would go, without doing it.")
@compose_file_option
@prune_option
@click.option("--format", "format_", type=click.Choice(["", "json"]), default="", help="Print as JSON")
@click.argument("name", metavar="STACK")
@pass_settings
def plan(settings: Settings, files: Sequence[str], prune: bool, format_: str, name: str) -> None:
    parsed = read_stack(files, name)
    secrets, configs = payloads_of(parsed, files)

    async def ask() -> pb.StackPlan:
        async with connect(settings) as client:
            return await client.plan_stack(name, parsed.services, secrets=secrets, configs=configs, prune=prune)

    found = run(ask())
    if format_ == "json":
        click.echo(json.dumps(MessageToDict(found, preserving_proto_field_name=True), ensure_ascii=False))
    else:
        click.echo(plan_text(found))


@click.command(help="Make a stack what it was before its last deploy, and follow it until it runs.")
@click.option("-d", "--detach", is_flag=True, help="Exit at once instead of following until it has converged")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress")
@click.argument("name", metavar="STACK")
@pass_settings
def rollback(settings: Settings, detach: bool, quiet: bool, name: str) -> None:
    run_and_follow(_rollback(settings, name, detach=detach, quiet=quiet), look=f"pyswarm stack ps {name}")


async def _rollback(settings: Settings, name: str, *, detach: bool, quiet: bool) -> None:
    async with connect(settings) as client:
        before = {row.service.spec.name: row.service.id for row in await client.services(stack=name)}
        known = {} if detach else {n: await goal_before(client, i, n) for n, i in before.items()}
        changes = await client.rollback_stack(name)
        tell_changes(changes)
        services = [c for c in changes if c.kind == "service" and c.action != "removed"]
        goals = [known.get(c.name, Goal(c.id, c.name)) for c in services]
        await follow_unless(client, goals, detach=detach, quiet=quiet, stack=name)
