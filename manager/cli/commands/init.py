"""`pyswarm init`: make this node the first manager of a new cluster."""

import click

from pyswarm.manager.cli.client.addresses import advertise_address, listen_address, machine_addresses
from pyswarm.manager.cli.client.daemon import ensure_running
from pyswarm.manager.cli.client.run import run
from pyswarm.manager.cli.client.supervisor import ask
from pyswarm.manager.cli.commands.shared import say
from pyswarm.manager.cli.flags.types import AVAILABILITY, DURATION
from pyswarm.manager.cli.settings import Settings, pass_settings
from pyswarm.manager.cli.view.membership import initialized
from pyswarm.proto.model.states import Availability

INIT_TIMEOUT_SECONDS = 90.0


@click.command(help="Make this node the first manager of a new cluster.")
@click.option("--advertise-addr", default="", metavar="IP|INTERFACE", help="Address that other nodes shall use")
@click.option("--listen-addr", default="0.0.0.0", metavar="IP", help="Address to listen on (0.0.0.0)")
@click.option("--availability", type=AVAILABILITY, default="active", help="Whether this node gets tasks (active)")
@click.option("--cert-expiry", type=DURATION, default="2160h", help="Validity of node certificates (2160h)")
@click.option("--dispatcher-heartbeat", type=DURATION, default="1s", help="Period of the nodes' heartbeats (1s)")
@click.option("--task-history-limit", type=int, default=5, help="Dead tasks kept for each slot (5)")
@pass_settings
def init(
    settings: Settings,
    advertise_addr: str,
    listen_addr: str,
    availability: Availability,
    cert_expiry: float,
    dispatcher_heartbeat: float,
    task_history_limit: int,
) -> None:
    address = advertise_address(advertise_addr, machine_addresses())
    run(
        _init(
            settings,
            advertise_addr=address,
            listen_addr=listen_address(listen_addr),
            availability=availability.name.lower(),
            heartbeat_seconds=dispatcher_heartbeat,
            cert_expiry_seconds=cert_expiry,
            task_history_limit=task_history_limit,
        )
    )


async def _init(settings: Settings, *, advertise_addr: str, **options: object) -> None:
    # Only now: the client of the control API brings gRPC, which the flags' errors need not wait for.
    from pyswarm.manager.cli.client.control import connect

    await ensure_running(settings)
    answer = await ask(
        settings,
        "init",
        timeout_seconds=INIT_TIMEOUT_SECONDS,
        say=say,
        advertise_addr=advertise_addr,
        **options,
    )
    async with connect(Settings(settings.paths)) as client:
        tokens = (await client.cluster()).root_ca.join_tokens
    click.echo(initialized(answer["node_id"], tokens.worker, advertise_addr))
