"""Run a command that ends by following services; Ctrl-C leaves the services alone and says so."""

import sys
from collections.abc import Coroutine, Sequence
from typing import Any

import click

from pyswarm.manager.cli.client.control import ControlClient
from pyswarm.manager.cli.client.run import run
from pyswarm.manager.cli.failure import EXIT_FAILURE
from pyswarm.manager.cli.progress.convergence import Goal
from pyswarm.manager.cli.progress.follow import follow
from pyswarm.manager.cli.progress.reporter import Reporter


def run_and_follow(command: Coroutine[Any, Any, None], *, look: str) -> None:
    """Run; on Ctrl-C tell that the work goes on, and `look`, the command that shows it."""
    try:
        run(command)
    except KeyboardInterrupt:
        click.echo(f"Operation continuing in background.\nUse `{look}` to check progress.", err=True)
        raise click.exceptions.Exit(EXIT_FAILURE) from None


async def follow_unless(
    client: ControlClient, goals: Sequence[Goal], *, detach: bool, quiet: bool, stack: str = ""
) -> None:
    if goals and not detach:
        await follow(client, goals, Reporter(sys.stdout, is_quiet=quiet), stack=stack)
