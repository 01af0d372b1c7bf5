"""Updates that go wrong, and updates whose leader dies."""

from collections import Counter
from collections.abc import Iterator

import pytest
from lib.cluster import Cluster

from pyswarm.deploy.lab import demo

NAME = "rolled"


@pytest.fixture
def rolled(cluster: Cluster) -> Iterator[Cluster]:
    """Four replicas that are updated one after the other."""
    cluster.remove_web()  # it may run yet, and is no part of what is waited for below
    image = demo.push_web_image(cluster.lab, "1")
    cluster.pyswarm(
        *("service", "create", "--name", NAME, "--replicas", "4", "--stop-grace-period", "2s"),
        *("--update-parallelism", "1", "--update-monitor", "1s", "--rollback-monitor", "1s", image),
    )
    yield cluster
    cluster.pyswarm("service", "rm", NAME)
    cluster.until(lambda: not any(cluster.containers(h) for h in cluster.up()), "every container to be gone", 60)


def state(cluster: Cluster) -> str:
    return cluster.pyswarm("service", "inspect", "--format", "{{.UpdateStatus.State}}", NAME).strip()


def test_a_canary_that_never_gets_healthy_is_rolled_back_and_the_others_are_left_alone(rolled: Cluster):
    before = {r.id for r in rolled.running(NAME)}
    said = rolled.refused(
        *("service", "update", "--health-cmd", "false", "--update-canary", "1", "--update-progress-deadline", "3s"),
        *("--update-failure-action", "rollback", "--update-order", "start-first", NAME),
        on="m1",
    )
    assert "the update failed and was rolled back" in said
    assert {r.id for r in rolled.running(NAME)} == before, "start-first: not even the canary's slot was disturbed"
    assert state(rolled) == "rollback_completed"


def test_a_new_leader_goes_on_with_an_update_and_makes_nothing_twice(rolled: Cluster):
    """Swarm mistake 34."""
    image = demo.push_web_image(rolled.lab, "2")
    rolled.pyswarm("service", "update", "-d", "--image", image, "--update-delay", "1s", NAME)
    rolled.until(lambda: any(r.image == image for r in rolled.running(NAME)), "the update to begin", 30)
    rolled.lab.kill(rolled.leader())
    rolled.until(lambda: state(rolled) == "completed", "the update to be completed", 60)
    fresh = [r for r in rolled.replicas(NAME) if r.image == image and r.desired == "Running"]
    assert sorted(Counter(r.name for r in fresh).items()) == [(f"{NAME}.{n}", 1) for n in range(1, 5)]
    assert len(rolled.running(NAME)) == 4
