"""Every repair is needed: without it some test is red. mutations.py takes the rules out, one after the other."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pyswarm.manager.raft.rules import Rules

MUTATIONS = Path(__file__).with_name("mutations.py")


def judged(*rules: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, MUTATIONS, *rules],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
        cwd=MUTATIONS.parent,
    )
    assert done.stdout, done.stderr[-2000:]
    return done.returncode, done.stdout


@pytest.mark.timeout(300)
def test_each_rule_switched_off_turns_a_test_red() -> None:
    code, output = judged()
    assert code == 0, output[-4000:]
    figures = json.loads(output.splitlines()[-1])
    assert set(figures["red"]) == set(Rules.__struct_fields__)
    assert figures["survived"] == []
