"""What a group is worth, from what its members say; and what a real member says of itself."""

from pathlib import Path

import pytest
from lib.raft_lab import RaftLab, caught_up, eventually, raft_lab

from pyswarm.manager.raft.port import Member
from pyswarm.manager.raft.status import GroupStatus, MemberReport, PeerReport, Quorum, RaftRole, group_status

A, B, C = (Member(f"raft-{n}", f"node-{n}", f"10.0.0.{n}:7946", f"10.0.0.{n}:2377") for n in (1, 2, 3))


def a_report(
    member: Member,
    role: RaftRole = RaftRole.FOLLOWER,
    *,
    in_reach: tuple[Member, ...] = (),
    peers: tuple[PeerReport, ...] = (),
    last: int = 100,
    term: int = 4,
) -> MemberReport:
    return MemberReport(
        member=member,
        role=role,
        is_voter=True,
        term=term,
        leader_raft_id="",
        in_reach=tuple(m.raft_id for m in in_reach),
        has_quorum=role is RaftRole.LEADER and len(in_reach) >= 2,
        commit_index=last,
        applied_index=last,
        last_index=last,
        durable_index=last,
        snapshot_index=50,
        journal_bytes=1000,
        peers=peers,
    )


def a_peer(member: Member, match: int | None, contact: float | None = 0.1) -> PeerReport:
    return PeerReport(raft_id=member.raft_id, is_linked=True, contact_seconds=contact, match_index=match)


LEADER = a_report(A, RaftRole.LEADER, in_reach=(A, B, C), peers=(a_peer(B, 100), a_peer(C, 93, 0.4)))


@pytest.mark.parametrize(
    ("reports", "quorum", "reached", "tolerance"),
    [
        pytest.param([LEADER, a_report(B), a_report(C)], Quorum.HELD, 3, 1, id="a whole group bears one loss"),
        pytest.param(
            [a_report(A, RaftRole.LEADER, in_reach=(A, B)), a_report(B)], Quorum.HELD, 2, 0, id="the last majority"
        ),
        pytest.param([LEADER], Quorum.HELD, 3, 1, id="whom the leader hears counts, whoever answers this one"),
        pytest.param([a_report(B), a_report(C)], Quorum.ELECTING, 2, 0, id="a majority without a leader elects"),
        pytest.param(
            [a_report(A, RaftRole.LEADER, in_reach=(A,)), a_report(B)],
            Quorum.ELECTING,
            2,
            0,
            id="a leader that no majority answers leads nobody",
        ),
        pytest.param([a_report(A, RaftRole.LEADER, in_reach=(A,))], Quorum.LOST, 1, 0, id="one of three is lost"),
    ],
)
def test_the_quorum_is_what_the_leader_reaches(
    reports: list[MemberReport], quorum: Quorum, reached: int, tolerance: int
) -> None:
    status = group_status([A, B, C], reports, asked=reports[0].member)
    assert (status.quorum, status.reached, status.fault_tolerance) == (quorum, reached, tolerance)
    assert (status.voters, status.needed) == (3, 2)


def test_of_two_leaders_the_one_of_the_newer_term_counts() -> None:
    newer = a_report(B, RaftRole.LEADER, in_reach=(B, C), term=5)
    assert group_status([A, B, C], [LEADER, newer], asked=A).leader == B


def test_lag_and_contact_are_the_leaders_word() -> None:
    rows = group_status([C, B, A], [a_report(C, last=40), LEADER], asked=C).standings
    assert [(r.member, r.lag, r.contact_seconds) for r in rows] == [(A, 0, None), (B, 0, 0.1), (C, 7, 0.4)]
    assert rows[1].report is None, "it was not asked"


def test_without_a_leader_the_longest_log_and_the_one_who_was_asked_stand_in() -> None:
    asked = a_report(B, last=90, peers=(a_peer(A, None, None), a_peer(C, None, 2.5)))
    rows = group_status([A, B, C], [asked, a_report(C, last=100)], asked=B).standings
    assert [(r.lag, r.contact_seconds) for r in rows] == [(None, None), (10, None), (0, 2.5)]


def seen_by_all(lab: RaftLab) -> GroupStatus:
    running = [m for m in lab.members if m.is_running]
    return group_status(running[0].engine.members(), [m.engine.report() for m in running], asked=running[0].member)


async def test_a_real_group_reports_its_leader_its_logs_and_its_losses(tmp_path: Path) -> None:
    async with raft_lab(tmp_path, 3) as lab:
        leader = await lab.leader()
        index, _ = await leader.engine.propose(bytes(5000))
        for member in lab.members:
            await caught_up(member, index)
        # A follower learns what is committed with the next append; the leader learns that it is durable there.
        await eventually(lambda: all(s.lag == 0 for s in seen_by_all(lab).standings))
        status = seen_by_all(lab)
        assert (status.quorum, status.leader, status.fault_tolerance) == (Quorum.HELD, leader.member, 1)
        for standing in status.standings:
            report = standing.report
            assert report is not None
            assert report.is_voter
            assert report.role is (RaftRole.LEADER if standing.member == leader.member else RaftRole.FOLLOWER)
            assert report.leader_raft_id == leader.member.raft_id
            assert report.term == status.term
            assert report.applied_index == report.commit_index == report.last_index == report.durable_index == index
            assert report.journal_bytes > 5000
            assert (standing.contact_seconds is None) == (standing.member == leader.member)

        followers = await lab.followers()
        await followers[0].kill()
        await eventually(lambda: seen_by_all(lab).fault_tolerance == 0)
        assert seen_by_all(lab).quorum is Quorum.HELD
        await followers[1].kill()
        await eventually(lambda: seen_by_all(lab).quorum is Quorum.LOST)
        await eventually(lambda: leader.engine.report().role is RaftRole.FOLLOWER)
        assert not leader.engine.report().has_quorum


async def test_a_member_that_was_not_admitted_yet_says_so(tmp_path: Path) -> None:
    async with raft_lab(tmp_path, 1) as lab:
        founder = lab.members[0]
        assert founder.engine.report().peers == ()
        joiner = await lab.join()
        await eventually(lambda: joiner.engine.report().is_voter)
        await founder.engine.remove_member(joiner.member.raft_id)
        assert [p.raft_id for p in founder.engine.report().peers] == []
