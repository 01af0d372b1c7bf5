"""`pyswarm service create`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from pyswarm.manager.cli.client.control import connect
from pyswarm.manager.cli.commands.following import follow_unless, run_and_follow
from pyswarm.manager.cli.flags.service_options import create_options
from pyswarm.manager.cli.flags.service_spec import new_spec
from pyswarm.manager.cli.progress.convergence import Goal
from pyswarm.manager.cli.settings import Settings, pass_settings
from pyswarm.manager.cli.view.images import split_reference
from pyswarm.proto.codec.env_file import parse_env_file
from pyswarm.proto.codec.validate import validate_service_spec
from pyswarm.proto.entropy import SYSTEM_ENTROPY
from pyswarm.proto.model.spec import ServiceSpec


@click.command(
    help="Create a service and follow it until its tasks run.",
    # What follows the image is the container's command, with flags of its own.
    context_settings={"allow_interspersed_args": False},
)
@create_options
@click.argument("image")
@click.argument("args", metavar="[COMMAND] [ARG...]", nargs=-1, type=click.UNPROCESSED)
@pass_settings
def create(settings: Settings, /, image: str, args: Sequence[str], detach: bool, quiet: bool, **flags: Any) -> None:
    from_files = [entry for name in flags["env_file"] for entry in parse_env_file(name, Path(name).read_text())]
    flags["env"] = (*from_files, *flags["env"])
    name = flags["name"] or _made_up_name(image)
    spec = new_spec(name=name, image=image, args=args, flags=flags, environment=os.environ)
    validate_service_spec(spec)
    run_and_follow(_create(settings, spec, detach=detach, quiet=quiet), look=f"pyswarm service ps {spec.name}")


async def _create(settings: Settings, spec: ServiceSpec, *, detach: bool, quiet: bool) -> None:
    async with connect(settings) as client:
        service = await client.create_service(spec)
        click.echo(service.id)
        await follow_unless(client, [Goal(service.id, spec.name)], detach=detach, quiet=quiet)


def _made_up_name(image: str) -> str:
    """A name that tells what runs, and that nobody has."""
    repository, _ = split_reference(image)
    word = "".join(c for c in repository.rpartition("/")[2] if c.isascii() and c.isalnum())[:40]
    return f"{word or 'service'}-{SYSTEM_ENTROPY.new_id()[:6]}"
