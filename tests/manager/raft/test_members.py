"""Who is a member and who never again, over compactions and restarts."""

from pathlib import Path

import pytest
from lib.raft_lab import SETTINGS, LabMember, caught_up, eventually, raft_lab
from msgspec.structs import replace

from pyswarm.manager.raft.commands import MEMBERSHIP, NOOP_COMMAND, MemberChange, encode_change
from pyswarm.manager.raft.journal import Journal
from pyswarm.manager.raft.membership import REMOVED_MAX, removed_after
from pyswarm.manager.raft.port import Member
from pyswarm.manager.raft.rules import ALL_RULES, Rules
from pyswarm.manager.raft.snapshots import SnapshotHeader
from pyswarm.manager.raft.state import Members
from pyswarm.proto.errors import AlreadyExists

COMPACTING = replace(SETTINGS, snapshot_entries=50, snapshot_tail_entries=10)


def named(raft_id: str) -> Member:
    return Member(raft_id, f"node-{raft_id}", "", "")


def restarted(rules: Rules = ALL_RULES) -> Members:
    """The members of {a, b} as of entry 2, with a removal of b in the log that is not known to be committed."""
    journal = Journal()
    for entry in [(NOOP_COMMAND, 1, 0), (NOOP_COMMAND, 2, 0)]:
        journal.add(*entry)
    journal.add(bytes([MEMBERSHIP]) + encode_change(MemberChange("rem", named("b"))), 3, 1)
    members = Members(journal, rules)
    members.rebase(SnapshotHeader((NOOP_COMMAND, 1, 0), (NOOP_COMMAND, 2, 0), (named("a"), named("b")), removed=("z",)))
    return members


def test_after_a_restart_a_change_in_the_log_is_in_force() -> None:
    """S12."""
    members = restarted()
    assert set(members.present()) == {"a"}
    assert members.was_removed("b")


def test_without_the_rule_a_restarted_member_counts_by_another_configuration() -> None:
    assert set(restarted(replace(ALL_RULES, members_from_log=False)).present()) == {"a", "b"}


def test_what_a_snapshot_says_was_removed_stays_removed() -> None:
    assert restarted().was_removed("z")
    assert not restarted(replace(ALL_RULES, refuse_removed=False)).was_removed("z")
    assert restarted().removed_at(2) == ("z",)
    assert restarted().removed_at(3) == ("z", "b")


def test_the_removed_that_are_remembered_are_bounded_and_the_oldest_go_first() -> None:
    base = [str(n) for n in range(REMOVED_MAX)]
    kept = removed_after(base, [(9, MemberChange("rem", named("new")))], beyond=0)
    assert len(kept) == REMOVED_MAX
    assert kept[0] == "1"
    assert kept[-1] == "new"


async def test_a_removed_id_is_refused_after_compaction_and_restart_of_everybody(tmp_path: Path) -> None:
    async with raft_lab(tmp_path, 3, COMPACTING) as lab:
        leader = await lab.leader()
        gone: LabMember = next(m for m in lab.members if m is not leader)
        await leader.engine.remove_member(gone.member.raft_id)
        await gone.stop()
        before = leader.engine._state.header
        assert before is not None
        for _ in range(200):
            index, _ = await leader.engine.propose(b"x")
        others = [m for m in lab.members if m is not gone]
        for member in others:
            await caught_up(member, index)
            await eventually(lambda m=member: m.engine._state.header.index > before.index + 50)  # type: ignore[misc]
        for member in others:
            await member.stop()
        for member in others:
            await member.start()
        leader = await lab.leader()
        with pytest.raises(AlreadyExists):
            await leader.engine.add_member(gone.member)
        assert "was removed" in leader.engine.admit(gone.member)
