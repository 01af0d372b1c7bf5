"""`pyswarm version`: of this command, and of the manager it talks to."""

import json
import platform

import click

from pyswarm.manager.cli.client.run import run
from pyswarm.manager.cli.commands.shared import format_option
from pyswarm.manager.cli.settings import Settings, pass_settings
from pyswarm.manager.cli.view.facts import render_facts
from pyswarm.manager.cli.view.template import render, unescape
from pyswarm.proto.errors import SwarmError
from pyswarm.proto.version import VERSION


@click.command(help="Show the versions of client and manager.")
@format_option
@pass_settings
def version(settings: Settings, format_: str) -> None:
    client = {
        "Version": VERSION,
        "PythonVersion": platform.python_version(),
        "Os": platform.system().lower(),
        "Arch": platform.machine(),
    }
    server, reason = run(_server(settings))
    found = {"Client": client, "Server": {"Version": server} if server else None}
    if format_ == "json":
        click.echo(json.dumps(found))
    elif format_:
        click.echo(render(unescape(format_), found))
    else:
        click.echo(render_facts([("Client", client), ("Server", {"Version": server or f"unknown: {reason}"})]))


async def _server(settings: Settings) -> tuple[str, str]:
    """Return (version, "") of the manager, or ("", why it is not known)."""
    from pyswarm.manager.cli.client.control import connect

    try:
        async with connect(settings) as client:
            return (await client.info()).server_version, ""
    except SwarmError as error:
        return "", error.message
