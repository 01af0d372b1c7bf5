"""A control API in memory, on a real unix socket behind the real gate, for tests of its clients.

It keeps objects in dictionaries and changes them when told. `on_write` holds what shall happen after the next
write: one step after each time a client has looked, so that a client that follows sees every step, without sleeps.
"""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from pyswarm.proto.codec.messages import from_message, to_message
from pyswarm.proto.errors import AlreadyExists, FailedPrecondition, NotFound, OutOfSequence
from pyswarm.proto.model.objects import (
    Cluster,
    Config,
    JoinTokens,
    Node,
    Revision,
    RootCA,
    Secret,
    Service,
    Task,
    revision_id,
)
from pyswarm.proto.model.spec import ClusterSpec, ConfigSpec, NodeSpec, SecretSpec, ServiceSpec
from pyswarm.proto.model.states import Role, UpdateState
from pyswarm.proto.rpc.server import serve_unix
from pyswarm.proto.v1 import control_pb2 as pb
from pyswarm.proto.v1 import control_pb2_grpc, logs_pb2, logs_pb2_grpc, types_pb2

Step = Callable[["FakeControl"], None]


class FakeControl(control_pb2_grpc.ControlServicer):
    def __init__(self) -> None:
        self.cluster = Cluster(
            "cluster1", root_ca=RootCA(join_tokens=JoinTokens("SWMTKN-1-d-worker", "SWMTKN-1-d-manager"))
        )
        self.self_id = "n1"
        self.nodes: dict[str, Node] = {}
        self.services: dict[str, Service] = {}
        self.secrets: dict[str, Secret] = {}
        self.configs: dict[str, Config] = {}
        self.completed: dict[str, int] = {}
        """How many tasks of a job, by its id, have completed."""
        self.tasks: dict[str, Task] = {}
        self.revisions: dict[str, Revision] = {}
        self.requests: list[Any] = []
        self.on_write: list[Step] = []
        self.logs: list[logs_pb2.LogMessage] = []
        self._steps: deque[Step] = deque()
        self._watchers: list[asyncio.Event] = []
        self._version = 100

    def add(self, *objects: Node | Service | Task | Revision) -> None:
        for stored in objects:
            kinds: dict[type, dict[str, Any]] = {
                Node: self.nodes,
                Service: self.services,
                Task: self.tasks,
                Revision: self.revisions,
            }
            kinds[type(stored)][stored.id] = stored

    def asked(self, kind: type) -> Any:
        """The last request of that type."""
        return next(request for request in reversed(self.requests) if isinstance(request, kind))

    def after_next_look(self, step: Step) -> None:
        """Do this once a client has read the tasks next."""
        self._steps.append(step)

    # -- the service

    async def GetInfo(self, request: Any, context: Any) -> pb.Info:
        return pb.Info(
            node_id=self.self_id, cluster_id="cluster1", leader_node_id="n1", is_leader=self.self_id == "n1", term=3,
            applied_version=self._version, managers=1, nodes=len(self.nodes), server_version="9.9",
            leader_addr="l:2377",
        )  # fmt: skip

    async def GetCluster(self, request: Any, context: Any) -> types_pb2.Cluster:
        return to_message(self.cluster, types_pb2.Cluster)

    async def UpdateCluster(self, request: pb.UpdateClusterRequest, context: Any) -> types_pb2.Cluster:
        self.requests.append(request)
        spec = from_message(request.spec, ClusterSpec)
        is_fresh = spec.autolock and (request.rotate_unlock_key or not self.cluster.unlock_key)
        key = bytes([len(self.requests)]) * 32 if is_fresh else self.cluster.unlock_key
        self.cluster = replace(self.cluster, spec=spec, unlock_key=key if spec.autolock else b"")
        return to_message(self.cluster, types_pb2.Cluster)

    async def GetUnlockKey(self, request: pb.GetUnlockKeyRequest, context: Any) -> pb.UnlockKey:
        return pb.UnlockKey(key=self.cluster.unlock_key, version=self.cluster.version)

    async def RotateJoinToken(self, request: pb.RotateJoinTokenRequest, context: Any) -> types_pb2.JoinTokens:
        self.requests.append(request)
        tokens = replace(self.cluster.root_ca.join_tokens, worker="SWMTKN-1-d-fresh")
        return to_message(tokens, types_pb2.JoinTokens)

    async def ListNodes(self, request: pb.ListNodesRequest, context: Any) -> pb.ListNodesResponse:
        found = [self._node(name) for name in request.ids] or list(self.nodes.values())
        return pb.ListNodesResponse(nodes=[to_message(node, types_pb2.Node) for node in found])

    async def UpdateNode(self, request: pb.UpdateNodeRequest, context: Any) -> types_pb2.Node:
        self.requests.append(request)
        node = replace(self._node(request.id), spec=from_message(request.spec, NodeSpec))
        self.nodes[node.id] = node
        return to_message(node, types_pb2.Node)

    async def RemoveNode(self, request: pb.RemoveNodeRequest, context: Any) -> pb.RemoveNodeResponse:
        self.requests.append(request)
        if self._node(request.id).role is Role.MANAGER and not request.force:
            raise FailedPrecondition(f"node {request.id} is not down", remedy="Use --force.")
        del self.nodes[self._node(request.id).id]
        return pb.RemoveNodeResponse()

    async def CreateService(self, request: pb.CreateServiceRequest, context: Any) -> types_pb2.Service:
        self.requests.append(request)
        spec = from_message(request.spec, ServiceSpec)
        if any(s.spec.name == spec.name for s in self.services.values()):
            raise AlreadyExists(f"a service named {spec.name} exists", remedy="Choose another name.")
        return to_message(self._store(Service(id=f"service-{spec.name}", spec=spec)), types_pb2.Service)

    async def UpdateService(self, request: pb.UpdateServiceRequest, context: Any) -> types_pb2.Service:
        self.requests.append(request)
        old = self.services[request.id]
        if request.version != old.version:
            raise OutOfSequence(f"service {old.spec.name} is at version {old.version}, not {request.version}")
        if request.hold:
            state = UpdateState.UPDATING if request.hold == pb.UPDATE_RESUME else UpdateState.PAUSED
            status = replace(old.update_status, state=state)
            return to_message(self._store(replace(old, update_status=status)), types_pb2.Service)
        spec = from_message(request.spec, ServiceSpec)
        is_new = spec.task_template != old.spec.task_template
        return to_message(
            self._store(replace(old, spec=spec, previous_spec=old.spec, spec_version=old.spec_version + is_new)),
            types_pb2.Service,
        )

    async def RemoveService(self, request: pb.RemoveServiceRequest, context: Any) -> pb.RemoveServiceResponse:
        self.requests.append(request)
        del self.services[request.id]
        return pb.RemoveServiceResponse()

    async def ListServices(self, request: pb.ListServicesRequest, context: Any) -> pb.ListServicesResponse:
        found = [self._service(name) for name in request.ids] or [
            service for service in self.services.values() if not request.stack or service.stack == request.stack
        ]
        response = pb.ListServicesResponse()
        for service in found:
            running = [t for t in self.tasks.values() if t.service_id == service.id and t.is_live and t.state == 512]
            response.services.append(to_message(service, types_pb2.Service))
            response.statuses.append(
                pb.ServiceStatus(
                    service_id=service.id,
                    running=len(running),
                    desired=self._desired(service),
                    completed=self.completed.get(service.id, 0),
                )
            )
        return response

    def _desired(self, service: Service) -> int:
        mode = service.spec.mode
        if mode.replicated_job is not None:
            return mode.replicated_job.max_concurrent
        return mode.replicated.replicas if mode.replicated is not None else len(self.nodes)

    async def ListTasks(self, request: pb.ListTasksRequest, context: Any) -> pb.ListTasksResponse:
        services = {*request.service_ids, *(s.id for s in self.services.values() if s.stack == request.stack != "")}
        found = [
            task
            for task in self.tasks.values()
            if (not services or task.service_id in services)
            and (not request.node_ids or task.node_id in request.node_ids)
            and (not request.ids or any(task.id.startswith(wanted) for wanted in request.ids))
        ]
        response = pb.ListTasksResponse(
            tasks=[to_message(task, types_pb2.Task) for task in found],
            revisions=[to_message(revision, types_pb2.Revision) for revision in self.revisions.values()],
            nodes=[to_message(node, types_pb2.Node) for node in self.nodes.values()],
            services=[to_message(service, types_pb2.Service) for service in self.services.values()],
        )
        if self._steps:
            self._steps.popleft()(self)
            for watcher in self._watchers:
                watcher.set()
        return response

    # -- secrets and configs

    async def CreateSecret(self, request: pb.CreateSecretRequest, context: Any) -> types_pb2.Secret:
        self.requests.append(request)
        secret = Secret(id=f"secret-{request.spec.name}", version=7, spec=SecretSpec(request.spec.name, {}))
        self.secrets[secret.id] = secret
        return to_message(secret, types_pb2.Secret)

    async def ListSecrets(self, request: pb.ListSecretsRequest, context: Any) -> pb.ListSecretsResponse:
        found = [
            s for s in self.secrets.values() if not request.ids or s.id in request.ids or s.spec.name in request.ids
        ]
        if request.ids and not found:
            raise NotFound(f"no such secret: {request.ids[0]}", remedy="`pyswarm secret ls` lists what there is.")
        return pb.ListSecretsResponse(secrets=[to_message(s, types_pb2.Secret) for s in found])

    async def RemoveSecret(self, request: pb.RemoveSecretRequest, context: Any) -> pb.RemoveSecretResponse:
        if self.secrets.pop(f"secret-{request.id}", None) is None:
            raise NotFound(f"no such secret: {request.id}")
        return pb.RemoveSecretResponse()

    async def CreateConfig(self, request: pb.CreateConfigRequest, context: Any) -> types_pb2.Config:
        self.requests.append(request)
        config = Config(id=f"config-{request.spec.name}", version=7, spec=from_message(request.spec, ConfigSpec))
        self.configs[config.id] = config
        return to_message(config, types_pb2.Config)

    async def ListConfigs(self, request: pb.ListConfigsRequest, context: Any) -> pb.ListConfigsResponse:
        found = [c for c in self.configs.values() if not request.ids or c.spec.name in request.ids]
        return pb.ListConfigsResponse(configs=[to_message(c, types_pb2.Config) for c in found])

    # -- stacks

    async def ApplyStack(self, request: pb.ApplyStackRequest, context: Any) -> pb.ApplyStackResponse:
        self.requests.append(request)
        changes = []
        for message in request.services:
            spec = from_message(message, ServiceSpec)
            old = self.services.get(f"service-{spec.name}")
            action = "created" if old is None else "unchanged" if old.spec == spec else "updated"
            self._store(replace(old, spec=spec) if old else Service(id=f"service-{spec.name}", spec=spec))
            changes.append(pb.StackChange(id=f"service-{spec.name}", name=spec.name, action=action, kind="service"))
        return pb.ApplyStackResponse(changes=changes)

    async def RemoveStack(self, request: pb.RemoveStackRequest, context: Any) -> pb.RemoveStackResponse:
        gone = [service for service in self.services.values() if service.stack == request.name]
        for service in gone:
            del self.services[service.id]
        changes = [pb.StackChange(id=s.id, name=s.spec.name, action="removed", kind="service") for s in gone]
        return pb.RemoveStackResponse(changes=changes)

    async def Watch(self, request: pb.WatchRequest, context: Any) -> AsyncIterator[pb.WatchEvents]:
        changed = asyncio.Event()
        self._watchers.append(changed)
        yield pb.WatchEvents()
        while True:
            await changed.wait()
            changed.clear()
            yield pb.WatchEvents(events=[pb.WatchEvent(action="update", kind="task", id="any")])

    # -- its state

    def _store(self, service: Service) -> Service:
        self._version += 1
        stored = replace(service, version=self._version, ports=service.spec.endpoint_spec.ports)
        revision = Revision(
            id=revision_id(stored.id, stored.spec_version),
            service_id=stored.id,
            spec_version=stored.spec_version,
            task_template=stored.spec.task_template,
            service_name=stored.spec.name,
        )
        self.add(stored, revision)
        self._steps.extend(self.on_write)
        self.on_write = []
        return stored

    def _node(self, name: str) -> Node:
        for node in self.nodes.values():
            if name in (node.id, node.description.hostname):
                return node
        raise NotFound(f"no such node: {name}", remedy="`pyswarm node ls` lists what there is.")

    def _service(self, name: str) -> Service:
        for service in self.services.values():
            if name in (service.id, service.spec.name):
                return service
        raise NotFound(f"no such service: {name}", remedy="`pyswarm service ls` lists what there is.")


class FakeLogs(logs_pb2_grpc.LogsServicer):
    def __init__(self, control: FakeControl) -> None:
        self._control = control

    async def SubscribeLogs(self, request: Any, context: Any) -> AsyncIterator[logs_pb2.LogMessage]:
        self._control.requests.append(request)
        for message in self._control.logs:
            yield message


@contextlib.contextmanager
def serving(path: Path, *add_servicers: Callable[[Any], None]) -> Iterator[None]:
    """Serve on a unix socket from a thread with a loop of its own, as long as the context lasts."""
    started: Future[Callable[[], object]] = Future()

    async def serve() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        try:
            server = await serve_unix(path, add_servicers)
        except BaseException as error:
            started.set_exception(error)
            raise
        started.set_result(partial(loop.call_soon_threadsafe, stop.set))
        await stop.wait()
        await server.stop(None)

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    stop = started.result(20)
    try:
        yield
    finally:
        stop()
        thread.join(20)
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def serving_control(path: Path, control: FakeControl) -> Iterator[None]:
    with serving(
        path,
        lambda server: control_pb2_grpc.add_ControlServicer_to_server(control, server),
        lambda server: logs_pb2_grpc.add_LogsServicer_to_server(FakeLogs(control), server),
    ):
        yield
