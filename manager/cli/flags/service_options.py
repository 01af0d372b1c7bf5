"""The options of `service create` and `service update`: names, types and help as Docker's; no meaning here.

An option that was not given is None (or empty), so that an update changes only what was named.
"""

from collections.abc import Callable
from typing import Any

import click

from pyswarm.manager.cli.flags.health import HEALTH_OPTIONS
from pyswarm.manager.cli.flags.surroundings import CREATE_SURROUNDINGS, UPDATE_SURROUNDINGS
from pyswarm.manager.cli.flags.types import (
    BYTES,
    CANARY,
    CONCURRENCY,
    COUNT,
    CPUS,
    DURATION,
    OOM_SCORE,
    PLACEMENT_STRATEGY,
    PRIORITY,
    RATIO,
    REBALANCE,
    RESTART_CONDITION,
    ROLLBACK_FAILURE_ACTION,
    UPDATE_FAILURE_ACTION,
    UPDATE_ORDER,
)
from pyswarm.manager.cli.flags.unsupported import UNSUPPORTED_OPTIONS
from pyswarm.proto.model.spec import MODES

_FILE_USE = "NAME or source=…,target=…,uid=…,gid=…,mode=…,propagation=rolling|in-place,signal=…"
"""How a secret or config is given to tasks (`parse_file_use`)."""

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def _many(*names: str, text: str, metavar: str = "TEXT") -> Decorator:
    return click.option(*names, multiple=True, metavar=metavar, help=text)


def _one(*names: str, text: str, kind: Any = str) -> Decorator:
    return click.option(*names, type=kind, help=text)


def _switch(name: str, text: str, *short: str) -> Decorator:
    return click.option("/".join([name, f"--no-{name.removeprefix('--')}"]), *short, default=None, help=text)


_SHARED: tuple[Decorator, ...] = (
    _one("--replicas", kind=COUNT, text="Number of tasks"),
    _one("--entrypoint", text="Overwrite the image's default entrypoint"),
    _one("-w", "--workdir", text="Working directory inside the container"),
    _one("-u", "--user", text="Username or UID (format: <name|uid>[:<group|gid>])"),
    _one("--hostname", text="Container hostname"),
    click.option("-t", "--tty/--no-tty", default=None, help="Allocate a pseudo-TTY"),
    _switch("--init", "Run an init inside each container that forwards signals and reaps processes"),
    _switch("--read-only", "Mount the container's root filesystem read-only"),
    _one("--oom-score-adj", kind=OOM_SCORE, text="Adjust whom the kernel kills first without memory (-1000 to 1000)"),
    _one("--stop-signal", text="Signal to stop the container"),
    _one("--stop-grace-period", kind=DURATION, text="Time before a container is killed (10s)"),
    *HEALTH_OPTIONS,
    _many("--cap-add", text="Add Linux capabilities"),
    _many("--cap-drop", text="Drop Linux capabilities"),
    _one("--limit-cpu", kind=CPUS, text="Limit CPUs"),
    _one("--limit-memory", kind=BYTES, text="Limit memory"),
    _one("--limit-pids", kind=COUNT, text="Limit the number of processes (0: no limit)"),
    _one("--reserve-cpu", kind=CPUS, text="Reserve CPUs"),
    _one("--reserve-memory", kind=BYTES, text="Reserve memory"),
    _one("--reserve-pids", kind=COUNT, text="Reserve a number of processes"),
    _one("--strategy", kind=PLACEMENT_STRATEGY, text="Take the emptiest or the fullest node that fits (spread)"),
    _one("--priority", kind=PRIORITY, text="Of tasks that wait for a node, the highest chooses first (0)"),
    _one("--replicas-max-per-node", kind=COUNT, text="Maximum number of tasks per node (0: no limit)"),
    _one("--restart-condition", kind=RESTART_CONDITION, text="Restart when the condition is met (any)"),
    _one("--restart-delay", kind=DURATION, text="Delay between restart attempts (5s)"),
    _one("--restart-max-attempts", kind=COUNT, text="Restarts before giving up (0: never give up)"),
    _one("--restart-max-delay", kind=DURATION, text="Longest delay in a crash loop (1m; 0: no back-off)"),
    _one("--restart-window", kind=DURATION, text="Window in which attempts are counted (0: for ever)"),
    _one("--update-parallelism", kind=COUNT, text="Tasks updated at once (0: all) (1)"),
    _one("--update-delay", kind=DURATION, text="Delay between updates (0s)"),
    _one("--update-failure-action", kind=UPDATE_FAILURE_ACTION, text="What a failed update does (pause)"),
    _one("--update-monitor", kind=DURATION, text="How long an updated task is watched for failure (5s)"),
    _one("--update-max-failure-ratio", kind=RATIO, text="Failures to tolerate (0)"),
    _one("--update-order", kind=UPDATE_ORDER, text="Which comes first in a slot (stop-first)"),
    _one("--update-progress-deadline", kind=DURATION, text="A task that does not run by then failed (10m; 0: never)"),
    _one("--update-canary", kind=CANARY, text="Tasks updated before those are proven, as in 1,25%"),
    _one("--rollback-parallelism", kind=COUNT, text="Tasks rolled back at once (0: all) (1)"),
    _one("--rollback-delay", kind=DURATION, text="Delay between rollbacks (0s)"),
    _one("--rollback-failure-action", kind=ROLLBACK_FAILURE_ACTION, text="What a failed rollback does (pause)"),
    _one("--rollback-monitor", kind=DURATION, text="How long a rolled back task is watched (5s)"),
    _one("--rollback-max-failure-ratio", kind=RATIO, text="Failures to tolerate (0)"),
    _one("--rollback-order", kind=UPDATE_ORDER, text="Which comes first in a slot (stop-first)"),
    _one("--rollback-progress-deadline", kind=DURATION, text="A task that does not run by then failed (10m; 0: never)"),
    _one("--move-parallelism", kind=COUNT, text="Tasks moved off drained nodes at once (0: a quarter of them) (0)"),
    _one("--move-order", kind=UPDATE_ORDER, text="Which comes first when a task is moved (start-first)"),
    _one("--rebalance", kind=REBALANCE, text="Spread the service again when a node joins or comes back (manual)"),
    _one("--cron", text='Run a job at these moments: minute hour day-of-month month day-of-week ("": no more)'),
    _one("--cron-time-zone", text="Time zone that the schedule is read in (UTC)"),
    _one("--cron-concurrency", kind=CONCURRENCY, text="What becomes of a run while another is active (forbid)"),
    _one("--cron-missed-run-window", kind=DURATION, text="How much later a missed run may still start (5m)"),
    _one("--cron-keep-completed", kind=COUNT, text="Completed runs to remember besides the last run (3)"),
    _one("--cron-keep-failed", kind=COUNT, text="Failed runs to remember besides the last run (1)"),
    _switch("--cron-suspend", "Do not run by the schedule for now"),
    _one("--max-concurrent", kind=COUNT, text="Tasks of a job that run at once (all)"),
    _one("--log-driver", text="Where the output of tasks goes: json-file, local, syslog, journald, none (json-file)"),
    _many("--log-opt", text="Options of the log driver", metavar="NAME=VALUE"),
    _one("--endpoint-mode", kind=click.Choice(["vip", "dnsrr"]), text="Endpoint mode (vip)"),
    click.option("-d", "--detach", is_flag=True, help="Exit at once instead of following until it has converged"),
    click.option("-q", "--quiet", is_flag=True, help="Show no progress"),
    *UNSUPPORTED_OPTIONS,
)

_CREATE: tuple[Decorator, ...] = (
    _one("--name", text="Service name"),
    _many("-l", "--label", text="Service labels", metavar="NAME=VALUE"),
    _many("--container-label", text="Container labels", metavar="NAME=VALUE"),
    _one("--mode", kind=click.Choice(MODES), text="Service mode (replicated)"),
    _many("-e", "--env", text="Set environment variables", metavar="NAME[=VALUE]"),
    click.option(
        "--env-file", multiple=True, type=click.Path(dir_okay=False), help="Read in a file of environment variables"
    ),
    *CREATE_SURROUNDINGS,
    _many("--mount", text="Attach a directory of the node or a tmpfs", metavar="type=…,source=…,target=…"),
    _many("--secret", text="Give tasks a secret", metavar=_FILE_USE),
    _many("--config", text="Give tasks a config", metavar=_FILE_USE),
    _many("-p", "--publish", text="Publish a port", metavar="[PUBLISHED:]TARGET[/PROTOCOL]"),
    _many("--constraint", text="Placement constraints", metavar="node.labels.NAME==VALUE"),
    _many("--affinity", text="Be near to (==) or away from (!=) a service", metavar="service!=NAME[@node.labels.NAME]"),
    _many("--generic-resource", text="Reserve generic resources", metavar="KIND=NUMBER"),
    _many("--placement-pref", text="Placement preferences", metavar="spread=node.labels.NAME"),
)

_UPDATE: tuple[Decorator, ...] = (
    _one("--image", text="Service image"),
    _one("--args", text="Command arguments"),
    click.option("--force", is_flag=True, help="Replace all tasks even if nothing changed"),
    click.option("--rollback", is_flag=True, help="Go back to the previous specification"),
    click.option("--pause", is_flag=True, help="Pause the update that is under way"),
    click.option("--resume", is_flag=True, help="Let a paused update go on"),
    _many("--label-add", text="Add or change a service label", metavar="NAME=VALUE"),
    _many("--label-rm", text="Remove a service label", metavar="NAME"),
    _many("--container-label-add", text="Add or change a container label", metavar="NAME=VALUE"),
    _many("--container-label-rm", text="Remove a container label", metavar="NAME"),
    _many("--env-add", text="Add or change an environment variable", metavar="NAME[=VALUE]"),
    _many("--env-rm", text="Remove an environment variable", metavar="NAME"),
    *UPDATE_SURROUNDINGS,
    _many("--mount-add", text="Add or change a mount", metavar="type=…,source=…,target=…"),
    _many("--secret-add", text="Give tasks a secret", metavar=_FILE_USE),
    _many("--secret-rm", text="Take a secret out", metavar="NAME"),
    _many("--config-add", text="Give tasks a config", metavar=_FILE_USE),
    _many("--config-rm", text="Take a config out", metavar="NAME"),
    _many("--mount-rm", text="Remove a mount by its target path", metavar="TARGET"),
    _many("--publish-add", text="Add or change a published port", metavar="[PUBLISHED:]TARGET[/PROTOCOL]"),
    _many("--publish-rm", text="Remove a published port by its target port", metavar="TARGET[/PROTOCOL]"),
    _many("--constraint-add", text="Add a placement constraint", metavar="CONSTRAINT"),
    _many("--constraint-rm", text="Remove a placement constraint", metavar="CONSTRAINT"),
    _many("--affinity-add", text="Add an affinity", metavar="AFFINITY"),
    _many("--affinity-rm", text="Remove an affinity", metavar="AFFINITY"),
    _many("--generic-resource-add", text="Add or change a reserved generic resource", metavar="KIND=NUMBER"),
    _many("--generic-resource-rm", text="Remove a reserved generic resource", metavar="KIND"),
    _many("--placement-pref-add", text="Add a placement preference", metavar="spread=…"),
    _many("--placement-pref-rm", text="Remove a placement preference", metavar="spread=…"),
)


def create_options(command: Callable[..., Any]) -> Callable[..., Any]:
    return _decorated(command, (*_CREATE, *_SHARED))


def update_options(command: Callable[..., Any]) -> Callable[..., Any]:
    return _decorated(command, (*_UPDATE, *_SHARED))


def _decorated(command: Callable[..., Any], decorators: tuple[Decorator, ...]) -> Callable[..., Any]:
    # Click lists options in the order of decorators from top to bottom, which is the reverse of application.
    for decorator in reversed(decorators):
        command = decorator(command)
    return command
