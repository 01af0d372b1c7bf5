"""The containers of this node, through its runtime's unix socket."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

from google.protobuf.json_format import MessageToDict

from pyswarm.manager.cli.client.runtime import CALL_TIMEOUT_SECONDS, runtime_channel
from pyswarm.manager.cli.settings import Settings
from pyswarm.manager.cli.view.containers import StoredContainer
from pyswarm.proto.errors import InvalidArgument, NotFound
from pyswarm.proto.v1 import runtime_pb2 as pb
from pyswarm.proto.v1 import runtime_pb2_grpc

_STATES = {
    pb.CREATING: "created", pb.CREATED: "created", pb.CONTAINER_RUNNING: "running", pb.CONTAINER_PAUSED: "paused",
    pb.STOPPED: "exited",
}  # fmt: skip
_STOP_TIMEOUT_SECONDS = 90.0
"""What stopping may take beyond the grace period."""


class ContainersClient:
    def __init__(self, channel: Any) -> None:
        self._stub = cast("runtime_pb2_grpc.RuntimeAsyncStub", runtime_pb2_grpc.RuntimeStub(channel))

    async def containers(self) -> list[StoredContainer]:
        answer = await self._stub.ListContainers(pb.ListContainersRequest(), timeout=CALL_TIMEOUT_SECONDS)
        return [_container(message) for message in answer.containers]

    async def find(self, name: str) -> str:
        """Return the id of the container with this id, or the only one whose id begins so."""
        ids = [container.id for container in await self.containers()]
        found = [name] if name in ids else [one for one in ids if name and one.startswith(name)]
        if len(found) == 1:
            return found[0]
        if found:
            raise InvalidArgument(f"{len(found)} ids begin with {name}", remedy="Write more of it.")
        raise NotFound(f"no such container: {name}", remedy="`pyswarm container ls -a` lists those on this node.")

    async def facts(self, name: str) -> dict[str, Any]:
        """Return everything that the runtime tells of a container."""
        request = pb.ContainerId(id=await self.find(name))
        message = await self._stub.GetContainer(request, timeout=CALL_TIMEOUT_SECONDS)
        return MessageToDict(message, always_print_fields_with_no_presence=True)

    async def stop(self, name: str, grace_seconds: float | None) -> None:
        """Ask it to stop and kill it after the grace period, which is its own if None."""
        request = pb.StopContainerRequest(
            id=await self.find(name), grace_seconds=grace_seconds or 0, use_default_grace=grace_seconds is None
        )
        await self._stub.StopContainer(request, timeout=_STOP_TIMEOUT_SECONDS + (grace_seconds or 0))

    async def kill(self, name: str, signal: str) -> None:
        request = pb.KillContainerRequest(id=await self.find(name), signal=signal)
        await self._stub.KillContainer(request, timeout=CALL_TIMEOUT_SECONDS)

    async def remove(self, name: str, *, force: bool) -> None:
        request = pb.RemoveContainerRequest(id=await self.find(name), force=force)
        await self._stub.RemoveContainer(request, timeout=_STOP_TIMEOUT_SECONDS)

    async def wait(self, name: str) -> int:
        """Return the exit code once it has stopped, however long that takes."""
        stopped = await self._stub.WaitContainer(pb.ContainerId(id=await self.find(name)), timeout=_FOR_EVER_SECONDS)
        return stopped.exit_code

    async def pause(self, name: str) -> None:
        await self._stub.PauseContainer(pb.ContainerId(id=await self.find(name)), timeout=CALL_TIMEOUT_SECONDS)

    async def unpause(self, name: str) -> None:
        await self._stub.UnpauseContainer(pb.ContainerId(id=await self.find(name)), timeout=CALL_TIMEOUT_SECONDS)

    async def update(self, name: str, *, nano_cpus: int | None, memory_bytes: int | None, pids: int | None) -> None:
        """Change the limits that are not None; 0 takes one away."""
        request = pb.UpdateContainerRequest(
            id=await self.find(name), nano_cpus=nano_cpus, memory_bytes=memory_bytes, pids=pids
        )
        await self._stub.UpdateContainer(request, timeout=CALL_TIMEOUT_SECONDS)

    async def stats(self, ids: Sequence[str]) -> list[pb.ContainerStats]:
        """Return what these have used; all that run, if none is named."""
        answer = await self._stub.GetStats(pb.GetStatsRequest(ids=ids), timeout=CALL_TIMEOUT_SECONDS)
        return list(answer.stats)

    async def top(self, name: str) -> list[pb.ProcessRow]:
        request = pb.ContainerId(id=await self.find(name))
        return list((await self._stub.TopContainer(request, timeout=CALL_TIMEOUT_SECONDS)).processes)

    async def logs(
        self, name: str, *, follow: bool, tail: int, since: float, until: float
    ) -> AsyncIterator[pb.LogRecord]:
        request = pb.ReadLogsRequest(id=await self.find(name), follow=follow, tail=tail, since=since, until=until)
        async for record in self._stub.ReadLogs(request):
            yield record

    async def events(self, *, since: float, until: float) -> AsyncIterator[pb.ContainerEvent]:
        """Yield what the runtime remembers from `since` on, and what happens (0: no bound)."""
        async for event in self._stub.WatchEvents(pb.WatchEventsRequest(since=since, until=until)):
            yield event

    def attach(self, inputs: AsyncIterator[pb.ExecInput]) -> AsyncIterator[pb.ExecOutput]:
        """Be attached to a running container; the first input names it."""
        return aiter(self._stub.AttachContainer(inputs))

    async def has_terminal(self, container_id: str) -> bool:
        message = await self._stub.GetContainer(pb.ContainerId(id=container_id), timeout=CALL_TIMEOUT_SECONDS)
        return message.config.tty

    def execute(self, inputs: AsyncIterator[pb.ExecInput]) -> AsyncIterator[pb.ExecOutput]:
        return aiter(self._stub.ExecContainer(inputs))


_FOR_EVER_SECONDS = 10.0 * 365 * 86400


@asynccontextmanager
async def connect_containers(settings: Settings) -> AsyncIterator[ContainersClient]:
    """Yield a client of this node's containers. Raises Unavailable when its runtime is not up."""
    async with runtime_channel(settings) as channel:
        yield ContainersClient(channel)


def _container(message: pb.Container) -> StoredContainer:
    config = message.config
    return StoredContainer(
        message.id,
        config.image,
        (*config.entrypoint, *config.args),
        dict(config.labels),
        _STATES.get(message.state, "created"),
        message.created_at,
        message.started_at,
        message.finished_at,
        message.exit_code,
        message.health.status,
    )
