"""`pyswarm image …`: the images on this node."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import click

from pyswarm.manager.cli.client.run import run
from pyswarm.manager.cli.client.runtime import RuntimeClient, connect_runtime
from pyswarm.manager.cli.commands.shared import (
    echo_each_failure,
    echo_list,
    format_option,
    no_trunc_option,
    quiet_option,
)
from pyswarm.manager.cli.progress.pull import PullLines
from pyswarm.manager.cli.settings import Settings, pass_settings
from pyswarm.manager.cli.view.images import IMAGE_COLUMNS, StoredImage, image_rows
from pyswarm.proto.clock import SYSTEM_CLOCK
from pyswarm.proto.codec.image_reference import parse_reference
from pyswarm.proto.errors import InvalidArgument, SwarmError, Unavailable


@click.group(help="Manage the images on this node.")
def image() -> None:
    pass


@image.command("ls", help="List images.")
@format_option
@quiet_option
@no_trunc_option
@pass_settings
def list_images(settings: Settings, format_: str, quiet: bool, no_trunc: bool) -> None:
    async def find() -> list[StoredImage]:
        async with connect_runtime(settings) as runtime:
            return await runtime.images()

    rows = image_rows(run(find()), now=SYSTEM_CLOCK.now(), no_trunc=no_trunc)
    echo_list(rows, IMAGE_COLUMNS, format_=format_, quiet=quiet)


@image.command(help="Pull an image from its registry.")
@click.option("-q", "--quiet", is_flag=True, help="Print only the image's name")
@click.argument("reference", metavar="NAME[:TAG|@DIGEST]")
@pass_settings
def pull(settings: Settings, quiet: bool, reference: str) -> None:
    name = str(parse_reference(reference))

    async def pull_it() -> StoredImage:
        async with connect_runtime(settings) as runtime:
            return await _pull(runtime, reference, quiet=quiet)

    pulled = run(pull_it())
    if not quiet:
        click.echo(f"Digest: {pulled.digest}\nStatus: Image is up to date for {name}")
    click.echo(name)


async def _pull(runtime: RuntimeClient, reference: str, *, quiet: bool) -> StoredImage:
    lines = PullLines()
    async for progress in runtime.pull(reference):
        for line in lines.news(progress.layer, progress.status, progress.current_bytes, progress.total_bytes):
            if not quiet:
                click.echo(line)
        if progress.HasField("image"):
            found = progress.image
            return StoredImage(found.id, found.digest, tuple(found.references), found.size_bytes, found.created_at)
    raise Unavailable(f"the runtime ended the pull of {reference} without a result", remedy="Try again.")


@image.command(help="Load images from an archive (an OCI layout, or what `docker save` writes).")
@click.option("-i", "--input", "file", metavar="FILE", help="Read from a file instead of standard input")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing")
@pass_settings
def load(settings: Settings, file: str | None, quiet: bool) -> None:
    async def load_from(archive: BinaryIO) -> list[StoredImage]:
        async with connect_runtime(settings) as runtime:
            return await runtime.load(archive)

    if file is None and sys.stdin.isatty():
        raise InvalidArgument("nothing to load", remedy="Name an archive: -i FILE, or redirect it into this command.")
    if file is None:
        loaded = run(load_from(sys.stdin.buffer))
    else:
        with Path(file).open("rb") as archive:
            loaded = run(load_from(archive))
    for found in loaded if not quiet else ():
        for name in found.references or ():
            click.echo(f"Loaded image: {name}")
        if not found.references:
            click.echo(f"Loaded image ID: {found.id}")


@image.command("rm", help="Remove images.")
@click.option("-f", "--force", is_flag=True, help="Remove every name of an image")
@click.argument("names", metavar="IMAGE...", nargs=-1, required=True)
@pass_settings
def remove(settings: Settings, force: bool, names: Sequence[str]) -> None:
    async def remove_all() -> list[SwarmError]:
        failures: list[SwarmError] = []
        async with connect_runtime(settings) as runtime:
            for name in names:
                try:
                    untagged, deleted = await runtime.remove(name, force=force)
                except SwarmError as error:
                    failures.append(error)
                    continue
                for text in untagged:
                    click.echo(f"Untagged: {text}")
                for text in deleted:
                    click.echo(f"Deleted: {text}")
        return failures

    echo_each_failure(run(remove_all()))
