"""`pyswarm service rebalance`."""

from collections.abc import Sequence

import click

from pyswarm.manager.cli.client.control import connect
from pyswarm.manager.cli.commands.following import run_and_follow
from pyswarm.manager.cli.commands.moving import until_moved
from pyswarm.manager.cli.settings import Settings, pass_settings


@click.command(
    help="Spread services evenly over their nodes again: no more tasks than needed are moved, each after its "
    "replacement runs, within the service's budget (--move-parallelism). All services when none is named."
)
@click.option("--dry-run", is_flag=True, help="Only tell which tasks would be moved where")
@click.option("-d", "--detach", is_flag=True, help="Exit at once instead of waiting until the tasks have been moved")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress")
@click.argument("names", metavar="[SERVICE...]", nargs=-1)
@pass_settings
def rebalance(settings: Settings, dry_run: bool, detach: bool, quiet: bool, names: Sequence[str]) -> None:
    async def move() -> None:
        async with connect(settings) as client:
            moves = await client.rebalance(names, dry_run=dry_run)
            for planned in moves if dry_run or not quiet else ():
                click.echo(f"{planned.name}: {planned.from_node} -> {planned.to_node}")
            if not moves:
                click.echo("Nothing to move: the tasks are spread evenly.")
            elif not dry_run and not detach:
                say = (lambda _: None) if quiet else click.echo
                await until_moved(client, [planned.task_id for planned in moves], say=say)

    run_and_follow(move(), look="pyswarm service ls")
