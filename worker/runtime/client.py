"""The runtime over gRPC: `RuntimePort` on agent_runtime's unix socket. Reconnects by itself."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from pyswarm.proto.errors import Unavailable
from pyswarm.proto.rpc.client import open_unix_channel
from pyswarm.proto.v1 import runtime_pb2 as pb
from pyswarm.proto.v1 import runtime_pb2_grpc
from pyswarm.worker.runtime.port import OUTPUT_BYTES, Executed

CREATE_SECONDS = 60.0
STOP_MARGIN_SECONDS = 30.0
"""Given to a stop on top of the grace period: for SIGKILL and cleaning up."""
EXEC_MARGIN_SECONDS = 90.0
"""Given to an exec on top of its own timeout: for being cloned on a busy machine, and for dying."""


class RuntimeClient:
    """Implements `RuntimePort`. Make it inside the event loop; close it at the end."""

    def __init__(self, socket: Path) -> None:
        self._channel = open_unix_channel(socket)
        self._stub = runtime_pb2_grpc.RuntimeStub(self._channel)

    async def close(self) -> None:
        await self._channel.close(None)

    async def version(self) -> pb.RuntimeVersion:
        return await self._stub.GetVersion(pb.GetVersionRequest())

    async def pull(self, reference: str) -> AsyncIterator[pb.PullProgress]:
        async for progress in self._stub.PullImage(pb.PullImageRequest(reference=reference)):
            yield progress

    async def images(self) -> list[pb.Image]:
        return list((await self._stub.ListImages(pb.ListImagesRequest())).images)

    async def create(self, container_id: str, config: pb.ContainerConfig) -> pb.Container:
        request = pb.CreateContainerRequest(id=container_id, config=config)
        return await self._stub.CreateContainer(request, timeout=CREATE_SECONDS)

    async def start(self, container_id: str) -> pb.Container:
        return await self._stub.StartContainer(pb.ContainerId(id=container_id), timeout=CREATE_SECONDS)

    async def stop(self, container_id: str, *, grace_seconds: float) -> pb.Container:
        request = pb.StopContainerRequest(id=container_id, grace_seconds=grace_seconds)
        return await self._stub.StopContainer(request, timeout=grace_seconds + STOP_MARGIN_SECONDS)

    async def kill(self, container_id: str, signal: str) -> None:
        await self._stub.KillContainer(pb.KillContainerRequest(id=container_id, signal=signal), timeout=CREATE_SECONDS)

    async def remove(self, container_id: str, *, force: bool = False) -> None:
        request = pb.RemoveContainerRequest(id=container_id, force=force)
        await self._stub.RemoveContainer(request, timeout=STOP_MARGIN_SECONDS)

    async def execute(self, container_id: str, args: Sequence[str], *, timeout_seconds: float) -> Executed:
        config = pb.ExecConfig(container=container_id, args=args, timeout_seconds=timeout_seconds)
        kept = b""
        async for said in self._stub.ExecContainer(
            iter([pb.ExecInput(start=config)]), timeout=timeout_seconds + EXEC_MARGIN_SECONDS
        ):
            if said.HasField("end"):
                # Why it could not be executed is not among what it wrote.
                output = kept or said.end.error.encode()[:OUTPUT_BYTES]
                return Executed(said.end.exit_code, output, said.end.timed_out)
            kept += (said.stdout or said.stderr)[: OUTPUT_BYTES - len(kept)]
        raise Unavailable("the runtime ended the call without an answer", remedy="Try again.")

    async def report_health(self, container_id: str, health: pb.ContainerHealth) -> pb.Container:
        request = pb.ReportHealthRequest(id=container_id, health=health)
        return await self._stub.ReportHealth(request, timeout=CREATE_SECONDS)

    async def containers(self) -> list[pb.Container]:
        return list((await self._stub.ListContainers(pb.ListContainersRequest())).containers)

    async def watch(self) -> AsyncIterator[pb.Container]:
        async for container in self._stub.WatchContainers(pb.WatchContainersRequest()):
            yield container

    async def logs(
        self, container_id: str, *, follow: bool, tail: int, since: float, until: float = 0.0
    ) -> AsyncIterator[pb.LogRecord]:
        request = pb.ReadLogsRequest(id=container_id, follow=follow, tail=tail, since=since, until=until)
        async for record in self._stub.ReadLogs(request):
            yield record
