"""`pyswarm init`: make this node the first manager of a new cluster."""

import asyncio

import click

from pyswarm.manager.cli.client.addresses import advertise_address, listen_address, machine_addresses
from pyswarm.manager.cli.client.daemon import ensure_running
from pyswarm.manager.cli.client.run import run
from pyswarm.manager.cli.client.supervisor import ask
from pyswarm.manager.cli.commands.shared import say
from pyswarm.manager.cli.flags.types import AVAILABILITY, DURATION
from pyswarm.manager.cli.settings import Settings, pass_settings
from pyswarm.manager.cli.view.membership import how_to_unlock, initialized, only_manager
from pyswarm.proto.errors import FailedPrecondition, SwarmError
from pyswarm.proto.model.states import Availability

INIT_TIMEOUT_SECONDS = 90.0
QUORUM_SECONDS = 5.0
"""How long the managers may take to show that they have a quorum."""


@click.command(help="Make this node the first manager of a new cluster.")
@click.option("--advertise-addr", default="", metavar="IP|INTERFACE", help="Address that other nodes shall use")
@click.option("--listen-addr", default="0.0.0.0", metavar="IP", help="Address to listen on (0.0.0.0)")
@click.option("--force-new-cluster", is_flag=True, help="The other managers are lost: go on with this one alone")
@click.option("--autolock", is_flag=True, help="Managers need an unlock key whenever they are started")
@click.option("--availability", type=AVAILABILITY, default="active", help="Whether this node gets tasks (active)")
@click.option("--cert-expiry", type=DURATION, default="2160h", help="Validity of node certificates (2160h)")
@click.option("--dispatcher-heartbeat", type=DURATION, default="500ms", help="Period of the nodes' heartbeats (500ms)")
@click.option("--task-history-limit", type=int, default=5, help="Dead tasks kept for each slot (5)")
@pass_settings
def init(
    settings: Settings,
    advertise_addr: str,
    listen_addr: str,
    force_new_cluster: bool,
    autolock: bool,
    availability: Availability,
    cert_expiry: float,
    dispatcher_heartbeat: float,
    task_history_limit: int,
) -> None:
    if force_new_cluster:
        # The address it has is the one it keeps, unless another is given.
        address = advertise_address(advertise_addr, machine_addresses()) if advertise_addr else ""
        run(_force_new_cluster(settings, address))
        return
    address = advertise_address(advertise_addr, machine_addresses())
    run(
        _init(
            settings,
            advertise_addr=address,
            listen_addr=listen_address(listen_addr),
            autolock=autolock,
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
        key = await client.unlock_key()
    click.echo(initialized(answer["node_id"], tokens.worker, advertise_addr))
    if key is not None:
        click.echo(f"\n{how_to_unlock(key)}")


async def _force_new_cluster(settings: Settings, advertise_addr: str) -> None:
    await ensure_running(settings)
    await _refuse_with_quorum(settings)
    answer = await ask(
        settings, "force-new-cluster", timeout_seconds=INIT_TIMEOUT_SECONDS, say=say, advertise_addr=advertise_addr
    )
    click.echo(only_manager(answer["node_id"], answer["removed"]))


async def _refuse_with_quorum(settings: Settings) -> None:
    """Raise FailedPrecondition when the managers still decide things: then nothing is lost."""
    from pyswarm.manager.cli.client.control import connect

    try:
        async with asyncio.timeout(QUORUM_SECONDS), connect(Settings(settings.paths)) as client:
            await client.cluster()
    except (SwarmError, TimeoutError):
        return
    raise FailedPrecondition(
        "the managers have a quorum: no new cluster is needed",
        remedy="Take managers that are gone out with `pyswarm node demote` and `pyswarm node rm --force`.",
    )
