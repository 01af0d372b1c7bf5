"""`pyswarm secret rotate|prune` and the same for configs."""

import sys
from pathlib import Path

import click

from pyswarm.manager.cli.client.control import connect
from pyswarm.manager.cli.client.run import run
from pyswarm.manager.cli.commands.following import follow_unless, run_and_follow
from pyswarm.manager.cli.progress.follow import goal_before
from pyswarm.manager.cli.settings import Settings, pass_settings


def add_version_commands(group: click.Group, kind: str) -> None:
    @group.command(
        help=f"Make a new version of a {kind} from a file, or from standard input (`-`), and update the services that "
        "use it, each as its update settings say; the file stays where it is in their containers."
    )
    @click.option("-d", "--detach", is_flag=True, help="Exit at once instead of following until it has converged")
    @click.option("-q", "--quiet", is_flag=True, help="Show no progress")
    @click.argument("name")
    @click.argument("file", metavar="FILE|-")
    @pass_settings
    def rotate(settings: Settings, detach: bool, quiet: bool, name: str, file: str) -> None:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        run_and_follow(
            _rotate(settings, kind, name, data, detach=detach, quiet=quiet), look=f"pyswarm {kind} inspect {name}"
        )

    @group.command(help=f"Remove old versions of {kind}s that no service, rollback or task needs.")
    @click.option("-a", "--all", "everything", is_flag=True, help=f"Remove every {kind} that nothing needs")
    @click.option("-f", "--force", is_flag=True, help="Do not ask")
    @pass_settings
    def prune(settings: Settings, everything: bool, force: bool) -> None:
        if everything and not force:
            click.confirm(f"This removes every {kind} that no service uses. Go on?", abort=True, err=True)

        async def remove() -> list[str]:
            async with connect(settings) as client:
                return await client.prune_payloads(kind, everything=everything)

        for name in run(remove()):
            click.echo(name)


async def _rotate(settings: Settings, kind: str, name: str, data: bytes, *, detach: bool, quiet: bool) -> None:
    async with connect(settings) as client:
        before = {} if detach else {row.service.id: row.service.spec.name for row in await client.services()}
        known = {id: await goal_before(client, id, service) for id, service in before.items()}
        told = await client.rotate_payload(kind, name, data)
        if not told.is_new:
            click.echo(f"{told.name}: the content is the same, nothing changes")
            return
        click.echo(told.name)
        goals = [known[id] for id in told.service_ids if id in known]
        await follow_unless(client, goals, detach=detach, quiet=quiet)
