"""`pyswarm service logs`."""

import asyncio
import sys

import click

from pyswarm.manager.cli.client.control import ControlClient, connect
from pyswarm.manager.cli.client.run import run
from pyswarm.manager.cli.commands.shared import no_trunc_option, say
from pyswarm.manager.cli.flags.since import parse_since
from pyswarm.manager.cli.records import TaskList
from pyswarm.manager.cli.settings import Settings, pass_settings
from pyswarm.manager.cli.view.logs import LogStyle, log_line
from pyswarm.proto.clock import SYSTEM_CLOCK
from pyswarm.proto.errors import InvalidArgument, NotFound, Unavailable
from pyswarm.proto.v1.logs_pb2 import LogOptions


@click.command(help="Print what the tasks of a service, or one task, wrote.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what they write from now on")
@click.option("-n", "--tail", default="all", metavar="N|all", help="Lines from the end of each task's log (all)")
@click.option(
    "--since", default="", metavar="TIME", help="Lines since a moment (2026-01-02T13:23:37Z) or a length (42m)"
)
@click.option("--until", default="", metavar="TIME", help="Lines before a moment or a length of time ago; then it ends")
@click.option("-t", "--timestamps", is_flag=True, help="Print when each line was written")
@click.option("--raw", is_flag=True, help="Print the lines alone")
@click.option("--no-resolve", is_flag=True, help="Do not map ids to names")
@click.option("--no-task-ids", is_flag=True, help="Leave task ids out")
@no_trunc_option
@click.argument("name", metavar="SERVICE|TASK")
@pass_settings
def logs(
    settings: Settings,
    follow: bool,
    tail: str,
    since: str,
    until: str,
    timestamps: bool,
    raw: bool,
    no_resolve: bool,
    no_task_ids: bool,
    no_trunc: bool,
    name: str,
) -> None:
    style = LogStyle(timestamps, raw, no_resolve, no_task_ids, no_trunc)
    lines, now = _lines(tail), SYSTEM_CLOCK.now()
    begins, ends = parse_since(since, now=now), parse_since(until, now=now)
    # What lies in the past needs no following.
    options = LogOptions(follow=follow and not 0 < ends <= now, tail=lines, since=begins, until=ends)
    run(_logs(settings, name, style, options, seconds=ends - now if options.follow and ends else None))


def _lines(text: str) -> int:
    if text == "all":
        return -1
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise InvalidArgument(f'invalid number of lines "{text}"', remedy="Write a number, or all.")
    return int(text)


async def _logs(settings: Settings, name: str, style: LogStyle, options: LogOptions, *, seconds: float | None) -> None:
    """Print them; what is followed is followed for so many seconds, or until interrupted."""
    try:
        async with asyncio.timeout(seconds):
            await _print(settings, name, style, options)
    except TimeoutError:
        pass  # `until` has come


async def _print(settings: Settings, name: str, style: LogStyle, options: LogOptions) -> None:
    async with connect(settings) as client:
        service_ids, task_ids, known = await _find(client, name)
        stream = client.logs(service_ids=service_ids, task_ids=task_ids, options=options)
        notes: list[str] = []
        async for message in stream:
            if message.note:
                notes.append(message.note)
                say(message.note)
                continue
            if message.task_id not in {task.id for task in known.tasks}:
                # A task that was made while we follow.
                known = await client.tasks(service_ids=service_ids, ids=() if service_ids else task_ids)
            out = sys.stderr.buffer if message.stream == "stderr" else sys.stdout.buffer
            out.write(log_line(message.task_id, message.timestamp, message.data, known, style))
            out.flush()
        if notes and not options.follow:
            raise Unavailable(
                "the logs are incomplete",
                remedy="What is missing is said above; `pyswarm node ls` shows which nodes are connected.",
            )


async def _find(client: ControlClient, name: str) -> tuple[list[str], list[str], TaskList]:
    """Return (service ids, task ids, what is known of their tasks) for a service's or a task's name or id."""
    try:
        service = await client.service(name)
    except NotFound:
        listed = await client.tasks(ids=[name])
        if len(listed.tasks) != 1:
            raise NotFound(
                f"no such service or task: {name}", remedy="`pyswarm service ls` and `service ps` list what there is."
            ) from None
        return [], [listed.tasks[0].id], listed
    return [service.id], [], await client.tasks(service_ids=[service.id])
