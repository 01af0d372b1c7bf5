"""Publish the output of this node's tasks to the managers that ask for it."""

import asyncio
from collections.abc import AsyncIterator

from pyswarm.proto.errors import NotFound, SwarmError
from pyswarm.proto.log import get_logger
from pyswarm.proto.rpc.client import ManagerPool
from pyswarm.proto.v1 import logs_pb2 as pb
from pyswarm.proto.v1 import logs_pb2_grpc
from pyswarm.worker.runtime.port import RuntimePort

log = get_logger(__name__)

RETRY_SECONDS = 1.0
LINES_QUEUED_MAX = 256
"""Lines read ahead of what the managers take; a slow reader holds the publisher back, never the container."""


class LogPublisher:
    """Listens for subscriptions and serves each in a task of its own."""

    def __init__(self, *, pool: ManagerPool, runtime: RuntimePort) -> None:
        self._pool = pool
        self._runtime = runtime

    async def run(self) -> None:
        """Listen until cancelled; when the connection is lost, subscriptions end and managers ask again."""
        while True:
            try:
                await self._listen()
            except* SwarmError as group:
                log.debug("not listening for log subscriptions", reason=str(group.exceptions[0]))
            await asyncio.sleep(RETRY_SECONDS)

    async def _listen(self) -> None:
        serving: dict[str, set[asyncio.Task[None]]] = {}
        stub = logs_pb2_grpc.LogBrokerStub(self._pool.channel())
        async with asyncio.TaskGroup() as group:
            try:
                async for order in stub.ListenSubscriptions(pb.ListenSubscriptionsRequest()):
                    if order.close:
                        for task in serving.pop(order.id, ()):
                            task.cancel()
                        continue
                    task = group.create_task(self._serve(stub, order), name=f"logs-{order.id}")
                    serving.setdefault(order.id, set()).add(task)
            finally:
                for tasks in serving.values():
                    for task in tasks:
                        task.cancel()

    async def _serve(self, stub: "logs_pb2_grpc.LogBrokerAsyncStub", order: pb.LogSubscription) -> None:
        try:
            await stub.PublishLogs(self._messages(order))
        except NotFound:
            log.debug("nobody reads this subscription any more", subscription=order.id)
        except SwarmError as error:
            log.warning("logs could not be published", subscription=order.id, reason=error.message)

    async def _messages(self, order: pb.LogSubscription) -> AsyncIterator[pb.PublishLogsMessage]:
        lines: asyncio.Queue[pb.LogMessage | None] = asyncio.Queue(LINES_QUEUED_MAX)

        async def read(task_id: str) -> None:
            try:
                options = order.options
                async for record in self._runtime.logs(
                    task_id, follow=options.follow, tail=options.tail, since=options.since, until=options.until
                ):
                    await lines.put(
                        pb.LogMessage(
                            task_id=task_id, timestamp=record.timestamp, stream=record.stream, data=record.data
                        )
                    )
            except SwarmError as error:
                await lines.put(
                    pb.LogMessage(task_id=task_id, note=f"logs of task {task_id}: {error.message}. {error.remedy}")
                )

        async def read_all() -> None:
            async with asyncio.TaskGroup() as group:
                for task_id in order.task_ids:
                    group.create_task(read(task_id), name=f"read-{task_id}")
            await lines.put(None)

        async with asyncio.TaskGroup() as group:
            reader = group.create_task(read_all(), name="read-logs")
            try:
                while (line := await lines.get()) is not None:
                    yield pb.PublishLogsMessage(subscription_id=order.id, messages=[line])
                yield pb.PublishLogsMessage(subscription_id=order.id, done=True)
            finally:
                reader.cancel()
