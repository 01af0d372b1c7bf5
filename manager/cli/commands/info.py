"""`pyswarm info`: this node, its daemons, and the cluster as its manager sees it."""

import json
from typing import Any

import click

from pyswarm.manager.cli.client.run import run
from pyswarm.manager.cli.client.supervisor import ask
from pyswarm.manager.cli.commands.shared import format_option
from pyswarm.manager.cli.settings import Settings, pass_settings
from pyswarm.manager.cli.view.info import info_text, manager_info, node_info
from pyswarm.manager.cli.view.template import render, unescape
from pyswarm.proto.errors import Locked, SwarmError

STATUS_TIMEOUT_SECONDS = 10.0


@click.command(help="Show this node, its daemons and its cluster.")
@format_option
@pass_settings
def info(settings: Settings, format_: str) -> None:
    found = run(_info(settings))
    if format_ == "json":
        click.echo(json.dumps(found, ensure_ascii=False))
    elif format_:
        click.echo(render(unescape(format_), found))
    else:
        click.echo(info_text(found))


async def _info(settings: Settings) -> dict[str, Any]:
    """Ask pyswarmd, and the manager where there is one; a manager that does not answer is part of the answer."""
    if settings.host:
        return await _manager(settings)
    status = await ask(settings, "status", timeout_seconds=STATUS_TIMEOUT_SECONDS)
    found = node_info(status)
    if status.get("role") == "manager":
        try:
            found.update(await _manager(settings))
        except SwarmError as error:
            found["Error"] = error.message if not isinstance(error, Locked) else f"{error.message}. {error.remedy}"
    return found


async def _manager(settings: Settings) -> dict[str, Any]:
    from pyswarm.manager.cli.client.control import connect

    async with connect(settings) as client:
        told = await client.info()
    return manager_info(
        node_id=told.node_id,
        cluster_id=told.cluster_id,
        leader_node_id=told.leader_node_id,
        leader_addr=told.leader_addr,
        is_leader=told.is_leader,
        term=told.term,
        applied_version=told.applied_version,
        managers=told.managers,
        nodes=told.nodes,
        server_version=told.server_version,
    )
