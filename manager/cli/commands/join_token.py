"""`pyswarm join-token`: show, or replace, the token that lets nodes join in a role."""

import click

from pyswarm.manager.cli.client.control import connect
from pyswarm.manager.cli.client.run import run
from pyswarm.manager.cli.settings import Settings, pass_settings
from pyswarm.manager.cli.view.membership import how_to_join
from pyswarm.proto.errors import Unavailable
from pyswarm.proto.model.states import Role


@click.command("join-token", help="Show how to join as a worker or as a manager.")
@click.option("--rotate", is_flag=True, help="Make a new token; the old one is void at once")
@click.option("-q", "--quiet", is_flag=True, help="Print only the token")
@click.argument("role", type=click.Choice(["worker", "manager"]))
@pass_settings
def join_token(settings: Settings, rotate: bool, quiet: bool, role: str) -> None:
    token, remote = run(_token(settings, Role[role.upper()], rotate=rotate))
    if quiet:
        click.echo(token)
        return
    if rotate:
        click.echo(f"Successfully rotated {role} join token.\n")
    click.echo(how_to_join(role, token, remote))


async def _token(settings: Settings, role: Role, *, rotate: bool) -> tuple[str, str]:
    """Return the token and the address of the manager to join through."""
    async with connect(settings) as client:
        tokens = await client.rotate_join_token(role) if rotate else (await client.cluster()).root_ca.join_tokens
        token = tokens.manager if role is Role.MANAGER else tokens.worker
        info = await client.info()
        here = next((node for node in await client.nodes() if node.id == info.node_id), None)
        remote = here.manager_status.addr if here is not None and here.manager_status is not None else info.leader_addr
        if not remote:
            raise Unavailable("no manager's address is known", remedy="Try again once a leader is elected.")
        return token, remote
