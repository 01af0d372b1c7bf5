"""`pyswarm join`: make this node part of a cluster, in the role that the token gives."""

import click

from pyswarm.manager.cli.client.addresses import advertise_address, listen_address, machine_addresses, with_port
from pyswarm.manager.cli.client.daemon import ensure_running
from pyswarm.manager.cli.client.run import run
from pyswarm.manager.cli.client.supervisor import ask
from pyswarm.manager.cli.commands.shared import say
from pyswarm.manager.cli.flags.types import AVAILABILITY
from pyswarm.manager.cli.settings import Settings, pass_settings
from pyswarm.manager.cli.view.membership import joined
from pyswarm.proto.model.states import Availability

JOIN_TIMEOUT_SECONDS = 120.0


@click.command(help="Join the cluster that the manager at HOST:PORT belongs to.")
@click.option("--token", required=True, metavar="TOKEN", help="Join token: decides the role, proves the right")
@click.option("--advertise-addr", default="", metavar="IP|INTERFACE", help="Address that other nodes shall use")
@click.option("--listen-addr", default="0.0.0.0", metavar="IP", help="Address to listen on (0.0.0.0)")
@click.option("--availability", type=AVAILABILITY, default="active", help="Whether this node gets tasks (active)")
@click.argument("remote", metavar="HOST:PORT")
@pass_settings
def join(
    settings: Settings, token: str, advertise_addr: str, listen_addr: str, availability: Availability, remote: str
) -> None:
    options = {
        "token": token.strip(),
        "remote": with_port(remote),
        "advertise_addr": advertise_address(advertise_addr, machine_addresses()),
        "listen_addr": listen_address(listen_addr),
        "availability": availability.name.lower(),
    }
    click.echo(joined(run(_join(settings, options))))


async def _join(settings: Settings, options: dict[str, str]) -> str:
    await ensure_running(settings)
    answer = await ask(settings, "join", timeout_seconds=JOIN_TIMEOUT_SECONDS, say=say, **options)
    return str(answer["role"])
