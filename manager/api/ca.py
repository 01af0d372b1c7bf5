"""The CA's two services: bootstrap (anonymous, with a join token) and renewal (with a certificate)."""

from typing import Any

from cryptography import x509

from pyswarm.manager.ca.issue import check_clock, issue
from pyswarm.manager.ca.root import certificate_to_pem
from pyswarm.manager.ca.tokens import role_of_token
from pyswarm.manager.store.changes import Create, Expect, Plan
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.manager.store.store import Store
from pyswarm.manager.store.writer import Writer
from pyswarm.proto.clock import Clock
from pyswarm.proto.codec.messages import from_message
from pyswarm.proto.entropy import Entropy
from pyswarm.proto.errors import FailedPrecondition, InvalidArgument, JoinTokenInvalid, NotFound
from pyswarm.proto.identity import NodeIdentity
from pyswarm.proto.log import get_logger
from pyswarm.proto.model.objects import Cluster, Node, NodeDescription, NodeStatus
from pyswarm.proto.model.spec import NodeSpec
from pyswarm.proto.model.states import Availability, NodeState, Role
from pyswarm.proto.rpc.identity import current_caller
from pyswarm.proto.v1 import ca_pb2 as pb
from pyswarm.proto.v1 import ca_pb2_grpc

log = get_logger(__name__)


class _Issuer:
    """What both services do: sign a request for an identity the store vouches for."""

    def __init__(self, *, store: Store, writer: Writer, clock: Clock, entropy: Entropy) -> None:
        self._store = store
        self._writer = writer
        self._clock = clock
        self._entropy = entropy

    def _cluster(self) -> Cluster:
        cluster = self._store.view.cluster
        if cluster is None:
            raise FailedPrecondition("the cluster is still being made", remedy="Try again in a moment.")
        return cluster

    def _issue(self, cluster: Cluster, csr_pem: str, node_id: str, role: Role) -> str:
        certificate = issue(
            cluster.root_ca,
            csr_pem,
            NodeIdentity(node_id, role, cluster.id),
            now=self._clock.now(),
            expiry_seconds=cluster.spec.node_cert_expiry_seconds,
            serial=x509.random_serial_number(),
        )
        return certificate_to_pem(certificate)


class BootstrapServicer(_Issuer, ca_pb2_grpc.BootstrapServicer):
    """For machines that are not nodes yet."""

    async def GetRootCertificate(
        self, request: pb.GetRootCertificateRequest, context: Any
    ) -> pb.GetRootCertificateResponse:
        return pb.GetRootCertificateResponse(certificate_pem=self._cluster().root_ca.certificate_pem)

    async def IssueNodeCertificate(
        self, request: pb.IssueNodeCertificateRequest, context: Any
    ) -> pb.IssueNodeCertificateResponse:
        cluster = self._cluster()
        now = self._clock.now()
        # The token comes first: a stranger learns nothing else.
        role = self._role(cluster, request.token)
        check_clock(request.client_time, now=now, expiry_seconds=cluster.spec.node_cert_expiry_seconds)
        node_id = self._entropy.new_id()
        certificate = self._issue(cluster, request.csr_pem, node_id, role)
        node = Node(
            id=node_id,
            spec=NodeSpec(role=role, availability=_availability(request.availability)),
            description=from_message(request.description, NodeDescription),
            status=NodeStatus(state=NodeState.UNKNOWN, message="joining", addr=request.addr, changed_at=now),
            role=role,
        )

        def admit(seen: Snapshot) -> Plan:
            # The token is judged again inside the write: it may have been rotated meanwhile.
            current = seen.cluster
            assert current is not None
            self._role(current, request.token)
            return Plan((Expect("cluster", current.id, current.version), Create(node)), why="it showed a join token")

        await self._writer.update(admit)
        log.info("node admitted", node=node_id, role=role.name.lower(), hostname=node.description.hostname)
        return pb.IssueNodeCertificateResponse(
            node_id=node_id,
            cluster_id=cluster.id,
            role=int(role),  # type: ignore[arg-type]
            certificate_pem=certificate,
            root_ca_pem=cluster.root_ca.certificate_pem,
            manager_addrs=manager_addresses(self._store.view),
        )

    def _role(self, cluster: Cluster, token: str) -> Role:
        try:
            return role_of_token(cluster.root_ca, token)
        except JoinTokenInvalid as error:
            log.warning("join refused", reason=error.message, peer=current_caller().peer)
            raise


class CAServicer(_Issuer, ca_pb2_grpc.CAServicer):
    """For nodes: a new certificate for the role the store says they have now."""

    async def RenewNodeCertificate(
        self, request: pb.RenewNodeCertificateRequest, context: Any
    ) -> pb.RenewNodeCertificateResponse:
        cluster = self._cluster()
        caller = current_caller()
        # A manager that was deposed without knowing it must not certify a role that was taken away meanwhile.
        await self._writer.update(lambda seen: confirm_role(seen, caller.node_id))
        node = certified_node(self._store.view, caller.node_id)
        certificate = self._issue(cluster, request.csr_pem, node.id, node.role)
        log.info("certificate renewed", node=node.id, role=node.role.name.lower())
        return pb.RenewNodeCertificateResponse(
            certificate_pem=certificate,
            role=int(node.role),  # type: ignore[arg-type]
            root_ca_pem=cluster.root_ca.certificate_pem,
        )


def certified_node(seen: Snapshot, node_id: str) -> Node:
    """Return the node whose `role` its next certificate carries.

    That is the stored role, not the wish in its spec: the role manager changes it at the right moment of a promotion
    (before the certificate) and of a demotion (after the node left the consensus group), see leader/roles.py.
    """
    node = seen.node(node_id)
    if node is None:
        raise NotFound(f"node {node_id} is not part of this cluster", remedy="Leave and join again.")
    return node


def confirm_role(seen: Snapshot, node_id: str) -> Plan:
    """Write nothing, but have a quorum agree that the node still is what it is seen to be."""
    node = certified_node(seen, node_id)
    return Plan((Expect("node", node.id, node.version),), why="its certificate is renewed")


def _availability(number: int) -> Availability:
    try:
        return Availability(number) or Availability.ACTIVE
    except ValueError as error:
        raise InvalidArgument(f"no such availability: {number}") from error


def manager_addresses(seen: Snapshot) -> list[str]:
    """Return the API addresses of the managers, sorted."""
    return sorted(node.manager_status.addr for node in seen.nodes() if node.manager_status is not None)
