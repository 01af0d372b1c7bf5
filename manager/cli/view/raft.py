"""`pyswarm raft status`: the group's worth in words, and a row for each member."""

from collections.abc import Mapping, Sequence
from typing import Any

from pyswarm.manager.cli.view.human import size
from pyswarm.manager.cli.view.table import Column, Row, column, render_list
from pyswarm.proto.v1 import raft_pb2 as pb

HELD = "held"
_QUORUM = {pb.HELD: HELD, pb.ELECTING: "electing", pb.LOST: "lost"}

RAFT_COLUMNS = (
    Column("NODE ID", lambda row: f"{row['NodeID']} {'*' if row['Self'] else ' '}"),
    column("HOSTNAME", "Hostname"),
    column("ADDRESS", "RaftAddr"),
    column("ROLE", "Role"),
    Column("VOTER", lambda row: _known(row["Voter"], lambda voter: "yes" if voter else "no")),
    Column("TERM", lambda row: _known(row["Term"])),
    Column("COMMIT", lambda row: _known(row["CommitIndex"])),
    Column("APPLIED", lambda row: _known(row["AppliedIndex"])),
    Column("LAG", lambda row: _known(row["Lag"])),
    Column("LAST CONTACT", lambda row: _contact(row["LastContactSeconds"])),
    Column("SNAPSHOT", lambda row: _known(row["SnapshotIndex"])),
    Column("JOURNAL", lambda row: _known(row["JournalBytes"], size)),
)


def raft_json(told: pb.RaftStatusResponse) -> dict[str, Any]:
    """Return all that is told; what nobody knows is None."""
    group = told.group
    return {
        "Quorum": _QUORUM.get(group.quorum, "unknown"),
        "Voters": group.voters,
        "Needed": group.needed,
        "Reached": group.reached,
        "FaultTolerance": group.fault_tolerance,
        "Term": group.term,
        "LeaderNodeID": group.leader.node_id,
        "LeaderHostname": told.hostnames.get(group.leader.node_id, ""),
        "Members": [_row(standing, told) for standing in group.standings],
    }


def _row(standing: pb.RaftStanding, told: pb.RaftStatusResponse) -> Row:
    member = standing.member
    report = standing.report if standing.HasField("report") else None
    return {
        "NodeID": member.node_id,
        "Hostname": told.hostnames.get(member.node_id, ""),
        "RaftID": member.raft_id,
        "RaftAddr": member.raft_addr,
        "Addr": member.api_addr,
        "Self": member.node_id == told.node_id,
        "Role": pb.RaftRole.Name(report.role).title() if report else "Unreachable",
        "Voter": report.is_voter if report else None,
        "Term": report.term if report else None,
        "CommitIndex": report.commit_index if report else None,
        "AppliedIndex": report.applied_index if report else None,
        "LastIndex": report.last_index if report else None,
        "DurableIndex": report.durable_index if report else None,
        "Lag": standing.lag if standing.HasField("lag") else None,
        "LastContactSeconds": standing.contact_seconds if standing.HasField("contact_seconds") else None,
        "SnapshotIndex": report.snapshot_index if report else None,
        "JournalBytes": report.journal_bytes if report else None,
        "Error": told.failures.get(member.node_id, ""),
    }


def raft_text(found: Mapping[str, Any]) -> str:
    """Return the same for people."""
    lines = [f"Quorum: {_quorum_words(found)}", f"Leader: {_leader_words(found)}", ""]
    lines.append(render_list(found["Members"], RAFT_COLUMNS))
    failures = [f"{_name(row)}: {row['Error']}" for row in found["Members"] if row["Error"]]
    return "\n".join([*lines, *([""] if failures else []), *failures])


def why_no_quorum(found: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return (cause, remedy) when the group can decide nothing."""
    if found["Quorum"] == HELD:
        return None
    reach = f"{found['Reached']} of {found['Voters']} managers answer and {found['Needed']} are needed"
    if found["Quorum"] == "electing":
        return (
            f"no manager leads with a majority behind it, though {reach}",
            "An election takes a second or two. If it does not end, let the managers reach each other's port 7946.",
        )
    away = _names([row for row in found["Members"] if row["Role"] == "Unreachable"])
    return (
        f"the managers have lost their quorum: {reach}; no answer from {away}",
        "Bring managers back; what runs goes on running meanwhile. If they are lost for good: "
        "`pyswarm init --force-new-cluster` on the manager that is furthest.",
    )


def _quorum_words(found: Mapping[str, Any]) -> str:
    reach = f"{found['Reached']} of {found['Voters']} managers in reach, {found['Needed']} needed"
    if found["Quorum"] != HELD:
        return f"{found['Quorum']} ({reach})"
    more = found["FaultTolerance"]
    return f"held ({reach}; {'none' if more == 0 else more} of them may fail)"


def _leader_words(found: Mapping[str, Any]) -> str:
    if not found["LeaderNodeID"]:
        return f"none (term {found['Term']})"
    return f"{found['LeaderHostname'] or found['LeaderNodeID']} (term {found['Term']})"


def _names(rows: Sequence[Row]) -> str:
    return ", ".join(_name(row) for row in rows)


def _name(row: Row) -> str:
    return str(row["Hostname"] or row["NodeID"])


def _known(value: Any, shown: Any = str) -> str:
    return "-" if value is None else str(shown(value))


def _contact(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.0f}ms" if seconds < 1 else f"{seconds:.1f}s"
