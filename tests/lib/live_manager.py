"""A whole manager in memory behind the command line: the real API, decisions and loops, with agents that obey at once.

Consensus is the group of one; nodes and their agents are simulated. What the command line says of it is what it would
say of a cluster.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

from lib.builders import a_cluster
from msgspec.structs import replace

from pyswarm.manager.api.control import ControlServicer
from pyswarm.manager.leader.loop import lead
from pyswarm.manager.raft.fake import SingleNodeConsensus
from pyswarm.manager.store.changes import Change, Create, Update
from pyswarm.manager.store.conflict import Conflict
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.manager.store.store import Store
from pyswarm.manager.store.writer import Writer
from pyswarm.proto.clock import SYSTEM_CLOCK
from pyswarm.proto.entropy import SYSTEM_ENTROPY
from pyswarm.proto.model.objects import Node, Task, TaskStatus
from pyswarm.proto.model.states import NodeState, TaskState
from pyswarm.proto.rpc.server import serve_unix
from pyswarm.proto.v1 import control_pb2_grpc

T = TypeVar("T")


class LiveManager:
    """`stuck` are images whose tasks never start; `do` runs a coroutine on the manager's loop."""

    def __init__(self) -> None:
        self.store = Store()
        self.consensus = SingleNodeConsensus(self.store)
        self.writer = Writer(self.consensus, self.store, clock=SYSTEM_CLOCK, entropy=SYSTEM_ENTROPY)
        self.stuck: set[str] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def seen(self) -> Snapshot:
        return self.store.view

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def write(self, *changes: Change) -> None:
        self.do(self.writer.write(changes))

    def add(self, *nodes: Node) -> None:
        self.write(*(Create(replace(node, version=0)) for node in nodes))

    def node_is(self, node_id: str, state: NodeState) -> None:
        node = self.seen.node(node_id)
        assert node is not None
        self.write(Update(replace(node, status=replace(node.status, state=state, changed_at=SYSTEM_CLOCK.now()))))

    def until(self, holds: Callable[[], bool], *, seconds: float = 15.0) -> None:
        """Wait, commit by commit, until `holds()`."""
        self.do(self._until(holds, seconds))

    async def _until(self, holds: Callable[[], bool], seconds: float) -> None:
        _, commits = self.store.view_and_watch()
        with commits:
            async with asyncio.timeout(seconds):
                while not holds():
                    await commits.next_batch()

    def running(self, service: str) -> list[Task]:
        found = self.seen.service_by_name(service)
        assert found is not None
        return [t for t in self.seen.tasks_of_service(found.id) if t.is_live and t.state is TaskState.RUNNING]

    # -- within

    async def serve(self, path: Path, started: "Future[asyncio.Event]") -> None:
        self._loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        await self.writer.write((Create(a_cluster(version=0)),))
        control = ControlServicer(
            store=self.store,
            writer=self.writer,
            consensus=self.consensus,
            clock=SYSTEM_CLOCK,
            entropy=SYSTEM_ENTROPY,
        )
        server = await serve_unix(path, [lambda s: control_pb2_grpc.add_ControlServicer_to_server(control, s)])
        leading = lead(
            store=self.store,
            writer=self.writer,
            clock=SYSTEM_CLOCK,
            entropy=SYSTEM_ENTROPY,
            consensus=self.consensus,
            also=[self._agents],
        )
        tasks = [asyncio.create_task(leading)]
        started.set_result(stop)
        waiting = asyncio.create_task(stop.wait())
        await asyncio.wait([*tasks, waiting], return_when=asyncio.FIRST_COMPLETED)
        for task in (*tasks, waiting):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks)
        await server.stop(None)

    def stop(self, event: asyncio.Event) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(event.set)

    async def _agents(self) -> None:
        """Every agent takes one step for each of its tasks whenever something changes."""
        seen, commits = self.store.view_and_watch({"task", "node"})
        with commits:
            while True:
                for task in list(seen.tasks()):
                    await self._step(seen, task)
                await commits.next_batch()
                seen = self.store.view

    async def _step(self, seen: Snapshot, task: Task) -> None:
        node = seen.node(task.node_id)
        is_here = TaskState.ASSIGNED <= task.state <= TaskState.RUNNING
        if node is None or node.status.state is not NodeState.READY or not is_here:
            return
        revision = seen.revision_of(task)
        image = revision.task_template.container_spec.image if revision is not None else ""
        state = self._next_state(task, image)
        if state is not task.state:
            status = TaskStatus(state=state, timestamp=SYSTEM_CLOCK.now())
            # Another decision about it was quicker: its event is on the way.
            with contextlib.suppress(Conflict):
                await self.writer.write((Update(replace(task, status=status)),))

    def _next_state(self, task: Task, image: str) -> TaskState:
        if task.desired_state > TaskState.COMPLETE:
            return TaskState.SHUTDOWN
        if image in self.stuck or task.desired_state is TaskState.READY:
            return max(task.state, TaskState.READY)
        if task.desired_state is TaskState.COMPLETE and task.state is TaskState.RUNNING:
            return TaskState.COMPLETE
        return TaskState.RUNNING


@contextlib.contextmanager
def live_manager(path: Path) -> Iterator[LiveManager]:
    """Serve a manager on a unix socket, from a thread with a loop of its own, as long as the context lasts."""
    manager, started = LiveManager(), Future[asyncio.Event]()
    thread = Thread(target=lambda: asyncio.run(manager.serve(path, started)), daemon=True)
    thread.start()
    stop = started.result(20)
    try:
        yield manager
    finally:
        manager.stop(stop)
        thread.join(20)
        path.unlink(missing_ok=True)
