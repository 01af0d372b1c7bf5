"""`pyswarm events`."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

from pyswarm.manager.cli.client.control import connect
from pyswarm.manager.cli.client.run import run
from pyswarm.manager.cli.commands.shared import event_bounds_options, filter_option, format_option, parse_filters, say
from pyswarm.manager.cli.flags.since import parse_since
from pyswarm.manager.cli.settings import Settings, pass_settings
from pyswarm.manager.cli.view.facts import rfc3339
from pyswarm.manager.cli.view.template import render, unescape
from pyswarm.proto.clock import SYSTEM_CLOCK
from pyswarm.proto.v1 import control_pb2 as pb

EVENT_FILTERS = ("type", "event", "id", "name", "node", "service", "secret", "config", "stack", "task")
_BY_TYPE = ("node", "service", "secret", "config", "stack", "task")


@click.command(
    help="Tell what happens to nodes, services, tasks, secrets, configs and stacks, until interrupted. With --since "
    "also what has happened, as far as the manager that answers remembers."
)
@event_bounds_options
@filter_option
@format_option
@pass_settings
def events(settings: Settings, since: str, until: str, filters: Sequence[str], format_: str) -> None:
    wanted = parse_filters(filters, EVENT_FILTERS)
    now = SYSTEM_CLOCK.now()
    ends_at = parse_since(until, now=now)
    told = _tell(settings, since=parse_since(since, now=now), until=ends_at, wanted=wanted, format_=format_)
    run(told)


async def _tell(
    settings: Settings, *, since: float, until: float, wanted: Mapping[str, Sequence[str]], format_: str
) -> None:
    left = until - SYSTEM_CLOCK.now() if until else None
    async with connect(settings) as client:
        stream = client.events(since=since, until=until, kinds=wanted.get("type", ()))
        try:
            # One that lies in the past is the manager's to keep: it knows when it has told everything.
            async with asyncio.timeout(left if left is not None and left > 0 else None):
                async for event in stream:
                    if not event.type:
                        _warn_of_a_gap(event.at, since)
                    elif _is_wanted(event, wanted):
                        click.echo(_text(event, format_))
        except TimeoutError:
            pass  # `until` has come


def _warn_of_a_gap(remembered_since: float, since: float) -> None:
    if since and remembered_since > since:
        say(f"Warning: this manager remembers what happened since {rfc3339(remembered_since)} only")


def _is_wanted(event: pb.ClusterEvent, wanted: Mapping[str, Sequence[str]]) -> bool:
    """Filters of one key are alternatives, those of different keys must all hold."""
    attributes = event.attributes
    for key, values in wanted.items():
        if key == "event":
            found = {event.action}
        elif key == "id":
            found = {value for value in values if event.id.startswith(value)}
        elif key == "name":
            found = {attributes["name"]}
        elif key == "type":
            found = {event.type}
        else:
            own = {event.id, attributes["name"]} if key in _BY_TYPE and event.type == key else set()
            found = own | ({attributes[key]} if key in attributes else set())
        if found.isdisjoint(values):
            return False
    return True


def _text(event: pb.ClusterEvent, format_: str) -> str:
    row = _row(event)
    if format_ == "json":
        return json.dumps(row, ensure_ascii=False)
    if format_:
        return render(unescape(format_), row)
    told = ", ".join(f"{key}={value}" for key, value in sorted(event.attributes.items()))
    return f"{rfc3339(event.at)} {event.type} {event.action} {event.id} ({told})"


def _row(event: pb.ClusterEvent) -> dict[str, Any]:
    """Return the event by Docker's field names, and the index of the store at which it happened."""
    return {
        "Type": event.type,
        "Action": event.action,
        "Actor": {"ID": event.id, "Attributes": dict(event.attributes)},
        "scope": "swarm",
        "time": int(event.at),
        "timeNano": int(event.at * 1e9),
        "Index": event.index,
    }
