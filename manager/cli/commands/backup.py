"""`pyswarm backup` and `pyswarm restore`: the whole cluster in one sealed file, and back."""

import asyncio
from pathlib import Path

import click

from pyswarm.manager.cli.client.addresses import advertise_address, listen_address, machine_addresses
from pyswarm.manager.cli.client.daemon import ensure_running
from pyswarm.manager.cli.client.run import run
from pyswarm.manager.cli.client.supervisor import ask
from pyswarm.manager.cli.commands.shared import say
from pyswarm.manager.cli.settings import Settings, pass_settings
from pyswarm.manager.cli.view.human import size
from pyswarm.manager.cli.view.membership import restored
from pyswarm.proto.backup_facts import BackupFacts
from pyswarm.proto.backup_file import BackupWriter, new_key, parse_key
from pyswarm.proto.errors import InvalidArgument

RESTORE_TIMEOUT_SECONDS = 120.0


@click.command(help="Write the cluster's state to FILE, sealed; works while the cluster runs.")
@click.option(
    "--key-file", metavar="FILE", help="Seal with the key in this file; one that does not exist is made (mode 0600)"
)
@click.argument("file", metavar="FILE")
@pass_settings
def backup(settings: Settings, key_file: str | None, file: str) -> None:
    path = Path(file).absolute()
    if path.is_dir():
        raise InvalidArgument(f"{file} is a directory", remedy="Name the file to write.")
    key = new_key() if key_file is None else _key_of(Path(key_file))
    written, facts = run(_backup(settings, path, parse_key(key)))
    click.echo(f"Wrote {file}: {size(written)}, version {facts.version} of cluster {facts.cluster_id}.")
    if key_file is None:
        click.echo(f"\n    {key}\n\nKeep this key apart from the file: without it nobody can restore the backup.")


async def _backup(settings: Settings, path: Path, key: bytes) -> tuple[int, BackupFacts]:
    from pyswarm.manager.cli.client.control import connect

    async with connect(settings) as client:
        stream = client.backup()
        facts = await anext(stream)
        assert isinstance(facts, BackupFacts), "the facts come first"
        writer = await asyncio.to_thread(BackupWriter, path, key, facts)
        try:
            async for piece in stream:
                assert isinstance(piece, bytes), "the facts come once"
                await asyncio.to_thread(writer.add, piece)
            return await asyncio.to_thread(writer.finish), facts
        except BaseException:
            writer.abort()
            raise


def _key_of(path: Path) -> str:
    """Return the key in a file, made when there is none."""
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        key = new_key()
        path.touch(mode=0o600)
        path.write_text(key + "\n")
        return key


@click.command(help="Make this machine the first manager of the cluster that is in FILE.")
@click.option("--key-file", metavar="FILE", required=True, help="The key of the backup; `-` reads it from a prompt")
@click.option("--advertise-addr", default="", metavar="IP|INTERFACE", help="Address that other nodes shall use")
@click.option("--listen-addr", default="0.0.0.0", metavar="IP", help="Address to listen on (0.0.0.0)")
@click.argument("file", metavar="FILE")
@pass_settings
def restore(settings: Settings, key_file: str, advertise_addr: str, listen_addr: str, file: str) -> None:
    path = Path(file).absolute()
    path.open("rb").close()  # says at once that it cannot be read
    key = click.prompt("Key", hide_input=True) if key_file == "-" else Path(key_file).read_text()
    parse_key(key)
    address = advertise_address(advertise_addr, machine_addresses())
    run(_restore(settings, path, key.strip(), address, listen_address(listen_addr)))


async def _restore(settings: Settings, path: Path, key: str, address: str, listen: str) -> None:
    await ensure_running(settings)
    answer = await ask(
        settings,
        "restore",
        timeout_seconds=RESTORE_TIMEOUT_SECONDS,
        say=say,
        file=str(path),
        key=key,
        advertise_addr=address,
        listen_addr=listen,
    )
    said = restored(
        answer["node_id"],
        answer["services"],
        answer["nodes"],
        answer["removed"],
        is_autolocked=bool(answer.get("autolock")),
    )
    click.echo(said)
