"""Whole clusters under seeded faults: a bounded number of seeds; `make sim-cluster` runs as many as one likes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from lib.builders import a_node, a_revision, a_service, a_task
from lib.cluster_sim.judge import InvariantBroken, Judge
from msgspec.structs import replace

from pyswarm.manager.store.changes import Create, Update
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.manager.store.store import Commit
from pyswarm.proto.model.states import NodeState, TaskState

RUN = Path(__file__).with_name("run_cluster.py")
SEEDS = 40


def simulated(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, RUN, *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.timeout(300)
def test_no_seed_breaks_a_promise_and_every_cluster_converges() -> None:
    done = simulated("--seeds", str(SEEDS))
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["seeds"] == SEEDS
    assert figures["faults"] > SEEDS * 5, "clusters to which nothing happens prove nothing"
    assert figures["nodes_lost"] > SEEDS / 2
    assert figures["placements"] > SEEDS * 10
    assert figures["scheduled_runs"] > SEEDS / 4
    assert figures["completions"] > SEEDS


@pytest.mark.timeout(120)
def test_a_seed_is_the_same_run_in_every_process() -> None:
    one = simulated("--seeds", "3", "--first", "5000", "--digest", "--processes", "1")
    two = simulated("--seeds", "3", "--first", "5000", "--digest", "--processes", "2")
    assert one.stdout.splitlines()[:3] == two.stdout.splitlines()[:3]
    assert len({line.split()[1] for line in one.stdout.splitlines()[:3]}) == 3


def test_the_judge_sees_a_node_that_is_declared_down_for_nothing() -> None:
    node = a_node("n1")
    seen = Snapshot.of(node, version=1)
    down = replace(node, status=replace(node.status, state=NodeState.DOWN))
    after, events = seen.step([Update(down)], version=2)

    class NeverOut:
        outages: tuple[tuple[float, float | None], ...] = ()

    judge = Judge({"n1": NeverOut()})  # type: ignore[dict-item]
    with pytest.raises(InvariantBroken, match="blip"):
        judge.committed(Commit(2, events, after), 1000.0)


def test_the_judge_sees_a_task_on_a_node_that_its_constraint_refuses() -> None:

    service = a_service("web", constraints=("node.labels.zone==a",))
    node = a_node("n1", labels={"zone": "b"})
    seen = Snapshot.of(node, service, a_revision(service), version=1)
    task = a_task("t1", service=service, node=node, state=TaskState.ASSIGNED, version=0)
    after, events = seen.step([Create(task)], version=2)
    with pytest.raises(InvariantBroken, match="against"):
        Judge({}).committed(Commit(2, events, after), 1000.0)
