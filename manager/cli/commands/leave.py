"""`pyswarm leave`: this node leaves its cluster and forgets it."""

import click

from pyswarm.manager.cli.client.run import run
from pyswarm.manager.cli.client.supervisor import ask
from pyswarm.manager.cli.commands.shared import say
from pyswarm.manager.cli.settings import Settings, pass_settings

LEAVE_TIMEOUT_SECONDS = 90.0


@click.command(help="Leave the cluster. Images stay on the node.")
@click.option("-f", "--force", is_flag=True, help="Leave even if this node is a manager")
@pass_settings
def leave(settings: Settings, force: bool) -> None:
    run(ask(settings, "leave", timeout_seconds=LEAVE_TIMEOUT_SECONDS, say=say, force=force))
    click.echo("Node left the swarm.")
