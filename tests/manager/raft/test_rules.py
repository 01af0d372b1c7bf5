"""The repairs can be switched off by tests, never by a manager."""

from pathlib import Path

import pytest
from lib.raft_lab import RaftLab
from msgspec.structs import replace

from pyswarm.manager.raft.rules import ALL_RULES, Rules, broken
from pyswarm.manager.raft.settings import RaftSettings
from pyswarm.proto.errors import InvalidArgument


def test_every_rule_is_in_force_unless_it_is_switched_off() -> None:
    assert broken(RaftSettings().rules) == ()
    assert broken(replace(ALL_RULES, pre_vote=False, bound_commit=False)) == ("bound_commit", "pre_vote")


@pytest.mark.parametrize("name", Rules.__struct_fields__)
async def test_a_manager_does_not_start_without_a_rule(tmp_path: Path, name: str) -> None:
    lab = RaftLab(tmp_path, RaftSettings(rules=replace(ALL_RULES, **{name: False})))
    with pytest.raises(InvalidArgument, match=name):
        await lab.first()
