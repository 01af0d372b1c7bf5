"""The part of the Control service about the cluster as a whole: its settings, join tokens and unlock key."""

from typing import Any

from msgspec.structs import replace

from pyswarm.manager.ca.tokens import rotate_join_token
from pyswarm.manager.orchestrator.cluster import update_cluster
from pyswarm.manager.raft.port import Consensus
from pyswarm.manager.store.changes import Plan, Update
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.manager.store.store import Store
from pyswarm.manager.store.writer import Writer
from pyswarm.proto.codec.messages import from_message, to_message
from pyswarm.proto.codec.validate import validate_cluster_spec
from pyswarm.proto.entropy import Entropy
from pyswarm.proto.errors import Internal, InvalidArgument
from pyswarm.proto.log import get_logger
from pyswarm.proto.model.objects import Cluster
from pyswarm.proto.model.spec import ClusterSpec
from pyswarm.proto.model.states import Role
from pyswarm.proto.unlock_key import UNLOCK_KEY_BYTES
from pyswarm.proto.v1 import control_pb2 as pb
from pyswarm.proto.v1 import types_pb2

log = get_logger(__name__)


class ClusterMethods:
    """Mixed into the Control servicer."""

    _store: Store
    _writer: Writer
    _consensus: Consensus
    _entropy: Entropy

    async def GetCluster(self, request: pb.GetClusterRequest, context: Any) -> types_pb2.Cluster:
        await self._consensus.read_barrier()
        return to_message(the_cluster(self._store.view), types_pb2.Cluster)

    async def UpdateCluster(self, request: pb.UpdateClusterRequest, context: Any) -> types_pb2.Cluster:
        spec = from_message(request.spec, ClusterSpec)
        validate_cluster_spec(spec)
        fresh_key = self._entropy.bytes(UNLOCK_KEY_BYTES)
        await self._writer.update(
            lambda seen: update_cluster(
                the_cluster(seen),
                request.version,
                spec,
                fresh_key=fresh_key,
                rotate_unlock_key=request.rotate_unlock_key,
            )
        )
        log.info("cluster updated", autolock=spec.autolock, rotated_unlock_key=request.rotate_unlock_key)
        return to_message(the_cluster(self._store.view), types_pb2.Cluster)

    async def GetUnlockKey(self, request: pb.GetUnlockKeyRequest, context: Any) -> pb.UnlockKey:
        await self._consensus.read_barrier()
        cluster = the_cluster(self._store.view)
        return pb.UnlockKey(key=cluster.unlock_key, version=cluster.version)

    async def RotateJoinToken(self, request: pb.RotateJoinTokenRequest, context: Any) -> types_pb2.JoinTokens:
        role = Role(request.role)
        if role is Role.UNSET:
            raise InvalidArgument("no role given", remedy="Rotate the token of `worker` or of `manager`.")
        secret = self._entropy.bytes(16)

        def rotate(seen: Snapshot) -> Plan:
            cluster = the_cluster(seen)
            root_ca = rotate_join_token(cluster.root_ca, role, secret)
            return Plan((Update(replace(cluster, root_ca=root_ca)),), why=f"rotated the {role.name.lower()} join token")

        await self._writer.update(rotate)
        log.info("join token rotated", role=role.name.lower())
        return to_message(the_cluster(self._store.view).root_ca.join_tokens, types_pb2.JoinTokens)


def the_cluster(seen: Snapshot) -> Cluster:
    if seen.cluster is None:
        raise Internal("the cluster object is missing from the store")
    return seen.cluster
