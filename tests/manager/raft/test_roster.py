"""One change of members at a time: S5, on the real core and guard."""

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest
from lib.scripted_raft import ScriptedMember, member_named
from msgspec.structs import replace

from pyswarm.manager.raft.codec import AppendReply
from pyswarm.manager.raft.commands import NOOP_COMMAND, MemberChange
from pyswarm.manager.raft.roster import Roster
from pyswarm.manager.raft.rules import ALL_RULES, Rules
from pyswarm.manager.raft.snapshots import SnapshotHeader
from pyswarm.manager.raft.state import Members
from pyswarm.proto.errors import FailedPrecondition, NotLeader


class ReadyOffice:
    """A leader that hears everybody."""

    is_down = False

    def must_have_quorum(self, *, of_all: bool = True) -> None:
        """It has."""

    async def until_ready(self) -> None:
        """It is."""

    def not_leader(self) -> NotLeader:
        return NotLeader(leader="")

    def reachable(self) -> frozenset[str]:
        return frozenset("abcde")

    def wake(self) -> None:
        """The script ticks."""


async def second_removal(monkeypatch: pytest.MonkeyPatch, directory: Path, rules: Rules) -> None:
    """Remove "d" while the removal of "c" is in the log and not committed."""
    a = ScriptedMember(monkeypatch, directory, "bcde", rules=rules)
    a.elect("b", "c")
    for voter in "bc":
        a.hear(voter, AppendReply(1, 99, a.journal.last_index + 1, is_success=True))
    a.tick()
    members = Members(a.journal, rules)
    first = tuple(member_named(name) for name in "abcde")
    members.rebase(SnapshotHeader((NOOP_COMMAND, 0, 0), (NOOP_COMMAND, 1, 0), first))
    a.core.submit_change(MemberChange("rem", member_named("c")), lambda result, why: None)
    a.tick()
    assert set(members.present()) == set("abde")
    roster = Roster(
        ReadyOffice(), own_id="a", members=members, guard=a.guard, core=a.core, transport=cast("Any", a), rules=rules
    )
    async with asyncio.timeout(0.1):
        await roster.remove("d")


async def test_a_change_is_refused_while_another_one_is_not_committed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(FailedPrecondition, match="another change of members"):
        await second_removal(monkeypatch, tmp_path, ALL_RULES)


async def test_without_the_rule_the_second_change_is_proposed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(TimeoutError):
        await second_removal(monkeypatch, tmp_path, replace(ALL_RULES, one_change_at_a_time=False))
