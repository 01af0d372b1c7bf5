"""A member that comes back under another address is found there: by whom it greets, by all once the log says so."""

from pathlib import Path

from lib.raft_lab import SETTINGS, LabMember, caught_up, eventually, free_port, raft_lab
from msgspec.structs import replace

from pyswarm.manager.raft.addresses import AddressBook
from pyswarm.manager.raft.core import FAIL_REASON, Callback
from pyswarm.manager.raft.port import Member

COMPACTING = replace(SETTINGS, snapshot_entries=50, snapshot_tail_entries=10)


def moved(member: LabMember) -> Member:
    port = free_port()
    return replace(member.member, raft_addr=f"127.0.0.1:{port}", api_addr=f"127.0.0.1:{port + 1}")


async def test_a_follower_that_has_moved_is_found_and_the_log_says_where(tmp_path: Path) -> None:
    async with raft_lab(tmp_path, 3) as lab:
        leader = await lab.leader()
        follower, other = await lab.followers()
        await follower.stop()
        follower.member = moved(follower)
        await follower.start()
        for member in lab.members:
            await eventually(lambda m=member: follower.member in m.engine.members())  # type: ignore[misc]
        await other.stop()
        index, _ = await leader.engine.propose(b"the moved one is needed for this")
        await caught_up(follower, index)


async def test_a_leader_that_has_moved_is_found_and_can_lead_again(tmp_path: Path) -> None:
    async with raft_lab(tmp_path, 3) as lab:
        leader = await lab.leader()
        await leader.stop()
        leader.member = moved(leader)
        await leader.start()
        for member in lab.members:
            await eventually(lambda m=member: leader.member in m.engine.members())  # type: ignore[misc]
        while (await lab.leader()) is not leader:
            await (await lab.leader()).engine.transfer_leadership()
        for member in lab.members:
            await eventually(lambda m=member: m.engine.leadership.leader == leader.member)  # type: ignore[misc]


async def test_a_member_alone_that_has_moved_says_so_in_its_log(tmp_path: Path) -> None:
    async with raft_lab(tmp_path, 1) as lab:
        (only,) = lab.members
        await only.stop()
        only.member = moved(only)
        await only.start()
        await eventually(lambda: only.engine.members() == (only.member,))
        watch = only.engine.watch_members()
        assert await anext(watch) == (only.member,)


async def test_where_a_member_went_outlasts_compaction_and_the_restart_of_everybody(tmp_path: Path) -> None:
    async with raft_lab(tmp_path, 3, COMPACTING) as lab:
        leader = await lab.leader()
        follower, other = await lab.followers()
        await follower.stop()
        follower.member = moved(follower)
        await follower.start()
        await eventually(lambda: follower.member in leader.engine.members())
        for _ in range(150):
            index, _ = await leader.engine.propose(b"x")
        await caught_up(other, index)
        for member in lab.members:
            await member.stop()
        for member in lab.members:
            await member.start()
        for member in lab.members:
            assert follower.member in member.engine.members()
        await (await lab.leader()).engine.propose(b"all together again")


class Known:
    """Stands for the members that the log has, and for the links."""

    def __init__(self, *members: Member) -> None:
        self.members = {m.raft_id: m for m in members}
        self.dialled: list[Member] = []
        self.submitted: list[tuple[Member, Callback]] = []

    def present(self) -> dict[str, Member]:
        return dict(self.members)

    def known(self, raft_id: str) -> Member | None:
        return self.members.get(raft_id)

    def move_peer(self, member: Member) -> None:
        self.dialled.append(member)

    def book(self, own: Member) -> AddressBook:
        return AddressBook(
            own=own, members=self, links=self,  # type: ignore[arg-type]
            submit=lambda member, callback: self.submitted.append((member, callback)),
        )  # fmt: skip


A, B, B2, B3 = (Member(n[0], f"node-{n[0]}", f"10.0.0.{n}:7946", f"10.0.0.{n}:2377") for n in ("a", "b", "b2", "b3"))


def test_one_move_at_a_time_goes_into_the_log_and_one_that_failed_goes_again() -> None:
    known = Known(A, B)
    book = known.book(A)
    book.announce()
    assert known.submitted == []
    book.told(B2)
    assert book.find("b") == B2
    book.announce()
    book.announce()
    ((member, done),) = known.submitted
    assert member == B2
    done(None, FAIL_REASON.LEADER_CHANGED)
    book.announce()
    assert [m for m, _ in known.submitted] == [B2, B2]


def test_the_logs_word_is_dialled_unless_something_newer_was_heard() -> None:
    known = Known(A, B)
    book = known.book(A)
    known.members["b"] = B2
    book.log_changed()
    assert known.dialled == [B2]
    book.told(B3)
    known.members["b"] = B
    book.log_changed()
    assert known.dialled == [B2]
    assert book.find("b") == B3
    known.members["b"] = B3
    book.log_changed()
    book.announce()
    assert known.submitted == []
    assert book.board.present == (A, B3)


def test_nothing_is_kept_of_one_that_is_no_member() -> None:
    known = Known(A, B)
    book = known.book(A)
    book.told(B2)
    del known.members["b"]
    book.log_changed()
    book.announce()
    assert known.submitted == []
    book.told(B2)
    book.announce()
    assert known.submitted == []
