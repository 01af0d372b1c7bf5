"""RaftOperations: any manager answers for the group, and says who did not answer it."""

from lib.builders import a_node
from msgspec.structs import replace

from pyswarm.manager.api.raft_status import RaftOperationsServicer
from pyswarm.manager.raft.fake import SingleNodeConsensus
from pyswarm.manager.raft.port import Member
from pyswarm.manager.raft.status import MemberReport, RaftRole
from pyswarm.manager.store.changes import Create
from pyswarm.manager.store.store import Store
from pyswarm.manager.store.writer import Writer
from pyswarm.proto.clock import SYSTEM_CLOCK
from pyswarm.proto.codec.messages import to_message
from pyswarm.proto.entropy import SYSTEM_ENTROPY
from pyswarm.proto.errors import Unavailable, Unreachable
from pyswarm.proto.v1 import raft_pb2 as pb

A, B, C = (Member(f"raft-{n}", f"node-{n}", f"10.0.0.{n}:7946", f"10.0.0.{n}:2377") for n in (1, 2, 3))


def a_report(member: Member) -> MemberReport:
    return MemberReport(
        member=member, role=RaftRole.FOLLOWER, is_voter=True, term=4, leader_raft_id="", in_reach=(),
        has_quorum=False, commit_index=9, applied_index=9, last_index=9, durable_index=9, snapshot_index=1,
        journal_bytes=10,
    )  # fmt: skip


class Others:
    """The other managers, by address: a report, or what asking fails with."""

    def __init__(self, **answers: MemberReport | Exception) -> None:
        self.answers = {f"10.0.0.{name.removeprefix('n')}:2377": answer for name, answer in answers.items()}

    async def ask(self, address: str) -> pb.RaftMemberReport:
        answer = self.answers[address]
        if isinstance(answer, Exception):
            raise answer
        return to_message(answer, pb.RaftMemberReport)


async def told(others: Others, own: MemberReport | None = None, *, agrees: bool = True) -> pb.RaftStatusResponse:
    store = Store()
    writer = Writer(SingleNodeConsensus(store), store, clock=SYSTEM_CLOCK, entropy=SYSTEM_ENTROPY)
    await writer.write((Create(a_node("node-1", hostname="m1", version=0)),))

    async def confirm() -> None:
        if not agrees:
            raise Unavailable("no majority of the managers is in reach")

    async def rotate_key() -> int:
        raise AssertionError("nobody rotates a key")

    report = own or a_report(A)
    servicer = RaftOperationsServicer(
        report=lambda: report,
        confirm=confirm,
        rotate_key=rotate_key,
        members=lambda: (A, B, C),
        store=store,
        ask=others.ask,
    )
    return await servicer.GetStatus(pb.RaftStatusRequest(), None)


async def test_it_answers_without_a_quorum_and_names_who_was_silent() -> None:
    answer = await told(Others(n2=a_report(B), n3=Unreachable("cannot reach 10.0.0.3:2377: no route to host")))
    assert answer.node_id == "node-1"
    assert answer.hostnames["node-1"] == "m1"
    assert dict(answer.failures) == {"node-3": "cannot reach 10.0.0.3:2377: no route to host"}
    assert [s.HasField("report") for s in answer.group.standings] == [True, True, False]
    assert (answer.group.quorum, answer.group.reached) == (pb.ELECTING, 2)


async def test_another_manager_at_a_members_address_is_not_taken_for_it() -> None:
    stranger = replace(a_report(C), member=replace(C, raft_id="raft-9", node_id="node-9"))
    answer = await told(Others(n2=Unreachable("cannot reach"), n3=stranger))
    assert "node-9" in answer.failures["node-3"]
    assert answer.group.quorum == pb.LOST


async def test_a_leader_claims_a_quorum_only_when_a_majority_agrees_now() -> None:
    silent = Others(n2=Unreachable("cannot reach"), n3=Unreachable("cannot reach"))
    leader = replace(a_report(A), role=RaftRole.LEADER, has_quorum=True, in_reach=("raft-1", "raft-2"))
    assert (await told(silent, leader)).group.quorum == pb.HELD
    assert (await told(silent, leader, agrees=False)).group.quorum == pb.LOST
