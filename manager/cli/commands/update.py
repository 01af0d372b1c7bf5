"""`pyswarm update`: change the cluster's settings while it runs."""

from collections.abc import Mapping

import click
from msgspec.structs import replace

from pyswarm.manager.cli.client.control import connect
from pyswarm.manager.cli.client.run import run
from pyswarm.manager.cli.flags.types import DURATION
from pyswarm.manager.cli.settings import Settings, pass_settings
from pyswarm.manager.cli.view.membership import how_to_unlock


@click.command(help="Change the cluster's settings.")
@click.option(
    "--autolock",
    type=bool,
    is_flag=False,
    flag_value="true",
    default=None,
    metavar="[true|false]",
    help="Whether managers need an unlock key whenever they are started",
)
@click.option("--cert-expiry", type=DURATION, default=None, help="Validity of node certificates issued from now on")
@click.option("--task-history-limit", type=int, default=None, help="Dead tasks kept for each slot")
@click.pass_context
@pass_settings
def update(
    settings: Settings,
    context: click.Context,
    autolock: bool | None,
    cert_expiry: float | None,
    task_history_limit: int | None,
) -> None:
    given = {
        "autolock": autolock,
        "node_cert_expiry_seconds": cert_expiry,
        "task_history_retention_limit": task_history_limit,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    if not changes:
        click.echo(context.get_help())
        return
    key = run(_update(settings, changes))
    click.echo("Swarm updated.")
    if key is not None:
        click.echo(f"\n{how_to_unlock(key)}")


async def _update(settings: Settings, changes: Mapping[str, object]) -> str | None:
    """Write the changes; return the unlock key if they turned the lock on."""
    async with connect(settings) as client:
        before = await client.cluster()
        spec = replace(before.spec, **changes)
        await client.update_cluster(before, spec)
        return await client.unlock_key() if spec.autolock and not before.spec.autolock else None
