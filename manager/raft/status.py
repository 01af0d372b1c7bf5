"""What one member says of itself, and what its group is worth, from what the members say (pure).

A report is one member's own view at one moment; only the leader's view of its followers decides whether there is a
quorum, because a majority that answers an administrator need not reach each other. The engine makes reports, the API
(manager/api/raft_status.py) collects them from the others.
"""

import enum
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from pyswarm.manager.raft.membership import majority
from pyswarm.manager.raft.port import Member


class RaftRole(enum.IntEnum):
    UNSET = 0
    LEADER = 1
    FOLLOWER = 2
    CANDIDATE = 3
    JOINING = 4
    """Not in the group, as far as its own log says: it was not admitted yet, or it was removed."""


class PeerReport(Struct, frozen=True, kw_only=True):
    """Another member as the reporting one sees it. What only a leader knows is None elsewhere."""

    raft_id: str
    is_linked: bool
    contact_seconds: float | None = None
    """How long ago it said anything; None: never since the reporting member started."""
    match_index: int | None = None
    """It holds all entries up to this one, durably."""


class MemberReport(Struct, frozen=True, kw_only=True):
    """Sizes are bytes, indexes those of the log."""

    member: Member
    role: RaftRole
    is_voter: bool
    term: int
    leader_raft_id: str
    in_reach: tuple[str, ...]
    """Raft ids, its own included: whom a leader heard within an election timeout, whom another member is linked to."""
    has_quorum: bool
    """Whether it leads and a majority is in its reach."""
    commit_index: int
    applied_index: int
    last_index: int
    durable_index: int
    snapshot_index: int
    journal_bytes: int
    peers: tuple[PeerReport, ...] = ()


class Quorum(enum.IntEnum):
    UNSET = 0
    HELD = 1
    """A leader reaches a majority: writes are committed."""
    ELECTING = 2
    """A majority can be asked, but none of them leads with a majority behind it."""
    LOST = 3


class Standing(Struct, frozen=True, kw_only=True):
    """One member's row."""

    member: Member
    report: MemberReport | None
    """None when it could not be asked."""
    lag: int | None
    """Entries of the leader's log that it does not hold durably; None when nobody knows."""
    contact_seconds: float | None
    """How long ago the leader heard it, or the manager that answers if there is no leader; None for that one itself."""


class GroupStatus(Struct, frozen=True, kw_only=True):
    quorum: Quorum
    leader: Member | None
    """The leader that holds the quorum."""
    term: int
    """The highest that was reported."""
    voters: int
    needed: int
    reached: int
    fault_tolerance: int
    """How many more of the members in reach may fail before the quorum is lost."""
    standings: tuple[Standing, ...]


def group_status(members: Sequence[Member], reports: Iterable[MemberReport], *, asked: Member) -> GroupStatus:
    """Return what the group of `members` is worth, from the reports of those that answered `asked` (its own too)."""
    by_id = {report.member.raft_id: report for report in reports}
    leaders = [r for r in by_id.values() if r.role is RaftRole.LEADER and r.has_quorum]
    leader = max(leaders, key=lambda r: r.term, default=None)
    witness = leader or by_id.get(asked.raft_id)
    seen = {peer.raft_id: peer for peer in witness.peers} if witness is not None else {}
    ids = {member.raft_id for member in members}
    needed = majority(len(ids))
    reached = len(ids & set(leader.in_reach if leader is not None else by_id))
    longest = max((r.last_index for r in by_id.values()), default=0)
    return GroupStatus(
        quorum=_quorum(leader, reached=reached, needed=needed),
        leader=leader.member if leader is not None else None,
        term=max((r.term for r in by_id.values()), default=0),
        voters=len(ids),
        needed=needed,
        reached=reached,
        fault_tolerance=max(0, reached - needed),
        standings=tuple(
            Standing(
                member=member,
                report=by_id.get(member.raft_id),
                lag=_lag(member, leader, seen, by_id.get(member.raft_id), longest),
                contact_seconds=seen[member.raft_id].contact_seconds if member.raft_id in seen else None,
            )
            for member in sorted(members, key=lambda m: m.raft_id)
        ),
    )


def _quorum(leader: MemberReport | None, *, reached: int, needed: int) -> Quorum:
    if leader is not None:
        return Quorum.HELD
    return Quorum.ELECTING if reached >= needed else Quorum.LOST


def _lag(
    member: Member,
    leader: MemberReport | None,
    seen: Mapping[str, PeerReport],
    report: MemberReport | None,
    longest: int,
) -> int | None:
    if leader is None:
        return longest - report.last_index if report is not None else None
    if member.raft_id == leader.member.raft_id:
        return 0
    # Both from one report, so taken at one moment: two managers' own words would differ by what was written between.
    peer = seen.get(member.raft_id)
    if peer is None or peer.match_index is None:
        return None
    return max(0, leader.last_index - peer.match_index)
