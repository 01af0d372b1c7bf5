"""The control API as the commands see it: model objects in and out, names and ids as people type them.

Every call has a deadline. Where a call goes: to the manager of `--host`, with this node's certificate, else
to the manager on this node through its unix socket.
"""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

from pyswarm.manager.cli.client.addresses import with_port
from pyswarm.manager.cli.client.supervisor import ask
from pyswarm.manager.cli.records import ServiceRow, StackChange, TaskList
from pyswarm.manager.cli.settings import Settings
from pyswarm.proto.backup_facts import BackupFacts
from pyswarm.proto.codec.messages import from_message, to_message
from pyswarm.proto.errors import InvalidArgument, Locked, NotAManager, NotFound, Unavailable
from pyswarm.proto.model.objects import Cluster, Config, JoinTokens, Node, Revision, Secret, Service, Task
from pyswarm.proto.model.spec import ClusterSpec, ConfigSpec, NodeSpec, SecretSpec, ServiceSpec
from pyswarm.proto.model.states import Role
from pyswarm.proto.rpc.client import open_channel, open_unix_channel
from pyswarm.proto.rpc.tls import channel_credentials
from pyswarm.proto.unlock_key import format_unlock_key
from pyswarm.proto.v1 import control_pb2 as pb
from pyswarm.proto.v1 import control_pb2_grpc, logs_pb2, logs_pb2_grpc, raft_pb2, raft_pb2_grpc, types_pb2

CALL_TIMEOUT_SECONDS = 30.0
STATUS_TIMEOUT_SECONDS = 10.0


class ControlClient:
    def __init__(self, channel: Any) -> None:
        self._stub = cast("control_pb2_grpc.ControlAsyncStub", control_pb2_grpc.ControlStub(channel))
        self._raft = cast("raft_pb2_grpc.RaftOperationsAsyncStub", raft_pb2_grpc.RaftOperationsStub(channel))
        self._logs = cast("logs_pb2_grpc.LogsAsyncStub", logs_pb2_grpc.LogsStub(channel))

    # -- the cluster

    async def info(self) -> pb.Info:
        told: pb.Info = await self._stub.GetInfo(pb.GetInfoRequest(), timeout=CALL_TIMEOUT_SECONDS)
        return told

    async def cluster(self) -> Cluster:
        return from_message(await self._stub.GetCluster(pb.GetClusterRequest(), timeout=CALL_TIMEOUT_SECONDS), Cluster)

    async def update_cluster(self, cluster: Cluster, spec: ClusterSpec, *, rotate_unlock_key: bool = False) -> None:
        """Write `spec`, unless the cluster object changed since `cluster` was read (OutOfSequence)."""
        request = pb.UpdateClusterRequest(
            version=cluster.version,
            spec=to_message(spec, types_pb2.ClusterSpec),
            rotate_unlock_key=rotate_unlock_key,
        )
        await self._stub.UpdateCluster(request, timeout=CALL_TIMEOUT_SECONDS)

    async def unlock_key(self) -> str | None:
        """Return the key that unlocks managers, None when the cluster is not autolocked."""
        told = await self._stub.GetUnlockKey(pb.GetUnlockKeyRequest(), timeout=CALL_TIMEOUT_SECONDS)
        return format_unlock_key(told.key) if told.key else None

    async def raft_status(self) -> raft_pb2.RaftStatusResponse:
        """Return how consensus fares; any manager answers, also without a quorum."""
        told: raft_pb2.RaftStatusResponse = await self._raft.GetStatus(
            raft_pb2.RaftStatusRequest(), timeout=CALL_TIMEOUT_SECONDS
        )
        return told

    async def rotate_data_key(self) -> int:
        """Rotate the key that seals the asked manager's files; return how many older ones are kept."""
        told = await self._raft.RotateDataKey(raft_pb2.RaftRotateDataKeyRequest(), timeout=CALL_TIMEOUT_SECONDS)
        return int(told.older_keys)

    async def rotate_join_token(self, role: Role) -> JoinTokens:
        request = pb.RotateJoinTokenRequest(role=types_pb2.Role.ValueType(role))
        return from_message(await self._stub.RotateJoinToken(request, timeout=CALL_TIMEOUT_SECONDS), JoinTokens)

    # -- nodes

    async def nodes(self) -> list[Node]:
        answer = await self._stub.ListNodes(pb.ListNodesRequest(), timeout=CALL_TIMEOUT_SECONDS)
        return [from_message(message, Node) for message in answer.nodes]

    async def node(self, name: str) -> Node:
        """Return the node with this id, hostname or unique id prefix; `self` is the manager that answers."""
        wanted = (await self.info()).node_id if name == "self" else name
        _check_name(wanted, "node")
        answer = await self._stub.ListNodes(pb.ListNodesRequest(ids=[wanted]), timeout=CALL_TIMEOUT_SECONDS)
        if not answer.nodes:
            raise NotFound(f"no such node: {name}", remedy="`pyswarm node ls` lists what there is.")
        return from_message(answer.nodes[0], Node)

    async def update_node(self, node: Node, spec: NodeSpec) -> None:
        request = pb.UpdateNodeRequest(id=node.id, version=node.version, spec=to_message(spec, types_pb2.NodeSpec))
        await self._stub.UpdateNode(request, timeout=CALL_TIMEOUT_SECONDS)

    async def remove_node(self, node_id: str, *, force: bool) -> None:
        await self._stub.RemoveNode(pb.RemoveNodeRequest(id=node_id, force=force), timeout=CALL_TIMEOUT_SECONDS)

    # -- services and tasks

    async def services(self, names: Sequence[str] = (), *, stack: str = "") -> list[ServiceRow]:
        for name in names:
            _check_name(name, "service")
        request = pb.ListServicesRequest(ids=names, stack=stack)
        answer = await self._stub.ListServices(request, timeout=CALL_TIMEOUT_SECONDS)
        counts = {status.service_id: (status.running, status.desired, status.completed) for status in answer.statuses}
        rows = answer.services
        return [ServiceRow(from_message(row, Service), *counts.get(row.id, (0, 0, 0))) for row in rows]

    async def service(self, name: str) -> Service:
        """Return the service with this id, name or unique id prefix."""
        rows = await self.services([name])
        if not rows:
            raise NotFound(f"no such service: {name}", remedy="`pyswarm service ls` lists what there is.")
        return rows[0].service

    async def create_service(self, spec: ServiceSpec) -> Service:
        request = pb.CreateServiceRequest(spec=to_message(spec, types_pb2.ServiceSpec))
        return from_message(await self._stub.CreateService(request, timeout=CALL_TIMEOUT_SECONDS), Service)

    async def update_service(self, service: Service, spec: ServiceSpec, *, rollback: bool = False) -> Service:
        """Write `spec`, unless the service changed since `service` was read (OutOfSequence)."""
        request = pb.UpdateServiceRequest(
            id=service.id, version=service.version, spec=to_message(spec, types_pb2.ServiceSpec), rollback=rollback
        )
        return from_message(await self._stub.UpdateService(request, timeout=CALL_TIMEOUT_SECONDS), Service)

    async def hold_update(self, service: Service, *, resume: bool) -> Service:
        """Pause the update that is under way, or let it go on."""
        hold = pb.UPDATE_RESUME if resume else pb.UPDATE_PAUSE
        request = pb.UpdateServiceRequest(id=service.id, version=service.version, hold=hold)
        return from_message(await self._stub.UpdateService(request, timeout=CALL_TIMEOUT_SECONDS), Service)

    async def remove_service(self, service_id: str) -> None:
        await self._stub.RemoveService(pb.RemoveServiceRequest(id=service_id), timeout=CALL_TIMEOUT_SECONDS)

    async def rebalance(self, names: Sequence[str], *, dry_run: bool) -> list[pb.PlannedMove]:
        """Have services spread evenly (all when none is named) and return which tasks are moved where."""
        request = pb.RebalanceServicesRequest(ids=names, dry_run=dry_run)
        answer = await self._stub.RebalanceServices(request, timeout=CALL_TIMEOUT_SECONDS)
        return list(answer.moves)

    async def tasks(
        self,
        *,
        service_ids: Sequence[str] = (),
        node_ids: Sequence[str] = (),
        ids: Sequence[str] = (),
        stack: str = "",
    ) -> TaskList:
        request = pb.ListTasksRequest(service_ids=service_ids, node_ids=node_ids, ids=ids, stack=stack)
        answer = await self._stub.ListTasks(request, timeout=CALL_TIMEOUT_SECONDS)
        return TaskList(
            tuple(from_message(message, Task) for message in answer.tasks),
            {message.id: from_message(message, Revision) for message in answer.revisions},
            {message.id: from_message(message, Node) for message in answer.nodes},
            {message.id: from_message(message, Service) for message in answer.services},
        )

    # -- secrets and configs

    async def create_secret(self, spec: SecretSpec) -> Secret:
        request = pb.CreateSecretRequest(spec=to_message(spec, types_pb2.SecretSpec), data=spec.data)
        return from_message(await self._stub.CreateSecret(request, timeout=CALL_TIMEOUT_SECONDS), Secret)

    async def secrets(self, names: Sequence[str] = ()) -> list[Secret]:
        """Return the secrets of these ids, names or unique id prefixes, without what they hold."""
        answer = await self._stub.ListSecrets(pb.ListSecretsRequest(ids=names), timeout=CALL_TIMEOUT_SECONDS)
        return [from_message(message, Secret) for message in answer.secrets]

    async def remove_secret(self, name: str) -> None:
        await self._stub.RemoveSecret(pb.RemoveSecretRequest(id=name), timeout=CALL_TIMEOUT_SECONDS)

    async def create_config(self, spec: ConfigSpec) -> Config:
        request = pb.CreateConfigRequest(spec=to_message(spec, types_pb2.ConfigSpec))
        return from_message(await self._stub.CreateConfig(request, timeout=CALL_TIMEOUT_SECONDS), Config)

    async def configs(self, names: Sequence[str] = ()) -> list[Config]:
        """Return the configs of these ids, names or unique id prefixes."""
        answer = await self._stub.ListConfigs(pb.ListConfigsRequest(ids=names), timeout=CALL_TIMEOUT_SECONDS)
        return [from_message(message, Config) for message in answer.configs]

    async def remove_config(self, name: str) -> None:
        await self._stub.RemoveConfig(pb.RemoveConfigRequest(id=name), timeout=CALL_TIMEOUT_SECONDS)

    async def rotate_payload(self, kind: str, name: str, data: bytes) -> pb.RotatePayloadResponse:
        """Make a new version of a secret or config and have services use it."""
        request = pb.RotatePayloadRequest(kind=kind, name=name, data=data)
        told: pb.RotatePayloadResponse = await self._stub.RotatePayload(request, timeout=CALL_TIMEOUT_SECONDS)
        return told

    async def prune_payloads(self, kind: str, *, everything: bool) -> list[str]:
        request = pb.PrunePayloadsRequest(kind=kind, everything=everything)
        return list((await self._stub.PrunePayloads(request, timeout=CALL_TIMEOUT_SECONDS)).names)

    # -- stacks

    async def apply_stack(
        self,
        name: str,
        services: Sequence[ServiceSpec],
        *,
        secrets: Sequence[SecretSpec] = (),
        configs: Sequence[ConfigSpec] = (),
        prune: bool,
    ) -> list[StackChange]:
        request = _apply_request(name, services, secrets, configs, prune)
        answer = await self._stub.ApplyStack(request, timeout=CALL_TIMEOUT_SECONDS)
        return [StackChange(change.id, change.name, change.action, change.kind) for change in answer.changes]

    async def plan_stack(
        self,
        name: str,
        services: Sequence[ServiceSpec],
        *,
        secrets: Sequence[SecretSpec] = (),
        configs: Sequence[ConfigSpec] = (),
        prune: bool,
    ) -> pb.StackPlan:
        """Return what `apply_stack` would do."""
        request = _apply_request(name, services, secrets, configs, prune)
        told: pb.StackPlan = await self._stub.PlanStack(request, timeout=CALL_TIMEOUT_SECONDS)
        return told

    async def rollback_stack(self, name: str) -> list[StackChange]:
        answer = await self._stub.RollbackStack(pb.RollbackStackRequest(name=name), timeout=CALL_TIMEOUT_SECONDS)
        return [StackChange(change.id, change.name, change.action, change.kind) for change in answer.changes]

    async def remove_stack(self, name: str) -> list[StackChange]:
        answer = await self._stub.RemoveStack(pb.RemoveStackRequest(name=name), timeout=CALL_TIMEOUT_SECONDS)
        return [StackChange(change.id, change.name, change.action, change.kind) for change in answer.changes]

    async def explain(self, name: str) -> pb.Explanation:
        """Return why the task, service or node of this name is as it is."""
        _check_name(name, "task, service or node")
        told: pb.Explanation = await self._stub.Explain(pb.ExplainRequest(name=name), timeout=CALL_TIMEOUT_SECONDS)
        return told

    # -- streams: these last as long as the caller reads them

    async def backup(self) -> AsyncIterator[BackupFacts | bytes]:
        """Yield what a backup is of, then its pieces."""
        async for message in self._stub.Backup(pb.BackupRequest()):
            if message.HasField("facts"):
                told = message.facts
                yield BackupFacts(told.cluster_id, told.version, told.created_at, told.server_version)
            else:
                yield message.piece

    def events(self, *, since: float, until: float, kinds: Sequence[str]) -> AsyncIterator[pb.ClusterEvent]:
        """A first message that says since when the manager remembers, then what happened and happens."""
        return aiter(self._stub.Events(pb.EventsRequest(since=since, until=until, kinds=kinds)))

    def watch(
        self,
        *,
        kinds: Sequence[str],
        service_id: str = "",
        node_id: str = "",
        stack: str = "",
        after_version: int = 0,
    ) -> AsyncIterator[pb.WatchEvents]:
        """An empty message once the watch is in place, then one per commit that touches what was asked for.

        With `after_version` it goes on behind that version instead of the present one; `VersionTooOld` says that the
        managers do not remember so far back.
        """
        request = pb.WatchRequest(
            kinds=kinds, service_id=service_id, node_id=node_id, stack=stack, after_version=after_version
        )
        return aiter(self._stub.Watch(request))

    def logs(
        self, *, service_ids: Sequence[str], task_ids: Sequence[str], options: logs_pb2.LogOptions
    ) -> AsyncIterator[logs_pb2.LogMessage]:
        request = logs_pb2.SubscribeLogsRequest(service_ids=service_ids, task_ids=task_ids, options=options)
        return aiter(self._logs.SubscribeLogs(request))


def _apply_request(
    name: str,
    services: Sequence[ServiceSpec],
    secrets: Sequence[SecretSpec],
    configs: Sequence[ConfigSpec],
    prune: bool,
) -> pb.ApplyStackRequest:
    return pb.ApplyStackRequest(
        name=name,
        services=[to_message(spec, types_pb2.ServiceSpec) for spec in services],
        secrets=[pb.NewSecret(spec=to_message(s, types_pb2.SecretSpec), data=s.data) for s in secrets],
        configs=[to_message(spec, types_pb2.ConfigSpec) for spec in configs],
        prune=prune,
    )


@asynccontextmanager
async def connect(settings: Settings) -> AsyncIterator[ControlClient]:
    """Yield a client of the manager that `settings` mean. Raises NotAManager, Unavailable."""
    if settings.host:
        channel = open_channel(with_port(settings.host), channel_credentials(settings.paths.certificates))
    else:
        await _check_local_manager(settings)
        channel = open_unix_channel(str(settings.paths.manager_socket))
    async with channel:
        yield ControlClient(channel)


async def _check_local_manager(settings: Settings) -> None:
    """Raises NotAManager when this node runs no manager, Locked or Unavailable when its manager is not up."""
    if settings.paths.manager_socket.exists():
        return
    role = _stored_role(settings)
    if role == "manager":
        if (await ask(settings, "status", timeout_seconds=STATUS_TIMEOUT_SECONDS)).get("locked"):
            raise Locked("this node's manager is locked: it needs to be unlocked before it can be used")
        raise Unavailable(
            "this node's manager does not run",
            remedy=f"See `pyswarm info` and {settings.paths.logs / 'pyswarm-manager.log'}.",
        )
    if role == "worker":
        raise NotAManager(
            "This node is a worker: worker nodes cannot be used to view or change the cluster.",
            remedy="Run this command on a manager, or promote this node there: `pyswarm node promote`.",
        )
    raise NotAManager(
        "This node is not a swarm manager.",
        remedy='Use "pyswarm init" or "pyswarm join" to connect this node to a cluster and try again.',
    )


def _stored_role(settings: Settings) -> str:
    try:
        stored = json.loads(settings.paths.node_file.read_text())
    except FileNotFoundError:
        return ""
    return str(stored.get("role", ""))


def _check_name(name: str, kind: str) -> None:
    if not name.strip():
        raise InvalidArgument(f"an empty name is no {kind}", remedy=f"Give the name or id of a {kind}.")
