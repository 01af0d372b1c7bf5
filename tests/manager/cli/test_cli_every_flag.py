"""Every flag of `docker service create` and `update`: it is there, or refused by its name with a reason."""

from typing import Any

import click
import pytest

from pyswarm.manager.cli.commands.service_create import create
from pyswarm.manager.cli.commands.service_update import update

# Docker CLI 28 (cli/command/service/opts.go); those of Windows and of cluster volumes are among them.
BOTH = """
    args cap-add cap-drop credential-spec entrypoint endpoint-mode health-cmd health-interval health-retries
    health-start-interval health-start-period health-timeout hostname image init isolation limit-cpu
    limit-memory limit-pids log-driver log-opt max-concurrent memory-swap memory-swappiness no-healthcheck
    no-resolve-image oom-score-adj read-only replicas replicas-max-per-node reserve-cpu reserve-memory
    restart-condition restart-delay restart-max-attempts restart-window rollback-delay rollback-failure-action
    rollback-max-failure-ratio rollback-monitor rollback-order rollback-parallelism stop-grace-period
    stop-signal tty update-delay update-failure-action update-max-failure-ratio update-monitor update-order
    update-parallelism user with-registry-auth workdir detach quiet
""".split()  # noqa: SIM905
ONLY_CREATE = """
    config constraint container-label dns dns-option dns-search env env-file generic-resource group host label
    mode mount name network placement-pref publish secret sysctl ulimit
""".split()  # noqa: SIM905
ADDED_AND_REMOVED = """
    config constraint container-label dns dns-option dns-search env generic-resource group host label mount
    network placement-pref publish secret sysctl ulimit
""".split()  # noqa: SIM905


def options(command: click.Command) -> set[str]:
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}


@pytest.mark.parametrize("flag", [*(f for f in BOTH if f not in ("args", "image")), *ONLY_CREATE])
def test_create_knows(flag: str) -> None:
    assert f"--{flag}" in options(create)


@pytest.mark.parametrize(
    "flag", [*BOTH, "force", "rollback", *(f"{f}-{way}" for f in ADDED_AND_REMOVED for way in ("add", "rm"))]
)
def test_update_knows(flag: str) -> None:
    assert f"--{flag}" in options(update)


def test_a_flag_that_cannot_be_honoured_says_so(pyswarm: Any, control: Any) -> None:
    said = pyswarm.run("service", "create", "--credential-spec", "file://x", "web:1")
    assert said.status == 125
    assert "--credential-spec is not supported. It is for Windows containers only" in said.err
    assert control.services == {}
