"""A bounded number of seeds of the simulator; `make sim` runs thousands."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(300)
RUN = Path(__file__).with_name("run.py")
SEEDS = 96
"""Eight of each mix."""


def simulated(*options: str, hash_seed: str = "random") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, RUN, *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
        env={"PYTHONHASHSEED": hash_seed, "PATH": ""},
    )


@cache
def digests(first: int, hash_seed: str) -> tuple[str, ...]:
    done = simulated("--seeds", "12", "--first", str(first), "--digest", "--processes", "1", hash_seed=hash_seed)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return tuple(line for line in done.stdout.splitlines() if line.split(" ", 1)[0].isdecimal())


def test_no_seed_breaks_a_promise() -> None:
    done = simulated("--seeds", str(SEEDS))
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["seeds"] == SEEDS
    assert figures["acknowledged"] > SEEDS * 20, "clients that are hardly ever answered prove nothing"
    assert figures["faults"] > SEEDS * 3


def test_a_seed_is_the_same_run_in_every_process() -> None:
    one, two = digests(1000, "1"), digests(1000, "2")
    assert len(one) == 12
    assert one == two


@pytest.mark.parametrize("first", [2000])
def test_another_seed_is_another_run(first: int) -> None:
    assert not {line.split()[1] for line in digests(1000, "1")} & {line.split()[1] for line in digests(first, "1")}
