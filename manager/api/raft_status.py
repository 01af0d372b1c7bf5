"""RaftOperations: how consensus fares, told by any manager, with or without a quorum.

Asks the other members for their reports, all at once and with one deadline; who does not answer is part of the answer.
What the reports mean together: manager/raft/status.py.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from msgspec.structs import replace

from pyswarm.manager.raft.port import Member
from pyswarm.manager.raft.status import MemberReport, RaftRole, group_status
from pyswarm.manager.store.store import Store
from pyswarm.proto.codec.messages import from_message, to_message
from pyswarm.proto.errors import SwarmError
from pyswarm.proto.v1 import raft_pb2 as pb
from pyswarm.proto.v1 import raft_pb2_grpc

CONFIRM_TIMEOUT_SECONDS = 1.0
"""A leader that no majority answers for this long has none; longer than an election timeout."""

REPORT_TIMEOUT_SECONDS = 2.0
"""A member that takes longer to say how it is counts as not answering."""

Ask = Callable[[str], Awaitable[pb.RaftMemberReport]]
"""Ask the manager at this API address for its report; raises SwarmError."""


class RaftOperationsServicer(raft_pb2_grpc.RaftOperationsServicer):
    def __init__(
        self,
        *,
        report: Callable[[], MemberReport],
        confirm: Callable[[], Awaitable[object]],
        rotate_key: Callable[[], Awaitable[int]],
        members: Callable[[], Sequence[Member]],
        store: Store,
        ask: Ask,
    ) -> None:
        """`confirm` returns once a majority has said that this manager leads; raises SwarmError when none does."""
        self._report = report
        self._confirm = confirm
        self._rotate_key = rotate_key
        self._members = members
        self._store = store
        self._ask = ask

    async def Report(self, request: pb.RaftReportRequest, context: Any) -> pb.RaftMemberReport:
        return to_message(await self._own_report(), pb.RaftMemberReport)

    async def ListCheckpoints(self, request: pb.RaftCheckpointsRequest, context: Any) -> pb.RaftCheckpoints:
        kept = self._store.checkpoints()
        return pb.RaftCheckpoints(checkpoints=[to_message(c, pb.RaftCheckpoint) for c in kept])

    async def RotateDataKey(self, request: pb.RaftRotateDataKeyRequest, context: Any) -> pb.RaftRotateDataKeyResponse:
        return pb.RaftRotateDataKeyResponse(older_keys=await self._rotate_key())

    async def GetStatus(self, request: pb.RaftStatusRequest, context: Any) -> pb.RaftStatusResponse:
        own = self._report().member
        members = self._members()
        others = [member for member in members if member.raft_id != own.raft_id]
        mine, answers = await asyncio.gather(
            self._own_report(), asyncio.gather(*(self._report_of(member) for member in others))
        )
        reports = [mine, *(answer for answer in answers if isinstance(answer, MemberReport))]
        status = group_status(members, reports, asked=own)
        failures = zip(others, answers, strict=True)
        return pb.RaftStatusResponse(
            group=to_message(status, pb.RaftGroupStatus),
            node_id=own.node_id,
            hostnames={m.node_id: self._hostname(m.node_id) for m in members},
            failures={m.node_id: str(answer) for m, answer in failures if isinstance(answer, str)},
        )

    async def _own_report(self) -> MemberReport:
        """Return what this member says now. What it heard a moment ago does not make it lead a majority: it asks."""
        if self._report().role is not RaftRole.LEADER:
            return self._report()
        try:
            await self._confirm()
        except SwarmError:
            # It is the answer to what was asked, not a failure to answer.
            return replace(self._report(), has_quorum=False)
        return self._report()

    async def _report_of(self, member: Member) -> MemberReport | str:
        """Return the member's report, or why there is none."""
        try:
            async with asyncio.timeout(REPORT_TIMEOUT_SECONDS):
                report = from_message(await self._ask(member.api_addr), MemberReport)
        except TimeoutError:
            return f"{member.api_addr} did not answer within {REPORT_TIMEOUT_SECONDS:g} s"
        except SwarmError as error:
            return error.message
        if report.member.raft_id != member.raft_id:
            return f"another manager answers at {member.api_addr}: node {report.member.node_id}"
        return report

    def _hostname(self, node_id: str) -> str:
        node = self._store.view.node(node_id)
        return node.description.hostname if node is not None else ""
