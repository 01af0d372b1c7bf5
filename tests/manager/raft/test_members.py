"""Who is a member and who never again, over compactions and restarts."""

import asyncio
from pathlib import Path

import pytest
from lib.raft_lab import SETTINGS, LabMember, caught_up, eventually, raft_lab
from msgspec.structs import replace

from pyswarm.manager.raft.codec import Removed, encode_frame
from pyswarm.manager.raft.commands import MEMBERSHIP, NOOP_COMMAND, MemberChange, encode_change
from pyswarm.manager.raft.journal import Journal
from pyswarm.manager.raft.membership import REMOVED_MAX, removed_after
from pyswarm.manager.raft.port import Member
from pyswarm.manager.raft.rules import ALL_RULES, Rules
from pyswarm.manager.raft.snapshots import SnapshotHeader
from pyswarm.manager.raft.state import Members
from pyswarm.proto.errors import AlreadyExists, NodeRemoved
from pyswarm.proto.rpc.tls import raft_ssl_contexts

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


async def test_members_whose_nodes_were_removed_learn_it_from_who_is_left_and_make_no_group_of_their_own(
    tmp_path: Path,
) -> None:
    async with raft_lab(tmp_path, 3) as lab:
        left, *gone = lab.members
        await left.stop()
        leader = await lab.leader()
        await leader.engine.propose(b"two of three go on")
        left.removed_nodes = {member.member.node_id for member in gone}
        await left.start()
        for member in gone:
            await eventually(lambda m=member: m.engine.removal is not None)  # type: ignore[misc]
            assert not member.engine.leadership.is_leader
            assert member.engine.leadership.leader is None
            for refused in (
                member.engine.propose(b"x"), member.engine.read_barrier(), member.engine.transfer_leadership(),
            ):  # fmt: skip
                with pytest.raises(NodeRemoved, match="says manager node-1"):
                    await refused
            with pytest.raises(NodeRemoved):
                member.engine.report()

        # Nor when nobody is there to say it again.
        await left.stop()
        for member in gone:
            await member.stop()
            await member.start()
            assert member.engine.removal is not None
            with pytest.raises(NodeRemoved, match=r"says manager node-1[\s\S]*leave --force"):
                await member.engine.propose(b"x")


async def test_a_removal_that_names_another_node_is_no_removal_of_this_one(tmp_path: Path) -> None:
    async with raft_lab(tmp_path, 1) as lab:
        (member,) = lab.members
        peer = lab.certificates.issue(tmp_path / "peer", "node-9")
        server_context, _ = raft_ssl_contexts(peer)
        said = asyncio.get_running_loop().create_future()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(4)
            writer.write(encode_frame(Removed("node-2")))
            writer.close()
            await writer.wait_closed()
            if not said.done():
                said.set_result(None)

        async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=server_context) as server:
            host, port = server.sockets[0].getsockname()
            member.engine._transport.add_peer(Member("raft-9", "node-9", f"{host}:{port}", "x:1"))
            async with asyncio.timeout(10):
                await said
            await member.engine.propose(b"still here")
            member.engine._transport.drop_peer("raft-9")
        assert member.engine.removal is None
