"""`pyswarm container events`: what happens to the containers of this node."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

from pyswarm.manager.cli.client.containers import connect_containers
from pyswarm.manager.cli.client.run import run
from pyswarm.manager.cli.commands.shared import event_bounds_options, filter_option, format_option, parse_filters
from pyswarm.manager.cli.flags.since import parse_since
from pyswarm.manager.cli.settings import Settings, pass_settings
from pyswarm.manager.cli.view.facts import rfc3339
from pyswarm.manager.cli.view.template import render, unescape
from pyswarm.proto.clock import SYSTEM_CLOCK
from pyswarm.proto.v1 import runtime_pb2 as pb

_FILTERS = ("event", "container", "image", "label")


@click.command(
    help="Tell what happens to the containers of this node, until interrupted: create, start, oom, die, kill, stop, "
    "pause, unpause, update, destroy, exec_start, exec_die, attach, detach, health_status. With --since also what has "
    "happened, as far as the runtime remembers: the last 1,024 since it was started. `pyswarm events` tells of the "
    "cluster."
)
@event_bounds_options
@filter_option
@format_option
@pass_settings
def events(settings: Settings, since: str, until: str, filters: Sequence[str], format_: str) -> None:
    wanted, now = parse_filters(filters, _FILTERS), SYSTEM_CLOCK.now()
    begins, ends = parse_since(since, now=now), parse_since(until, now=now)

    async def tell() -> None:
        async with connect_containers(settings) as client:
            async for event in client.events(since=begins, until=ends):
                if is_wanted(event, wanted):
                    click.echo(event_text(event, format_))

    run(tell())


def is_wanted(event: pb.ContainerEvent, wanted: Mapping[str, Sequence[str]]) -> bool:
    """Filters of one key are alternatives, those of different keys must all hold."""
    return all(any(_matches(event, key, value) for value in values) for key, values in wanted.items())


def _matches(event: pb.ContainerEvent, key: str, value: str) -> bool:
    if key == "event":
        # `health_status: healthy` is had by `health_status`, too, as in Docker.
        return value in (event.action, event.action.partition(":")[0])
    if key == "container":
        return event.id.startswith(value) or event.attributes["name"] == value
    if key == "image":
        return event.attributes["image"] == value
    name, equals, content = value.partition("=")
    return name in event.attributes and (not equals or event.attributes[name] == content)


def event_text(event: pb.ContainerEvent, format_: str) -> str:
    """Return an event for people, or by Docker's field names."""
    row: dict[str, Any] = {
        "Type": "container",
        "Action": event.action,
        "Actor": {"ID": event.id, "Attributes": dict(event.attributes)},
        "scope": "local",
        "time": int(event.at),
        "timeNano": int(event.at * 1e9),
    }
    if format_ == "json":
        return json.dumps(row, ensure_ascii=False)
    if format_:
        return render(unescape(format_), row)
    told = ", ".join(f"{key}={value}" for key, value in sorted(event.attributes.items()))
    return f"{rfc3339(event.at)} container {event.action} {event.id} ({told})"
