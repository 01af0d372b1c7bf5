"""`pyswarm secret …` and `pyswarm config …`: the same commands for two kinds of object."""

import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import click

from pyswarm.manager.cli.client.control import ControlClient, connect
from pyswarm.manager.cli.client.run import run
from pyswarm.manager.cli.commands.payload_versions import add_version_commands
from pyswarm.manager.cli.commands.shared import (
    echo_each_failure,
    echo_list,
    filter_option,
    format_option,
    parse_filters,
    quiet_option,
)
from pyswarm.manager.cli.flags.values import parse_labels
from pyswarm.manager.cli.settings import Settings, pass_settings
from pyswarm.manager.cli.view.payloads import (
    CONFIG_COLUMNS,
    SECRET_COLUMNS,
    Payload,
    keep_payloads,
    payload_json,
    payload_pretty,
    payload_row,
)
from pyswarm.manager.cli.view.table import Column
from pyswarm.manager.cli.view.template import render, unescape
from pyswarm.proto.clock import SYSTEM_CLOCK
from pyswarm.proto.codec.validate_payload import validate_payload
from pyswarm.proto.errors import SwarmError
from pyswarm.proto.model.spec import ConfigSpec, SecretSpec

FILTERS = ("id", "name", "label")

Find = Callable[[ControlClient, Sequence[str]], Awaitable[Sequence[Payload]]]
Make = Callable[[ControlClient, str, dict[str, str], bytes], Awaitable[Payload]]
Remove = Callable[[ControlClient, str], Awaitable[None]]


async def _find_secrets(client: ControlClient, names: Sequence[str]) -> Sequence[Payload]:
    return await client.secrets(names)


async def _find_configs(client: ControlClient, names: Sequence[str]) -> Sequence[Payload]:
    return await client.configs(names)


async def _make_secret(client: ControlClient, name: str, labels: dict[str, str], data: bytes) -> Payload:
    spec = SecretSpec(name, labels, data)
    validate_payload(spec)
    return await client.create_secret(spec)


async def _make_config(client: ControlClient, name: str, labels: dict[str, str], data: bytes) -> Payload:
    spec = ConfigSpec(name, labels, data)
    validate_payload(spec)
    return await client.create_config(spec)


def _group(kind: str, columns: Sequence[Column], find: Find, make: Make, remove: Remove) -> click.Group:
    group = click.Group(kind, help=f"Manage {kind}s.")

    @group.command(help=f"Create a {kind} from a file, or from standard input (`-`).")
    @click.option("-l", "--label", "labels", multiple=True, metavar="NAME=VALUE", help=f"Labels of the {kind}")
    @click.argument("name")
    @click.argument("file", metavar="FILE|-")
    @pass_settings
    def create(settings: Settings, labels: Sequence[str], name: str, file: str) -> None:
        parsed = parse_labels(labels)
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()

        async def make_it() -> Payload:
            async with connect(settings) as client:
                return await make(client, name, parsed, data)

        click.echo(run(make_it()).id)

    @group.command("ls", help=f"List {kind}s.")
    @filter_option
    @format_option
    @quiet_option
    @pass_settings
    def list_all(settings: Settings, filters: Sequence[str], format_: str, quiet: bool) -> None:
        wanted = parse_filters(filters, FILTERS)

        async def found() -> Sequence[Payload]:
            async with connect(settings) as client:
                return await find(client, ())

        now = SYSTEM_CLOCK.now()
        rows = [payload_row(payload, now=now) for payload in keep_payloads(run(found()), wanted)]
        echo_list(rows, columns, format_=format_, quiet=quiet)

    @group.command(help=f"Show {kind}s in full{', but not what they hold' if kind == 'secret' else ''}.")
    @click.option("--pretty", is_flag=True, help="Print for people")
    @format_option
    @click.argument("names", metavar=f"{kind.upper()}...", nargs=-1, required=True)
    @pass_settings
    def inspect(settings: Settings, pretty: bool, format_: str, names: Sequence[str]) -> None:
        found, failures = run(_each(settings, names, lambda client, name: find(client, [name])))
        payloads = [payload for group in found for payload in group]
        if pretty:
            click.echo("\n\n".join(payload_pretty(payload) for payload in payloads))
        elif format_ and format_ != "json":
            for payload in payloads:
                click.echo(render(unescape(format_), payload_json(payload)))
        else:
            click.echo(json.dumps([payload_json(p) for p in payloads], indent=4, ensure_ascii=False))
        echo_each_failure(failures)

    @group.command("rm", help=f"Remove {kind}s.")
    @click.argument("names", metavar=f"{kind.upper()}...", nargs=-1, required=True)
    @pass_settings
    def remove_each(settings: Settings, names: Sequence[str]) -> None:
        async def remove_one(client: ControlClient, name: str) -> None:
            await remove(client, name)
            click.echo(name)

        _, failures = run(_each(settings, names, remove_one))
        echo_each_failure(failures)

    group.add_command(remove_each, "remove")
    add_version_commands(group, kind)
    return group


async def _each(
    settings: Settings, names: Sequence[str], do: Callable[[ControlClient, str], Awaitable[Any]]
) -> tuple[list[Any], list[SwarmError]]:
    """Do something for each name; one that fails does not keep the others back."""
    done: list[Any] = []
    failures: list[SwarmError] = []
    async with connect(settings) as client:
        for name in names:
            try:
                done.append(await do(client, name))
            except SwarmError as error:
                failures.append(error)
    return done, failures


secret = _group("secret", SECRET_COLUMNS, _find_secrets, _make_secret, ControlClient.remove_secret)
config = _group("config", CONFIG_COLUMNS, _find_configs, _make_config, ControlClient.remove_config)
