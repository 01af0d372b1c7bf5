"""`pyswarm raft …`: the group's worth, the rows, and the exit status; a data key rotated."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from lib.fake_control import serving

from pyswarm.proto.v1 import raft_pb2 as pb
from pyswarm.proto.v1 import raft_pb2_grpc


class FakeRaft(raft_pb2_grpc.RaftOperationsServicer):
    def __init__(self) -> None:
        self.told = pb.RaftStatusResponse()

    async def GetStatus(self, request: Any, context: Any) -> pb.RaftStatusResponse:
        return self.told

    async def RotateDataKey(self, request: Any, context: Any) -> pb.RaftRotateDataKeyResponse:
        return pb.RaftRotateDataKeyResponse(older_keys=1)


@pytest.fixture
def group(pyswarm: Any) -> Iterator[FakeRaft]:
    fake = FakeRaft()
    with serving(
        pyswarm.paths.manager_socket, lambda server: raft_pb2_grpc.add_RaftOperationsServicer_to_server(fake, server)
    ):
        yield fake


def a_member(number: int) -> pb.RaftMember:
    return pb.RaftMember(
        raft_id=f"r{number}", node_id=f"n{number}", raft_addr=f"10.0.0.{number}:7946", api_addr=f"10.0.0.{number}:2377"
    )


def a_standing(number: int, role: pb.RaftRole.ValueType, **more: Any) -> pb.RaftStanding:
    report = pb.RaftMemberReport(
        member=a_member(number), role=role, is_voter=True, term=4, commit_index=120, applied_index=118, last_index=120,
        durable_index=120, snapshot_index=100, journal_bytes=4_270_000,
    )  # fmt: skip
    return pb.RaftStanding(member=a_member(number), report=report, **more)


NAMES = {"n1": "m1", "n2": "m2", "n3": "m3"}
WHOLE = pb.RaftStatusResponse(
    group=pb.RaftGroupStatus(
        quorum=pb.HELD, leader=a_member(1), term=4, voters=3, needed=2, reached=2, fault_tolerance=0,
        standings=[
            a_standing(1, pb.LEADER, lag=0),
            a_standing(2, pb.FOLLOWER, lag=3, contact_seconds=0.042),
            pb.RaftStanding(member=a_member(3), lag=90, contact_seconds=12.34),
        ],
    ),
    node_id="n2", hostnames=NAMES, failures={"n3": "cannot reach 10.0.0.3:2377: no route to host"},
)  # fmt: skip
LOST = pb.RaftStatusResponse(
    group=pb.RaftGroupStatus(
        quorum=pb.LOST, term=4, voters=3, needed=2, reached=1,
        standings=[a_standing(1, pb.FOLLOWER), *(pb.RaftStanding(member=a_member(n)) for n in (2, 3))],
    ),
    node_id="n1", hostnames=NAMES,
)  # fmt: skip


def test_status_is_the_groups_worth_and_a_row_for_each_member(pyswarm: Any, group: FakeRaft) -> None:
    group.told = WHOLE
    assert pyswarm.ok("raft", "status").splitlines() == [
        "Quorum: held (2 of 3 managers in reach, 2 needed; none of them may fail)",
        "Leader: m1 (term 4)",
        "",
        "NODE ID   HOSTNAME   ADDRESS         ROLE          VOTER     TERM      COMMIT    APPLIED   LAG       "
        "LAST CONTACT   SNAPSHOT   JOURNAL",
        "n1        m1         10.0.0.1:7946   Leader        yes       4         120       118       0         -"
        "              100        4.27MB",
        "n2 *      m2         10.0.0.2:7946   Follower      yes       4         120       118       3         42ms"
        "           100        4.27MB",
        "n3        m3         10.0.0.3:7946   Unreachable   -         -         -         -         90        12.3s"
        "          -          -",
        "",
        "m3: cannot reach 10.0.0.3:2377: no route to host",
    ]


def test_status_in_json_says_what_nobody_knows_as_null(pyswarm: Any, group: FakeRaft) -> None:
    group.told = WHOLE
    found = json.loads(pyswarm.ok("raft", "status", "--format", "json"))
    members = found.pop("Members")
    assert found == {
        "Quorum": "held", "Voters": 3, "Needed": 2, "Reached": 2, "FaultTolerance": 0, "Term": 4, "LeaderNodeID": "n1",
        "LeaderHostname": "m1",
    }  # fmt: skip
    assert members[1] == {
        "NodeID": "n2", "Hostname": "m2", "RaftID": "r2", "RaftAddr": "10.0.0.2:7946", "Addr": "10.0.0.2:2377",
        "Self": True, "Role": "Follower", "Voter": True, "Term": 4, "CommitIndex": 120, "AppliedIndex": 118,
        "LastIndex": 120, "DurableIndex": 120, "Lag": 3, "LastContactSeconds": 0.042, "SnapshotIndex": 100,
        "JournalBytes": 4270000, "Error": "",
    }  # fmt: skip
    assert members[2]["Voter"] is None
    assert members[2]["Error"] == "cannot reach 10.0.0.3:2377: no route to host"
    assert pyswarm.ok("raft", "status", "--format", "{{.Quorum}} {{.FaultTolerance}}") == "held 0\n"


def test_without_a_quorum_it_still_tells_and_fails_with_a_remedy(pyswarm: Any, group: FakeRaft) -> None:
    group.told = LOST
    said = pyswarm.run("raft", "status")
    assert said.status == 1
    assert said.out.startswith("Quorum: lost (1 of 3 managers in reach, 2 needed)\nLeader: none (term 4)\n")
    assert "1 of 3 managers answer and 2 are needed; no answer from m2, m3" in said.err
    assert "--force-new-cluster" in said.err
    as_json = pyswarm.run("raft", "status", "--format", "json")
    assert as_json.status == 1
    assert json.loads(as_json.out)["Quorum"] == "lost"


def test_an_election_is_told_from_a_loss(pyswarm: Any, group: FakeRaft) -> None:
    group.told.CopyFrom(LOST)
    group.told.group.quorum, group.told.group.reached = pb.ELECTING, 2
    assert "no manager leads with a majority behind it" in pyswarm.fails("raft", "status")


@pytest.mark.usefixtures("group")
def test_a_data_key_is_rotated_and_what_is_kept_is_said(pyswarm: Any) -> None:
    said = pyswarm.run("raft", "rotate-key")
    assert (said.status, said.out) == (0, "Successfully rotated this manager's data key.\n")
    assert "Older keys kept until the files under them are replaced: 1." in said.err
