"""The options about health: how a task is probed, and how it ends. Their names, and what they make of a spec."""

from collections.abc import Callable, Mapping
from typing import Any

import click
from msgspec.structs import replace

from pyswarm.manager.cli.flags.types import COUNT, DURATION
from pyswarm.manager.cli.flags.words import words_of
from pyswarm.proto.errors import InvalidArgument
from pyswarm.proto.model.spec import ContainerSpec, HealthConfig

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def _timing(prefix: str, what: str) -> tuple[Decorator, ...]:
    return (
        click.option(f"--{prefix}-interval", type=DURATION, help=f"Time between {what}s (30s)"),
        click.option(f"--{prefix}-timeout", type=DURATION, help=f"Longest time a {what} may take (30s)"),
        click.option(f"--{prefix}-retries", type=COUNT, help="Failures in a row that count as one (3)"),
    )


HEALTH_OPTIONS: tuple[Decorator, ...] = (
    click.option("--health-cmd", help="Command that tells whether the container is healthy"),
    click.option("--health-http", metavar="PORT/PATH", help="Page that tells whether the container is healthy"),
    click.option("--health-tcp", metavar="PORT", help="Port that is open while the container is healthy"),
    *_timing("health", "health check"),
    click.option("--health-start-period", type=DURATION, help="Time to start in which failures do not count (0s)"),
    click.option("--health-start-interval", type=DURATION, help="Time between checks while it starts (5s)"),
    click.option("--no-healthcheck", is_flag=True, help="Ignore the HEALTHCHECK of the image"),
    click.option("--ready-cmd", help="Command that tells whether the container may get connections"),
    click.option("--ready-http", metavar="PORT/PATH", help="Page that tells whether it may get connections"),
    click.option("--ready-tcp", metavar="PORT", help="Port that is open while it may get connections"),
    *_timing("ready", "readiness check"),
    click.option("--pre-stop-cmd", help="Command to execute in the container before it is stopped"),
    click.option("--drain-delay", type=DURATION, help="Time from the last new connection to the stop signal (0s)"),
)


def with_health(container: ContainerSpec, flags: Mapping[str, Any]) -> ContainerSpec:
    """Return the container with what the flags say about health. Raises InvalidArgument."""
    hook, delay = flags.get("pre_stop_cmd"), flags.get("drain_delay")
    return replace(
        container,
        healthcheck=_check(container.healthcheck, flags, "health"),
        readiness=_check(container.readiness, flags, "ready"),
        pre_stop=container.pre_stop if hook is None else words_of("--pre-stop-cmd", hook),
        drain_delay_seconds=container.drain_delay_seconds if delay is None else delay,
    )


def _check(config: HealthConfig, flags: Mapping[str, Any], prefix: str) -> HealthConfig:
    values = {
        "test": _test(flags, prefix),
        "interval_seconds": flags.get(f"{prefix}_interval"),
        "timeout_seconds": flags.get(f"{prefix}_timeout"),
        "retries": flags.get(f"{prefix}_retries"),
        "start_period_seconds": flags.get(f"{prefix}_start_period"),
        "start_interval_seconds": flags.get(f"{prefix}_start_interval"),
    }
    given = {name: value for name, value in values.items() if value is not None}
    if prefix == "health" and flags.get("no_healthcheck"):
        if given:
            raise InvalidArgument("--no-healthcheck conflicts with --health-* options", remedy="Leave out either.")
        return HealthConfig(test=("NONE",))
    if given and config.test == ("NONE",):
        config = HealthConfig()
    # No test any more: its settings go with it.
    return HealthConfig() if given.get("test") == () and len(given) == 1 else replace(config, **given)


def _test(flags: Mapping[str, Any], prefix: str) -> tuple[str, ...] | None:
    """Return the test that the flags name; () for an empty command, which takes the check out."""
    kinds = {"cmd": "CMD-SHELL", "http": "HTTP", "tcp": "TCP"}
    texts = ((kind, flags.get(f"{prefix}_{flag}")) for flag, kind in kinds.items())
    given = [(kind, text) for kind, text in texts if text is not None]
    if not given:
        return None
    if len(given) > 1:
        names = f"--{prefix}-cmd, --{prefix}-http and --{prefix}-tcp"
        raise InvalidArgument(f"{names} exclude each other", remedy="Give one of them.")
    kind, text = given[0]
    return (kind, text) if text else ()
