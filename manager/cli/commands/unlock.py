"""`pyswarm unlock` and `pyswarm unlock-key`: what a manager needs that was started in an autolocked cluster.

The key is never an argument: those are seen by everybody on the machine.
"""

import sys

import click

from pyswarm.manager.cli.client.run import run
from pyswarm.manager.cli.client.supervisor import ask
from pyswarm.manager.cli.commands.shared import say
from pyswarm.manager.cli.settings import Settings, pass_settings
from pyswarm.manager.cli.view.membership import how_to_unlock
from pyswarm.proto.errors import FailedPrecondition
from pyswarm.proto.unlock_key import parse_unlock_key

UNLOCK_TIMEOUT_SECONDS = 90.0


@click.command(help="Give this node's locked manager the unlock key: from a prompt, or from standard input.")
@pass_settings
def unlock(settings: Settings) -> None:
    key = _typed_key()
    parse_unlock_key(key)
    run(ask(settings, "unlock", timeout_seconds=UNLOCK_TIMEOUT_SECONDS, say=say, key=key.strip()))


def _typed_key() -> str:
    """Return the key as given, at a terminal without showing it."""
    if _is_terminal():
        return str(click.prompt("Enter unlock key", hide_input=True))
    return sys.stdin.readline()


def _is_terminal() -> bool:
    return sys.stdin.isatty()


@click.command("unlock-key", help="Show the key that unlocks managers.")
@click.option("--rotate", is_flag=True, help="Make a new key; managers that run take it over by themselves")
@click.option("-q", "--quiet", is_flag=True, help="Print only the key")
@pass_settings
def unlock_key(settings: Settings, rotate: bool, quiet: bool) -> None:
    key = run(_unlock_key(settings, rotate=rotate))
    if quiet:
        click.echo(key)
        return
    if rotate:
        click.echo("Successfully rotated manager unlock key.\n")
    click.echo(how_to_unlock(key))


async def _unlock_key(settings: Settings, *, rotate: bool) -> str:
    from pyswarm.manager.cli.client.control import connect

    async with connect(settings) as client:
        if rotate:
            cluster = await client.cluster()
            await client.update_cluster(cluster, cluster.spec, rotate_unlock_key=True)
        key = await client.unlock_key()
    if key is None:
        raise FailedPrecondition(
            "no unlock key is set: the cluster is not autolocked", remedy="Turn it on with `pyswarm update --autolock`."
        )
    return key
