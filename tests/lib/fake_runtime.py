"""A runtime and a network for the agent's tests: they keep containers in memory and do what a test tells them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from pyswarm.proto.errors import NotFound, SwarmError
from pyswarm.proto.model.spec import PortConfig
from pyswarm.proto.v1 import runtime_pb2 as pb
from pyswarm.proto.v1 import types_pb2
from pyswarm.worker.network.node_network import Attachment
from pyswarm.worker.runtime.port import Executed


class FakeRuntime:
    """Implements `worker.runtime.port.RuntimePort`.

    `failures` maps a method's name to the error its next call raises. `on_start` runs between a container's start and
    the answer that it was started. `told` are the observers of changes. `exec_answer` is how what is executed ends;
    `reported` is what was told of containers' health.
    """

    def __init__(self) -> None:
        self.kept: dict[str, pb.Container] = {}
        self.failures: dict[str, SwarmError] = {}
        self.calls: list[str] = []
        self.called = asyncio.Event()
        """Set anew by each call; whoever waits clears it."""
        self.told: list[Callable[[pb.Container], None]] = []
        self.on_start: Callable[[str], None] | None = None
        self.image_health = types_pb2.HealthConfig()
        self.exec_answer = Executed(0)
        self.executed: list[tuple[str, ...]] = []
        self.reported: list[pb.ContainerHealth] = []

    def _called(self, method: str) -> None:
        self.calls.append(method)
        self.called.set()
        if (failure := self.failures.pop(method, None)) is not None:
            raise failure

    def change(self, container_id: str, state: "pb.ContainerState", *, exit_code: int = 0) -> pb.Container:
        """Move a container to another state and tell whoever watches."""
        fresh = pb.Container()
        fresh.CopyFrom(self.kept[container_id])
        fresh.state, fresh.exit_code = state, exit_code
        self.kept[container_id] = fresh
        for observer in self.told:
            observer(fresh)
        return fresh

    async def version(self) -> pb.RuntimeVersion:
        return pb.RuntimeVersion()

    async def pull(self, reference: str) -> AsyncIterator[pb.PullProgress]:
        self._called("pull")
        yield pb.PullProgress(image=pb.Image(id=reference, healthcheck=self.image_health))

    async def images(self) -> list[pb.Image]:
        return []

    async def create(self, container_id: str, config: pb.ContainerConfig) -> pb.Container:
        self._called("create")
        self.kept[container_id] = pb.Container(id=container_id, config=config, state=pb.CREATED)
        return self.kept[container_id]

    async def start(self, container_id: str) -> pb.Container:
        self._called("start")
        started = self.change(container_id, pb.CONTAINER_RUNNING)
        if self.on_start is not None:
            self.on_start(container_id)
        await asyncio.sleep(0)
        return started

    async def stop(self, container_id: str, *, grace_seconds: float) -> pb.Container:
        self._called("stop")
        return self.change(container_id, pb.STOPPED, exit_code=143)

    async def kill(self, container_id: str, signal: str) -> None:
        self._called(f"kill {signal}")

    async def remove(self, container_id: str, *, force: bool = False) -> None:
        self._called("remove")
        if self.kept.pop(container_id, None) is None:
            raise NotFound(f"no such container: {container_id}")

    async def execute(self, container_id: str, args: Sequence[str], *, timeout_seconds: float) -> Executed:
        self._called("execute")
        self.executed.append(tuple(args))
        return self.exec_answer

    async def report_health(self, container_id: str, health: pb.ContainerHealth) -> pb.Container:
        self._called("report_health")
        self.reported.append(health)
        fresh = pb.Container()
        fresh.CopyFrom(self.kept[container_id])
        fresh.health.CopyFrom(health)
        self.kept[container_id] = fresh
        return fresh

    async def containers(self) -> list[pb.Container]:
        return list(self.kept.values())

    async def watch(self) -> AsyncIterator[pb.Container]:
        changes: asyncio.Queue[pb.Container] = asyncio.Queue()
        self.told.append(changes.put_nowait)
        for container in list(self.kept.values()):
            yield container
        while True:
            yield await changes.get()

    async def logs(
        self, container_id: str, *, follow: bool, tail: int, since: float, until: float = 0.0
    ) -> AsyncIterator[pb.LogRecord]:
        self._called("logs")
        yield pb.LogRecord(data=b"a line", stream="stdout")


class FakeNetwork:
    """What a controller needs of `NodeNetwork`: attachments and published ports by task."""

    def __init__(self) -> None:
        self.attached: set[str] = set()
        self.published: dict[str, Sequence[PortConfig]] = {}

    async def attach(self, task_id: str) -> Attachment:
        self.attached.add(task_id)
        return Attachment(namespace=Path(f"/run/netns/{task_id}"), address="172.30.0.2")

    def address_of(self, task_id: str) -> str:
        return "127.0.0.1"

    async def publish(self, task_id: str, ports: Sequence[PortConfig]) -> None:
        self.published[task_id] = ports

    async def unpublish(self, task_id: str) -> None:
        self.published.pop(task_id, None)

    async def detach(self, task_id: str) -> None:
        self.attached.discard(task_id)
