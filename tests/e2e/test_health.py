"""Tasks that are probed: they run once well, get connections while ready, and are replaced when they fall ill."""

import pytest
from lib.cluster import Cluster, Replica

from pyswarm.deploy.lab import demo

NAME = "probed"
OFTEN = ("--health-interval", "200ms", "--health-retries", "2", "--health-timeout", "5s")


@pytest.fixture
def probed(cluster: Cluster):
    """One task that is healthy while /tmp/well is there, and ready while it serves the page /ready."""
    cluster.remove_web()  # it may run yet, and holds the port
    image = demo.push_web_image(cluster.lab, "1")
    cluster.pyswarm(
        *("service", "create", "-d", "--name", NAME, "--publish", f"{demo.PORT}:80", "--restart-delay", "200ms"),
        *("--health-cmd", "test -e /tmp/well", *OFTEN, "--health-start-period", "1m"),
        *("--health-start-interval", "200ms"),
        *("--ready-http", "80/ready", "--ready-interval", "200ms", "--ready-retries", "1"),
        *("--pre-stop-cmd", "sh -c 'echo hook has run'", "--drain-delay", "500ms", image),
    )
    yield cluster
    cluster.pyswarm("service", "rm", NAME)
    cluster.until(lambda: not any(cluster.containers(h) for h in cluster.up()), "every container to be gone", 60)


def only(cluster: Cluster, state: str) -> Replica:
    """Wait for the one task in a state, and return it."""
    found: list[Replica] = []

    def look() -> bool:
        found[:] = [r for r in cluster.replicas(NAME) if r.desired == "Running" and r.current.startswith(state)]
        return len(found) == 1

    cluster.until(look, f"a task to be {state}", 30)
    return found[0]


def execute(cluster: Cluster, task: Replica, *command: str) -> None:
    cluster.pyswarm("container", "exec", task.id, *command, on=task.host)


def answers(cluster: Cluster, task: Replica) -> bool:
    try:
        return "pyswarm" in demo.fetch(cluster.lab, cluster.lab.host(task.host).address, timeout_seconds=1)
    except RuntimeError:
        return False


def test_a_task_runs_when_it_is_healthy_and_ready_and_is_replaced_when_it_falls_ill(probed: Cluster):
    task = only(probed, "Starting")
    execute(probed, task, "touch", "/tmp/well")
    assert not answers(probed, task), "it is healthy, but not ready"
    execute(probed, task, "touch", "/tmp/site/ready")
    assert only(probed, "Running").id == task.id
    assert answers(probed, task)

    execute(probed, task, "rm", "/tmp/site/ready")
    probed.until(lambda: not answers(probed, task), "connections to be kept away", 10)
    assert only(probed, "Running").id == task.id
    execute(probed, task, "touch", "/tmp/site/ready")
    probed.until(lambda: answers(probed, task), "connections to be let in again", 10)

    execute(probed, task, "rm", "/tmp/well")
    fresh = only(probed, "Starting")
    assert fresh.id != task.id
    errors = {replica.id: replica.error for replica in probed.replicas(NAME)}
    assert "unhealthy container" in errors[task.id]

    execute(probed, fresh, "touch", "/tmp/well", "/tmp/site/ready")
    only(probed, "Running")
    probed.pyswarm("service", "scale", "-d", f"{NAME}=0")
    probed.until(lambda: not probed.containers(probed.lab.host(fresh.host)), "the container to be stopped", 20)
