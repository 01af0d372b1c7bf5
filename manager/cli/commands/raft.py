"""`pyswarm raft …`: how the managers' consensus fares, and the keys that seal it on the disk."""

import json

import click

from pyswarm.manager.cli.client.control import connect
from pyswarm.manager.cli.client.run import run
from pyswarm.manager.cli.commands.shared import format_option
from pyswarm.manager.cli.settings import Settings, pass_settings
from pyswarm.manager.cli.view.raft import raft_json, raft_text, why_no_quorum
from pyswarm.manager.cli.view.template import render, unescape
from pyswarm.proto.errors import Unavailable
from pyswarm.proto.v1 import raft_pb2


@click.group(help="See how the managers' consensus fares, and rotate the keys that seal it.")
def raft() -> None:
    pass


@raft.command(help="Show every manager's part in consensus. Fails when the managers have no quorum.")
@format_option
@pass_settings
def status(settings: Settings, format_: str) -> None:
    async def ask() -> raft_pb2.RaftStatusResponse:
        async with connect(settings) as client:
            return await client.raft_status()

    found = raft_json(run(ask()))
    if format_ == "json":
        click.echo(json.dumps(found, ensure_ascii=False))
    elif format_:
        click.echo(render(unescape(format_), found))
    else:
        click.echo(raft_text(found))
    if (trouble := why_no_quorum(found)) is not None:
        cause, remedy = trouble
        raise Unavailable(cause, remedy=remedy)


@raft.command("rotate-key", help="Seal what this manager keeps on its disk under a new key from now on.")
@pass_settings
def rotate_key(settings: Settings) -> None:
    async def ask() -> int:
        async with connect(settings) as client:
            return await client.rotate_data_key()

    older = run(ask())
    click.echo("Successfully rotated this manager's data key.")
    click.echo(f"Older keys kept until the files under them are replaced: {older}.", err=True)
