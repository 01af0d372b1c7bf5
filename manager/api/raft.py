"""RaftMembership: managers joining and leaving the consensus group."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from msgspec.structs import replace

from pyswarm.manager.raft.port import Consensus, Member
from pyswarm.manager.store.changes import Plan, Update
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.manager.store.writer import Writer
from pyswarm.proto.errors import FailedPrecondition, NotFound, PermissionDenied, SwarmError, Unavailable
from pyswarm.proto.log import get_logger
from pyswarm.proto.model.objects import ManagerStatus
from pyswarm.proto.model.states import Reachability, Role
from pyswarm.proto.rpc.identity import current_caller
from pyswarm.proto.v1 import raft_pb2 as pb
from pyswarm.proto.v1 import raft_pb2_grpc

log = get_logger(__name__)

Ping = Callable[[str], Awaitable[str]]
"""Dial a manager's API address and return the node id it answers with; raises Unavailable."""


class PingServicer(raft_pb2_grpc.RaftMembershipServicer):
    """Answers the leader's dial-back; all a manager serves until it is a member."""

    def __init__(self, node_id: str) -> None:
        self._node_id = node_id

    async def Join(self, request: pb.RaftJoinRequest, context: Any) -> pb.RaftJoinResponse:
        raise _not_yet()

    async def ListMembers(self, request: pb.RaftListMembersRequest, context: Any) -> pb.RaftJoinResponse:
        raise _not_yet()

    async def Leave(self, request: pb.RaftLeaveRequest, context: Any) -> pb.RaftLeaveResponse:
        raise _not_yet()

    async def Ping(self, request: pb.RaftPingRequest, context: Any) -> pb.RaftPingResponse:
        return pb.RaftPingResponse(node_id=self._node_id)


class RaftMembershipServicer(PingServicer):
    """Membership changes, on the leader, one at a time."""

    def __init__(self, *, consensus: Consensus, writer: Writer, ping: Ping) -> None:
        super().__init__(consensus.self_member.node_id)
        self._consensus = consensus
        self._writer = writer
        self._ping = ping
        self._one_at_a_time = asyncio.Lock()

    async def Join(self, request: pb.RaftJoinRequest, context: Any) -> pb.RaftJoinResponse:
        wanted = request.member
        member = Member(wanted.raft_id, wanted.node_id, wanted.raft_addr, wanted.api_addr)
        caller = current_caller()
        if caller.node_id != member.node_id:
            raise PermissionDenied(f"node {caller.node_id} asked to add node {member.node_id} as a manager")
        await self._dial_back(member)
        async with self._one_at_a_time:
            for stale in self._consensus.members():
                # A manager that lost its disk comes back under a new raft id; the old one can never answer again.
                if stale.node_id == member.node_id and stale.raft_id != member.raft_id:
                    await self._consensus.remove_member(stale.raft_id)
            await self._consensus.add_member(member)
            await self._writer.update(lambda seen: _as_manager(seen, member))
        log.info("manager joined", node=member.node_id, addr=member.api_addr)
        return pb.RaftJoinResponse(members=[message_of(m) for m in self._consensus.members()])

    async def ListMembers(self, request: pb.RaftListMembersRequest, context: Any) -> pb.RaftJoinResponse:
        return pb.RaftJoinResponse(members=[message_of(m) for m in self._consensus.members()])

    async def _dial_back(self, member: Member) -> None:
        """A member that cannot be reached would cost the group its quorum, so try before it counts."""
        try:
            answered = await self._ping(member.api_addr)
        except SwarmError as error:
            raise FailedPrecondition(
                f"the leader cannot reach the joining manager at {member.api_addr}: {error.message}",
                remedy="Join with --advertise-addr set to an address that the other managers can reach.",
            ) from error
        if answered != member.node_id:
            raise FailedPrecondition(
                f"node {answered}, not {member.node_id}, answers at {member.api_addr}",
                remedy="Join with --advertise-addr set to this machine's own address.",
            )

    async def Leave(self, request: pb.RaftLeaveRequest, context: Any) -> pb.RaftLeaveResponse:
        caller = current_caller()
        node_id = request.node_id or caller.node_id
        if not caller.is_local and caller.node_id != node_id:
            raise PermissionDenied(f"node {caller.node_id} asked to remove node {node_id} from the managers")
        async with self._one_at_a_time:
            member = next((m for m in self._consensus.members() if m.node_id == node_id), None)
            if member is None:
                raise NotFound(f"node {node_id} is not a member of the consensus group")
            if member.raft_id == self._consensus.self_member.raft_id:
                await self._consensus.transfer_leadership()
                raise FailedPrecondition(
                    "leadership was handed over first", remedy="Ask again: the new leader answers."
                )
            await self._consensus.remove_member(member.raft_id)
            await self._writer.update(lambda seen: _as_worker(seen, node_id))
        log.info("manager left", node=node_id)
        return pb.RaftLeaveResponse()


def _not_yet() -> Unavailable:
    return Unavailable("this manager is still joining the others", remedy="Ask another manager.")


def _as_manager(seen: Snapshot, member: Member) -> Plan:
    node = seen.node(member.node_id)
    if node is None:
        raise NotFound(f"node {member.node_id} is not part of this cluster")
    status = ManagerStatus(raft_id=member.raft_id, addr=member.api_addr, reachability=Reachability.REACHABLE)
    changed = replace(node, manager_status=status, role=Role.MANAGER)
    return Plan(() if changed == node else (Update(changed),), why="it joined the consensus group")


def _as_worker(seen: Snapshot, node_id: str) -> Plan:
    node = seen.node(node_id)
    if node is None or node.manager_status is None:
        return Plan()
    changed = replace(node, manager_status=None, role=Role.WORKER, spec=replace(node.spec, role=Role.WORKER))
    return Plan((Update(changed),), why="it left the consensus group")


def message_of(member: Member) -> pb.RaftMember:
    return pb.RaftMember(
        raft_id=member.raft_id, node_id=member.node_id, raft_addr=member.raft_addr, api_addr=member.api_addr
    )


def member_of(message: pb.RaftMember) -> Member:
    return Member(message.raft_id, message.node_id, message.raft_addr, message.api_addr)
