"""`pyswarm node …`."""

import json
from collections.abc import Callable, Sequence

import click
from msgspec.structs import replace

from pyswarm.manager.cli.client.addresses import advertise_address, machine_addresses
from pyswarm.manager.cli.client.control import ControlClient, connect
from pyswarm.manager.cli.client.run import run
from pyswarm.manager.cli.commands.following import run_and_follow
from pyswarm.manager.cli.commands.moving import until_left
from pyswarm.manager.cli.commands.readdress import readdress
from pyswarm.manager.cli.commands.shared import (
    echo_each_failure,
    echo_list,
    filter_option,
    format_option,
    no_trunc_option,
    parse_filters,
    quiet_option,
    say,
)
from pyswarm.manager.cli.commands.task_list import TASK_FILTERS, echo_tasks
from pyswarm.manager.cli.flags.types import AVAILABILITY, DURATION, ROLE
from pyswarm.manager.cli.flags.values import parse_labels
from pyswarm.manager.cli.settings import Settings, pass_settings
from pyswarm.manager.cli.view.docker_json import node_json
from pyswarm.manager.cli.view.filters import keep_nodes
from pyswarm.manager.cli.view.nodes import NODE_COLUMNS, node_pretty, node_row
from pyswarm.manager.cli.view.table import Row
from pyswarm.manager.cli.view.template import render, unescape
from pyswarm.proto.errors import SwarmError
from pyswarm.proto.model.objects import Node
from pyswarm.proto.model.spec import NodeSpec
from pyswarm.proto.model.states import Availability, Role

NODE_FILTERS = ("id", "name", "role", "membership", "node.label")


@click.group(help="Manage the cluster's nodes.")
def node() -> None:
    pass


@node.command("ls", help="List nodes.")
@filter_option
@format_option
@quiet_option
@pass_settings
def list_nodes(settings: Settings, filters: Sequence[str], format_: str, quiet: bool) -> None:
    wanted = parse_filters(filters, NODE_FILTERS)

    async def rows() -> list[Row]:
        async with connect(settings) as client:
            info = await client.info()
            return [node_row(n, self_id=info.node_id) for n in keep_nodes(await client.nodes(), wanted)]

    echo_list(run(rows()), NODE_COLUMNS, format_=format_, quiet=quiet)


@node.command(help="Show nodes in full; `self` is the manager that answers.")
@click.option("--pretty", is_flag=True, help="Print for people")
@format_option
@click.argument("names", metavar="NODE...", nargs=-1, required=True)
@pass_settings
def inspect(settings: Settings, pretty: bool, format_: str, names: Sequence[str]) -> None:
    async def find() -> tuple[list[Node], list[SwarmError]]:
        found: list[Node] = []
        failures: list[SwarmError] = []
        async with connect(settings) as client:
            for name in names:
                try:
                    found.append(await client.node(name))
                except SwarmError as error:
                    failures.append(error)
        return found, failures

    found, failures = run(find())
    if pretty:
        click.echo("\n\n".join(node_pretty(n) for n in found))
    elif format_ and format_ != "json":
        for n in found:
            click.echo(render(unescape(format_), node_json(n)))
    else:
        click.echo(json.dumps([node_json(n) for n in found], indent=4, ensure_ascii=False))
    echo_each_failure(failures)


@node.command(help="List the tasks on nodes (default: the manager that answers).")
@filter_option
@format_option
@quiet_option
@no_trunc_option
@click.option("--no-resolve", is_flag=True, help="Do not map ids to names")
@click.argument("names", metavar="[NODE...]", nargs=-1)
@pass_settings
def ps(
    settings: Settings,
    filters: Sequence[str],
    format_: str,
    quiet: bool,
    no_trunc: bool,
    no_resolve: bool,
    names: Sequence[str],
) -> None:
    wanted = parse_filters(filters, TASK_FILTERS)

    async def listed() -> None:
        async with connect(settings) as client:
            ids = [(await client.node(name)).id for name in names or ("self",)]
            tasks = await client.tasks(node_ids=ids)
        echo_tasks(tasks, wanted, format_=format_, quiet=quiet, no_trunc=no_trunc, no_resolve=no_resolve)

    run(listed())


@node.command(help="Change a node's availability, role or labels.")
@click.option("--availability", type=AVAILABILITY, help="Whether the node gets tasks")
@click.option(
    "--drain-timeout", type=DURATION, help="How long tasks may stay until others run in their place; 0: not at all (5m)"
)
@click.option("--wait", is_flag=True, help="With --availability drain: wait until no task is left on the node")
@click.option("--role", type=ROLE, help="Role of the node")
@click.option("--label-add", multiple=True, metavar="NAME=VALUE", help="Add or change a label")
@click.option("--label-rm", multiple=True, metavar="NAME", help="Remove a label")
@click.option(
    "--advertise-addr",
    default="",
    metavar="IP|INTERFACE",
    help="Address that other nodes shall use from now on; only of this machine's own node",
)
@click.argument("name", metavar="NODE")
@pass_settings
def update(
    settings: Settings,
    availability: Availability | None,
    drain_timeout: float | None,
    wait: bool,
    role: Role | None,
    label_add: Sequence[str],
    label_rm: Sequence[str],
    advertise_addr: str,
    name: str,
) -> None:
    if advertise_addr:
        if availability or drain_timeout is not None or wait or role or label_add or label_rm:
            raise click.UsageError("--advertise-addr goes with no other change: it is this machine's own affair")
        run(readdress(settings, name, advertise_address(advertise_addr, machine_addresses())))
        click.echo(name)
        return
    added = parse_labels(label_add)
    if (wait or drain_timeout is not None) and availability is not Availability.DRAIN:
        raise click.UsageError("--wait and --drain-timeout go with --availability drain only")

    def changed(spec: NodeSpec) -> NodeSpec:
        kept = {key: value for key, value in spec.labels.items() if key not in label_rm}
        return replace(
            spec,
            labels={**kept, **added},
            availability=spec.availability if availability is None else availability,
            drain_timeout_seconds=spec.drain_timeout_seconds if drain_timeout is None else drain_timeout,
            role=spec.role if role is None else role,
        )

    async def write() -> None:
        async with connect(settings) as client:
            found = await _change(client, name, changed)
            if wait:
                await until_left(client, found.id, say=say)

    run_and_follow(write(), look=f"pyswarm node ps {name}")
    click.echo(name)


@node.command(help="Make nodes managers.")
@click.argument("names", metavar="NODE...", nargs=-1, required=True)
@pass_settings
def promote(settings: Settings, names: Sequence[str]) -> None:
    _set_role(settings, names, Role.MANAGER)


@node.command(help="Make managers workers.")
@click.argument("names", metavar="NODE...", nargs=-1, required=True)
@pass_settings
def demote(settings: Settings, names: Sequence[str]) -> None:
    _set_role(settings, names, Role.WORKER)


@node.command("rm", help="Remove nodes that have left the cluster, and void their certificates.")
@click.option("-f", "--force", is_flag=True, help="Remove a node even if it is up")
@click.argument("names", metavar="NODE...", nargs=-1, required=True)
@pass_settings
def remove(settings: Settings, force: bool, names: Sequence[str]) -> None:
    async def remove_all() -> list[SwarmError]:
        failures: list[SwarmError] = []
        async with connect(settings) as client:
            for name in names:
                try:
                    await client.remove_node((await client.node(name)).id, force=force)
                    click.echo(name)
                except SwarmError as error:
                    failures.append(error)
        return failures

    echo_each_failure(run(remove_all()))


def _set_role(settings: Settings, names: Sequence[str], role: Role) -> None:
    async def write() -> list[SwarmError]:
        failures: list[SwarmError] = []
        async with connect(settings) as client:
            for name in names:
                try:
                    click.echo(await _change_role(client, name, role))
                except SwarmError as error:
                    failures.append(error)
        return failures

    echo_each_failure(run(write()))


async def _change_role(client: ControlClient, name: str, role: Role) -> str:
    """Write the role and return what to say about it."""
    word = role.name.lower()
    before = await _change(client, name, lambda spec: replace(spec, role=role))
    if before.spec.role is role:
        return f"Node {name} is already a {word}."
    return (
        f"Node {name} promoted to a manager in the swarm."
        if role is Role.MANAGER
        else f"Manager {name} demoted in the swarm."
    )


async def _change(client: ControlClient, name: str, change: Callable[[NodeSpec], NodeSpec]) -> Node:
    """Write what `change` makes of the node's spec, if it is different, and return the node as it was."""
    found = await client.node(name)
    spec = change(found.spec)
    if spec != found.spec:
        await client.update_node(found, spec)
    return found
