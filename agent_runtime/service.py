"""The Runtime service: decode, call, encode. Errors are raised; proto/rpc turns them into statuses."""

import asyncio
import os
from collections.abc import AsyncIterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import grpc

from pyswarm.agent_runtime.container.adjust import Adjustments
from pyswarm.agent_runtime.container.attach import Attachment
from pyswarm.agent_runtime.container.containers import Containers
from pyswarm.agent_runtime.container.exec_session import ExecSession
from pyswarm.agent_runtime.container.exec_streams import Streams
from pyswarm.agent_runtime.container.execs import CannotExecute, Execs, Running
from pyswarm.agent_runtime.container.images import ImageStore
from pyswarm.agent_runtime.container.record import LOST_EXIT_CODE, Record
from pyswarm.agent_runtime.container.statistics import Statistics
from pyswarm.agent_runtime.kernel.process import exit_code
from pyswarm.proto.errors import SwarmError
from pyswarm.proto.log import get_logger
from pyswarm.proto.v1 import runtime_pb2 as pb
from pyswarm.proto.v1 import runtime_pb2_grpc as rpc
from pyswarm.proto.v1 import types_pb2 as types

log = get_logger(__name__)

_PROGRESS_QUEUE = 256


class RuntimeService(rpc.RuntimeServicer):
    """Images and containers of this node. `cgroup_version`: v1, v2 or hybrid; `tasks` owns pulls under way."""

    def __init__(
        self,
        containers: Containers,
        execs: Execs,
        adjustments: Adjustments,
        statistics: Statistics,
        images: ImageStore,
        cgroup_version: str,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._containers = containers
        self._adjustments = adjustments
        self._statistics = statistics
        self._execs = execs
        self._sessions: set[asyncio.Task[None]] = set()
        self._images = images
        self._cgroup_version = cgroup_version
        self._tasks = tasks

    async def GetVersion(self, request: pb.GetVersionRequest, context: Any) -> pb.RuntimeVersion:
        return pb.RuntimeVersion(
            version=_version(),
            cgroup_version=self._cgroup_version,
            kernel=os.uname().release,
            capacity=types.Resources(
                nano_cpus=len(os.sched_getaffinity(0)) * 1_000_000_000,
                memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
            ),
        )

    async def PullImage(self, request: pb.PullImageRequest, context: Any) -> AsyncIterator[pb.PullProgress]:
        # Progress is news, not history: when nobody reads as fast, the oldest is dropped.
        progress: asyncio.Queue[pb.PullProgress | str | Exception] = asyncio.Queue(_PROGRESS_QUEUE)

        def report(step: pb.PullProgress | str | Exception) -> None:
            if progress.full():
                progress.get_nowait()
            progress.put_nowait(step)

        async def pull() -> None:
            try:
                image = await self._images.pull(request.reference, report)
                report(image.id)
            except Exception as error:  # noqa: BLE001 - handed to the caller below
                report(error)

        pulling = self._tasks.create_task(pull())
        try:
            while isinstance(step := await progress.get(), pb.PullProgress):
                yield step
            if isinstance(step, Exception):
                raise step
            for image in await self._images.images():
                if image.id == step:
                    yield pb.PullProgress(status="done", image=image)
        finally:
            pulling.cancel()

    async def LoadImage(self, request_iterator: AsyncIterator[pb.LoadImageChunk], context: Any) -> pb.LoadImageResponse:
        loaded = await self._images.load(chunk.data async for chunk in request_iterator)
        ids = {image.id for image in loaded}
        return pb.LoadImageResponse(images=[image for image in await self._images.images() if image.id in ids])

    async def ListImages(self, request: pb.ListImagesRequest, context: Any) -> pb.ListImagesResponse:
        return pb.ListImagesResponse(images=await self._images.images())

    async def RemoveImage(self, request: pb.RemoveImageRequest, context: Any) -> pb.RemoveImageResponse:
        untagged, deleted = await self._images.remove(
            request.reference, force=request.force, in_use=self._containers.uses_image
        )
        return pb.RemoveImageResponse(untagged=untagged, deleted=deleted)

    async def CreateContainer(self, request: pb.CreateContainerRequest, context: Any) -> pb.Container:
        return await self._containers.create(request.id, request.config)

    async def StartContainer(self, request: pb.ContainerId, context: Any) -> pb.Container:
        return await self._containers.start(request.id)

    async def RunContainer(self, request: pb.RunContainerRequest, context: Any) -> AsyncIterator[pb.Container]:
        async for container in self._containers.run(request.id, request.config, remove=request.remove):
            yield container

    async def StopContainer(self, request: pb.StopContainerRequest, context: Any) -> pb.Container:
        grace = None if request.use_default_grace else max(0.0, request.grace_seconds)
        return await self._containers.stop(request.id, grace)

    async def KillContainer(self, request: pb.KillContainerRequest, context: Any) -> pb.Container:
        return await self._containers.kill(request.id, request.signal)

    async def RemoveContainer(self, request: pb.RemoveContainerRequest, context: Any) -> pb.RemoveContainerResponse:
        await self._containers.remove(request.id, force=request.force)
        return pb.RemoveContainerResponse()

    async def GetContainer(self, request: pb.ContainerId, context: Any) -> pb.Container:
        return self._containers.get(request.id)

    async def ListContainers(self, request: pb.ListContainersRequest, context: Any) -> pb.ListContainersResponse:
        return pb.ListContainersResponse(containers=self._containers.all())

    async def WaitContainer(self, request: pb.ContainerId, context: Any) -> pb.Container:
        return await self._containers.wait(request.id)

    async def WatchContainers(self, request: pb.WatchContainersRequest, context: Any) -> AsyncIterator[pb.Container]:
        async for container in self._containers.watch():
            yield container

    async def PauseContainer(self, request: pb.ContainerId, context: Any) -> pb.Container:
        return await self._adjustments.pause(request.id)

    async def UnpauseContainer(self, request: pb.ContainerId, context: Any) -> pb.Container:
        return await self._adjustments.unpause(request.id)

    async def UpdateContainer(self, request: pb.UpdateContainerRequest, context: Any) -> pb.Container:
        return await self._adjustments.update(request)

    async def ReportHealth(self, request: pb.ReportHealthRequest, context: Any) -> pb.Container:
        return self._adjustments.report_health(request.id, request.health)

    async def GetStats(self, request: pb.GetStatsRequest, context: Any) -> pb.GetStatsResponse:
        return pb.GetStatsResponse(stats=await self._statistics.usage(request.ids))

    async def TopContainer(self, request: pb.ContainerId, context: Any) -> pb.TopContainerResponse:
        return pb.TopContainerResponse(processes=await self._statistics.top(request.id))

    async def ExecContainer(
        self, request_iterator: AsyncIterator[pb.ExecInput], context: Any
    ) -> AsyncIterator[pb.ExecOutput]:
        inputs = aiter(request_iterator)
        config = (await anext(inputs, pb.ExecInput())).start
        record = self._containers.record(config.container)
        streams = Streams(tty=config.tty, stdin=config.stdin and not config.detach)
        try:
            streams.resize(config.size.rows, config.size.columns)
            running = await self._execs.start(config, streams)
        except CannotExecute as error:
            streams.close()
            yield pb.ExecOutput(end=pb.ExecEnd(exit_code=error.exit_code, error=error.reason))
            return
        except BaseException:
            streams.close()
            raise
        self._tell_of(config, record, running)
        session = ExecSession(running, streams, self._tasks, timeout_seconds=config.timeout_seconds or None)
        self._sessions.add(session.task)
        session.task.add_done_callback(self._sessions.discard)
        feeding = self._tasks.create_task(_feed(session, inputs))
        try:
            yield pb.ExecOutput(pid=running.process.pid)
            if not config.detach:
                async for output in session.hear():
                    yield output
        finally:
            feeding.cancel()
            session.abandon()

    def _tell_of(self, config: pb.ExecConfig, record: Record, running: Running) -> None:
        events = self._containers.events
        events.tell("exec_start", record, command=" ".join(config.args))

        def tell_of_end(ended: asyncio.Future[int | None]) -> None:
            if not ended.cancelled():
                status = ended.result()
                code = LOST_EXIT_CODE if status is None else exit_code(status)
                events.tell("exec_die", record, command=" ".join(config.args), exitCode=code)

        running.ended.add_done_callback(tell_of_end)

    async def WatchEvents(self, request: pb.WatchEventsRequest, context: Any) -> AsyncIterator[pb.ContainerEvent]:
        async for event in self._containers.events.listen(request.since, request.until):
            yield event

    async def AttachContainer(
        self, request_iterator: AsyncIterator[pb.ExecInput], context: Any
    ) -> AsyncIterator[pb.ExecOutput]:
        inputs = aiter(request_iterator)
        attachment = self._containers.attach((await anext(inputs, pb.ExecInput())).attach)
        feeding = self._tasks.create_task(_feed(attachment, inputs))
        try:
            async for output in attachment.hear():
                yield output
        finally:
            feeding.cancel()
            attachment.close()

    def close(self) -> None:
        """Let go of processes under way; they go on."""
        for session in self._sessions:
            session.cancel()

    async def ReadLogs(self, request: pb.ReadLogsRequest, context: Any) -> AsyncIterator[pb.LogRecord]:
        lines = self._containers.logs(
            request.id, follow=request.follow, tail=request.tail, since=request.since, until=request.until
        )
        async for line in lines:
            yield pb.LogRecord(timestamp=line.timestamp, stream=line.stream, data=line.data)


async def _feed(session: ExecSession | Attachment, inputs: AsyncIterator[pb.ExecInput]) -> None:
    try:
        await session.feed(inputs)
    except (SwarmError, grpc.RpcError, OSError) as error:
        log.info("the input of a process ended early", error=error)


def _version() -> str:
    try:
        return version("pyswarm-cluster")
    except PackageNotFoundError:
        return "unknown"
