"""`pyswarm service update`, `scale` and `rollback`: read, change, write; then follow."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import click

from pyswarm.manager.cli.client.control import ControlClient, connect
from pyswarm.manager.cli.client.run import run
from pyswarm.manager.cli.commands.following import follow_unless, run_and_follow
from pyswarm.manager.cli.flags.service_options import update_options
from pyswarm.manager.cli.flags.service_spec import changed_spec, scaled
from pyswarm.manager.cli.flags.values import parse_scale
from pyswarm.manager.cli.progress.convergence import Goal
from pyswarm.manager.cli.progress.follow import goal_before
from pyswarm.manager.cli.settings import Settings, pass_settings
from pyswarm.proto.codec.validate import validate_service_spec
from pyswarm.proto.errors import FailedPrecondition, InvalidArgument
from pyswarm.proto.model.spec import ServiceSpec
from pyswarm.proto.model.states import UpdateState

_ALONE = ("rollback", "pause", "resume")
_FOLLOWING = frozenset({"detach", "quiet"})


@click.command(help="Change a service and follow the update.")
@update_options
@click.argument("name", metavar="SERVICE")
@pass_settings
def update(settings: Settings, /, name: str, detach: bool, quiet: bool, **flags: Any) -> None:
    alone = next((key for key in _ALONE if flags[key]), None)
    if alone is not None:
        others = [key for key, value in flags.items() if key != alone and value not in (None, (), False)]
        if others:
            raise InvalidArgument(
                f"--{alone} cannot be combined with --{others[0].replace('_', '-')}",
                remedy=f"Give --{alone} alone, then update.",
            )
        if alone == "pause":
            run(_pause(settings, name))
            return
        step = _roll_back if alone == "rollback" else _resume
        run_and_follow(step(settings, name, detach=detach, quiet=quiet), look=f"pyswarm service ps {name}")
        return
    run_and_follow(
        _update(
            settings, {name: lambda spec: changed_spec(spec, flags, os.environ)}, _say_name, detach=detach, quiet=quiet
        ),
        look=f"pyswarm service ps {name}",
    )


@click.command(help="Set the number of replicas of services.")
@click.option("-d", "--detach", is_flag=True, help="Exit at once instead of following until it has converged")
@click.argument("wanted", metavar="SERVICE=REPLICAS...", nargs=-1, required=True)
@pass_settings
def scale(settings: Settings, detach: bool, wanted: Sequence[str]) -> None:
    counts = parse_scale(wanted)
    changes = {name: _scaling(count) for name, count in counts.items()}
    run_and_follow(
        _update(
            settings, changes, lambda name: click.echo(f"{name} scaled to {counts[name]}"), detach=detach, quiet=False
        ),
        look=f"pyswarm service ps {' '.join(counts)}",
    )


@click.command(help="Go back to the previous specification of a service.")
@click.option("-d", "--detach", is_flag=True, help="Exit at once instead of following until it has converged")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress")
@click.argument("name", metavar="SERVICE")
@pass_settings
def rollback(settings: Settings, detach: bool, quiet: bool, name: str) -> None:
    run_and_follow(_roll_back(settings, name, detach=detach, quiet=quiet), look=f"pyswarm service ps {name}")


def _scaling(count: int) -> Callable[[ServiceSpec], ServiceSpec]:
    return lambda spec: scaled(spec, count)


def _say_name(name: str) -> None:
    click.echo(name)


async def _update(
    settings: Settings,
    changes: dict[str, Callable[[ServiceSpec], ServiceSpec]],
    say: Callable[[str], None],
    *,
    detach: bool,
    quiet: bool,
) -> None:
    async with connect(settings) as client:
        goals = []
        for name, change in changes.items():
            goals.append(await _write(client, name, change))
            say(name)
        await follow_unless(client, goals, detach=detach, quiet=quiet)


async def _write(client: ControlClient, name: str, change: Callable[[ServiceSpec], ServiceSpec]) -> Goal:
    service = await client.service(name)
    spec = change(service.spec)
    validate_service_spec(spec)
    goal = await goal_before(client, service.id, service.spec.name)
    await client.update_service(service, spec)
    return goal


async def _roll_back(settings: Settings, name: str, *, detach: bool, quiet: bool) -> None:
    async with connect(settings) as client:
        service = await client.service(name)
        if service.previous_spec is None:
            raise FailedPrecondition(
                f"service {service.spec.name} has no previous specification",
                remedy="Only an updated service can be rolled back, once.",
            )
        goal = await goal_before(client, service.id, service.spec.name, is_rollback=True)
        await client.update_service(service, service.previous_spec, rollback=True)
        click.echo(name)
        await follow_unless(client, [goal], detach=detach, quiet=quiet)


async def _pause(settings: Settings, name: str) -> None:
    async with connect(settings) as client:
        await client.hold_update(await client.service(name), resume=False)
        click.echo(name)


async def _resume(settings: Settings, name: str, *, detach: bool, quiet: bool) -> None:
    async with connect(settings) as client:
        service = await client.service(name)
        is_rollback = service.update_status.state is UpdateState.ROLLBACK_PAUSED
        goal = await goal_before(client, service.id, service.spec.name, is_rollback=is_rollback)
        await client.hold_update(service, resume=True)
        click.echo(name)
        await follow_unless(client, [goal], detach=detach, quiet=quiet)
