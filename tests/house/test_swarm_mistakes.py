"""docs/reference/swarm-mistakes.md names a test for each mistake: all 59 are there, and the tests exist."""

import ast
import re

import pytest
from lib.source import ROOT, tree_of

TABLE = ROOT / "docs" / "reference" / "swarm-mistakes.md"
ROWS = dict(re.findall(r"^\| (\d+) \| .* \| (.*) \|$", TABLE.read_text(), re.MULTILINE))


def test_every_mistake_has_a_row() -> None:
    assert [int(number) for number in ROWS] == list(range(1, 60))


@pytest.mark.parametrize("number", ROWS)
def test_the_tests_of_a_row_exist(number: str) -> None:
    named = re.findall(r"`([^`:]+)::(test_\w+)`", ROWS[number])
    assert named or re.fullmatch(r"no [a-z ]+ yet", ROWS[number]), "a row names tests, or what there is not yet"
    for file, name in named:
        found = tree_of((ROOT / "tests" / file).relative_to(ROOT)).body
        assert name in {node.name for node in found if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
