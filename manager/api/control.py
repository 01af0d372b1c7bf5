"""The Control service: what people and tools ask of the cluster.

Only decodes, asks a pure function what to change, has it written, and encodes. Reads go through a read
barrier, so they see every write acknowledged before them. All methods but `Watch` and `GetInfo` run on the
leader; `proto/rpc/forward.py` brings them there.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from msgspec.structs import replace

from pyswarm.manager.api.cluster import ClusterMethods, the_cluster
from pyswarm.manager.api.encoded import EncodedNodes
from pyswarm.manager.api.events import tell_events
from pyswarm.manager.api.explain import explain, explanation_message
from pyswarm.manager.api.payloads import PayloadMethods
from pyswarm.manager.api.selection import find_nodes, find_services, in_stack, one_node, one_service
from pyswarm.manager.api.stacks import StackMethods
from pyswarm.manager.api.turns import in_turns
from pyswarm.manager.api.watch import watch_events
from pyswarm.manager.api.writes import WriteMethods
from pyswarm.manager.explain.explanation import task_name
from pyswarm.manager.explain.verdicts import node_name
from pyswarm.manager.leader.roles import check_demotion
from pyswarm.manager.orchestrator import services as decide
from pyswarm.manager.orchestrator.nodes import remove_node
from pyswarm.manager.orchestrator.rebalance import PlannedMove, check_can_be_rebalanced, rebalance
from pyswarm.manager.raft.port import Consensus, Member
from pyswarm.manager.store.changes import Plan, Update
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.manager.store.store import Store
from pyswarm.manager.store.writer import Writer
from pyswarm.proto.clock import Clock
from pyswarm.proto.codec.messages import from_message, to_message
from pyswarm.proto.codec.validate import validate_service_spec
from pyswarm.proto.entropy import Entropy
from pyswarm.proto.errors import FailedPrecondition, InvalidArgument, OutOfSequence
from pyswarm.proto.log import get_logger
from pyswarm.proto.model.objects import ManagerStatus, Node
from pyswarm.proto.model.spec import NodeSpec, ServiceSpec
from pyswarm.proto.model.states import Availability, Reachability, Role
from pyswarm.proto.v1 import control_pb2 as pb
from pyswarm.proto.v1 import control_pb2_grpc, types_pb2
from pyswarm.proto.version import VERSION

log = get_logger(__name__)


NODES_IN_A_TURN = 500
"""Most of their messages are there already."""


class ControlServicer(ClusterMethods, PayloadMethods, StackMethods, WriteMethods, control_pb2_grpc.ControlServicer):
    """Serves the Control API of one manager."""

    def __init__(self, *, store: Store, writer: Writer, consensus: Consensus, clock: Clock, entropy: Entropy) -> None:
        self._store = store
        self._writer = writer
        self._consensus = consensus
        self._clock = clock
        self._encoded = EncodedNodes()
        self._entropy = entropy

    async def _read(self) -> Snapshot:
        await self._consensus.read_barrier()
        return self._store.view

    # -- this manager

    async def GetInfo(self, request: pb.GetInfoRequest, context: Any) -> pb.Info:
        """What this manager knows of itself and its cluster, without asking the others: answers without a quorum."""
        seen, leadership = self._store.view, self._consensus.leadership
        leader = leadership.leader
        return pb.Info(
            node_id=self._consensus.self_member.node_id,
            cluster_id=seen.cluster.id if seen.cluster else "",
            leader_node_id=leader.node_id if leader else "",
            leader_addr=leader.api_addr if leader else "",
            is_leader=leadership.is_leader,
            term=leadership.term,
            applied_version=self._consensus.applied_index,
            managers=len(self._consensus.members()),
            nodes=seen.count("node"),
            server_version=VERSION,
        )

    # -- nodes

    async def ListNodes(self, request: pb.ListNodesRequest, context: Any) -> pb.ListNodesResponse:
        seen = await self._read()
        found = find_nodes(seen, [*request.ids, *request.id_prefixes])
        members = self._consensus.members()
        nodes = [self._node_message(node, members) async for node in in_turns(found, at_once=NODES_IN_A_TURN)]
        return pb.ListNodesResponse(nodes=nodes, version=seen.version)

    def _node_message(self, node: Node, members: Sequence[Member]) -> types_pb2.Node:
        """Return the node with its manager status completed by what consensus observes now."""
        return self._encoded.of(_with_reachability(node, members, self._consensus))

    async def UpdateNode(self, request: pb.UpdateNodeRequest, context: Any) -> types_pb2.Node:
        spec = from_message(request.spec, NodeSpec)
        if spec.role is Role.UNSET or spec.availability is Availability.UNSET:
            raise InvalidArgument(
                "a node's spec names its role and availability", remedy="Read the node, change it, send it back."
            )
        reachable = self._consensus.reachable()

        def update(seen: Snapshot) -> Plan:
            node = one_node(seen, request.id)
            if request.version and node.version != request.version:
                raise OutOfSequence(f"node {node.id} is at version {node.version}, not {request.version}")
            if node.spec.role is Role.MANAGER and spec.role is Role.WORKER:
                check_demotion(seen, node.id, reachable)
            is_same = node.spec.availability is spec.availability
            since = node.availability_since if is_same else self._clock.now()
            changed = replace(node, spec=spec, availability_since=since)
            return Plan((Update(changed),), why="the operator changed the node's spec")

        await self._writer.update(update)
        return self._node_message(one_node(self._store.view, request.id), self._consensus.members())

    async def RemoveNode(self, request: pb.RemoveNodeRequest, context: Any) -> pb.RemoveNodeResponse:
        def remove(seen: Snapshot) -> Plan:
            node = one_node(seen, request.id)
            if any(member.node_id == node.id for member in self._consensus.members()):
                raise FailedPrecondition(
                    f"node {node.id} ({node.description.hostname}) is a manager and a member of the consensus group",
                    remedy=f"Demote it first: `pyswarm node demote {node.id}`.",
                )
            return remove_node(seen, node.id, force=request.force, now=self._clock.now())

        await self._writer.update(remove)
        return pb.RemoveNodeResponse()

    # -- services and tasks

    async def CreateService(self, request: pb.CreateServiceRequest, context: Any) -> types_pb2.Service:
        spec = from_message(request.spec, ServiceSpec)
        validate_service_spec(spec)
        await self._writer.update(lambda seen: decide.create_service(seen, spec, new_id=self._entropy.new_id))
        return to_message(one_service(self._store.view, spec.name), types_pb2.Service)

    async def UpdateService(self, request: pb.UpdateServiceRequest, context: Any) -> types_pb2.Service:
        spec = from_message(request.spec, ServiceSpec)
        if not (request.rollback or request.hold):
            validate_service_spec(spec)

        def update(seen: Snapshot) -> Plan:
            service = one_service(seen, request.id)
            if request.hold:
                resume = request.hold == pb.UPDATE_RESUME
                return decide.hold_update(seen, service.id, request.version, resume=resume, now=self._clock.now())
            return decide.update_service(seen, service.id, request.version, spec, rollback=request.rollback)

        await self._writer.update(update)
        return to_message(one_service(self._store.view, request.id), types_pb2.Service)

    async def RemoveService(self, request: pb.RemoveServiceRequest, context: Any) -> pb.RemoveServiceResponse:
        await self._writer.update(lambda seen: decide.remove_service(seen, one_service(seen, request.id).id))
        return pb.RemoveServiceResponse()

    async def ListServices(self, request: pb.ListServicesRequest, context: Any) -> pb.ListServicesResponse:
        seen = await self._read()
        found = in_stack(find_services(seen, request.ids), request.stack)
        response = pb.ListServicesResponse(version=seen.version)
        async for service in in_turns(found):
            counts = decide.service_counts(seen, service)
            response.services.append(to_message(service, types_pb2.Service))
            response.statuses.append(
                pb.ServiceStatus(
                    service_id=service.id,
                    running=counts.running,
                    desired=counts.desired,
                    completed=counts.completed,
                )
            )
        return response

    async def RebalanceServices(
        self, request: pb.RebalanceServicesRequest, context: Any
    ) -> pb.RebalanceServicesResponse:
        seen = await self._read()
        services = find_services(seen, request.ids)
        for service in services if request.ids else ():
            check_can_be_rebalanced(service)
        # It tries every move on the table of all nodes: nothing to keep the event loop waiting for.
        plan, moves = await asyncio.to_thread(rebalance, seen, services, now=self._clock.now())
        if not request.dry_run:
            outcome = await self._writer.write_batch(plan.changes)
            # Tasks that changed meanwhile stay as they are: they move, or have ended, for another reason.
            left = {c.object.id for part in outcome.overtaken for c in part.changes if isinstance(c, Update)}
            moves = tuple(move for move in moves if move.task.id not in left)
        return pb.RebalanceServicesResponse(moves=[_move_message(seen, move) for move in moves], version=seen.version)

    async def ListTasks(self, request: pb.ListTasksRequest, context: Any) -> pb.ListTasksResponse:
        seen = await self._read()
        if request.service_ids or request.stack:
            services = in_stack(find_services(seen, request.service_ids), request.stack)
            tasks = [task for service in services for task in seen.tasks_of_service(service.id)]
        elif request.node_ids:
            tasks = [task for node in find_nodes(seen, request.node_ids) for task in seen.tasks_of_node(node.id)]
        else:
            tasks = list(seen.tasks())
        if request.ids:
            tasks = [task for task in tasks if any(task.id.startswith(wanted) for wanted in request.ids)]
        revisions = {t.revision_id: r for t in tasks if (r := seen.revision_of(t)) is not None}
        nodes = {t.node_id: n for t in tasks if (n := seen.node(t.node_id)) is not None}
        return pb.ListTasksResponse(
            tasks=[to_message(task, types_pb2.Task) async for task in in_turns(tasks)],
            revisions=[to_message(revisions[key], types_pb2.Revision) for key in sorted(revisions)],
            nodes=[self._encoded.of(nodes[key]) async for key in in_turns(sorted(nodes), at_once=NODES_IN_A_TURN)],
            services=[
                to_message(s, types_pb2.Service)
                for key in sorted({t.service_id for t in tasks})
                if (s := seen.service(key)) is not None
            ],
            version=seen.version,
        )

    # -- explaining, backup

    async def Explain(self, request: pb.ExplainRequest, context: Any) -> pb.Explanation:
        seen = await self._read()
        commits = [(commit.version, commit.events) for commit in self._store.history()]
        # It walks over all nodes and tasks: nothing to keep the event loop waiting for.
        found = await asyncio.to_thread(explain, seen, request.name, commits)
        return explanation_message(found, seen.version)

    async def Backup(self, request: pb.BackupRequest, context: Any) -> AsyncIterator[pb.BackupMessage]:
        await self._consensus.read_barrier()
        version, pieces = self._store.backup()
        facts = pb.BackupMessage.Facts(
            cluster_id=the_cluster(self._store.view).id,
            version=version,
            created_at=self._clock.now(),
            server_version=VERSION,
        )
        log.info("backup taken", version=version)
        yield pb.BackupMessage(facts=facts)
        for piece in pieces:
            yield pb.BackupMessage(piece=piece)

    # -- watching

    async def Events(self, request: pb.EventsRequest, context: Any) -> AsyncIterator[pb.ClusterEvent]:
        async for message in tell_events(self._store, request, self._clock):
            yield message

    async def Watch(self, request: pb.WatchRequest, context: Any) -> AsyncIterator[pb.WatchEvents]:
        async for message in watch_events(self._store, request):
            yield message


def _move_message(seen: Snapshot, move: PlannedMove) -> pb.PlannedMove:
    return pb.PlannedMove(
        task_id=move.task.id,
        name=task_name(seen, move.task),
        from_node=_told(seen, move.task.node_id),
        to_node=_told(seen, move.to_node),
    )


def _told(seen: Snapshot, node_id: str) -> str:
    node = seen.node(node_id)
    return node_id if node is None else node_name(node)


def _with_reachability(node: Node, members: Sequence[Member], consensus: Consensus) -> Node:
    member = next((m for m in members if m.node_id == node.id), None)
    if member is None:
        return node if node.manager_status is None else replace(node, manager_status=None)
    leader = consensus.leadership.leader
    status = ManagerStatus(
        raft_id=member.raft_id,
        addr=member.api_addr,
        reachability=Reachability.REACHABLE if member.raft_id in consensus.reachable() else Reachability.UNREACHABLE,
        leader=leader is not None and leader.raft_id == member.raft_id,
    )
    return replace(node, manager_status=status)
