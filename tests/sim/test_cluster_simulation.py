"""Whole clusters under seeded faults: a bounded number of seeds; `make sim-cluster` runs as many as one likes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

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
