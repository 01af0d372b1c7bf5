"""The stories in transcripts/, played and compared. `REWRITE=1` writes down what happens today instead."""

import os
from pathlib import Path

import pytest
from lib.sim.transcript import parse, played

TRANSCRIPTS = sorted(Path(__file__).with_name("transcripts").glob("*.txt"))


@pytest.mark.parametrize("file", [pytest.param(file, id=file.stem) for file in TRANSCRIPTS])
def test_a_story_goes_as_it_is_told(file: Path) -> None:
    told = parse(file.read_text())
    now = str(played(told))
    if os.environ.get("REWRITE"):
        file.write_text(now)
    assert now == str(told)
