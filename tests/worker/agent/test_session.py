"""The agent's session against a scripted dispatcher: order, gaps, and what is told again when a session begins."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from lib.builders import FakeClock, a_service, a_task
from lib.fake_runtime import FakeNetwork, FakeRuntime

from pyswarm.proto.codec.messages import to_message
from pyswarm.proto.entropy import SYSTEM_ENTROPY
from pyswarm.proto.model.objects import NodeDescription
from pyswarm.proto.model.states import TaskState
from pyswarm.proto.rpc.client import ManagerPool
from pyswarm.proto.v1 import dispatcher_pb2 as pb
from pyswarm.proto.v1 import dispatcher_pb2_grpc, runtime_pb2, types_pb2
from pyswarm.worker.agent import session as module
from pyswarm.worker.agent.agent import Agent
from pyswarm.worker.agent.journal import Accepted, Journal
from pyswarm.worker.agent.reporter import Reporter
from pyswarm.worker.agent.session import Sessions
from pyswarm.worker.secrets.files import SecretFiles

WEB = a_service("web")
SECONDS_MAX = 10.0


class Dispatcher(dispatcher_pb2_grpc.DispatcherServicer):
    """Says in the n-th session what a test puts into `say[n]`; None ends that. Keeps what it is told."""

    def __init__(self) -> None:
        self.sessions = 0
        self.say: defaultdict[int, asyncio.Queue[pb.AssignmentsMessage | None]] = defaultdict(asyncio.Queue)
        self.reports: list[dict[str, int]] = []
        self._changed = asyncio.Condition()

    async def Session(self, request: pb.SessionRequest, context: Any) -> AsyncIterator[pb.SessionMessage]:
        self.sessions += 1
        await self._notify()
        yield pb.SessionMessage(session_id=str(self.sessions), heartbeat_period_seconds=60.0)
        await asyncio.Event().wait()

    async def Assignments(self, request: pb.AssignmentsRequest, context: Any) -> AsyncIterator[pb.AssignmentsMessage]:
        script = self.say[int(request.session_id)]
        while (message := await script.get()) is not None:
            yield message

    async def UpdateTaskStatus(
        self, request_iterator: AsyncIterator[pb.UpdateTaskStatusRequest], context: Any
    ) -> AsyncIterator[pb.UpdateTaskStatusResponse]:
        async for request in request_iterator:
            self.reports.append({report.task_id: report.status.state for report in request.reports})
            await self._notify()
            yield pb.UpdateTaskStatusResponse()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(SECONDS_MAX), self._changed:
            await self._changed.wait_for(holds)


class Secrets(SecretFiles):
    """Traces what comes and goes."""

    def __init__(self, directory: Path, trace: list[str]) -> None:
        super().__init__(directory)
        self._trace = trace

    def take(self, payloads: Any) -> None:
        self._trace += [f"take {id}" for id in payloads]
        super().take(payloads)

    def keep_only(self, payloads: Any) -> None:
        self._trace += [f"keep {id}" for id in payloads]
        super().keep_only(payloads)

    def forget(self, ids: Iterable[str]) -> None:
        ids = list(ids)
        self._trace += [f"drop {id}" for id in ids]
        super().forget(ids)


class TracedAgent(Agent):
    trace: list[str]

    def assign(self, assignment: Accepted) -> None:
        self.trace.append(f"assign {assignment.task.id}")
        super().assign(assignment)

    def forget(self, task_id: str) -> None:
        self.trace.append(f"forget {task_id}")
        super().forget(task_id)


class Runtime(FakeRuntime):
    """Says which containers were removed."""

    def __init__(self) -> None:
        super().__init__()
        self.gone: asyncio.Queue[str] = asyncio.Queue()

    async def remove(self, container_id: str, *, force: bool = False) -> None:
        await super().remove(container_id, force=force)
        self.gone.put_nowait(container_id)


class QuietNetwork(FakeNetwork):
    async def start(self, published: Any) -> None:
        """Nothing to set up."""

    async def remove_everything(self) -> None:
        """Nothing was."""


class World:
    running: asyncio.Task[None]
    """Its sessions."""

    def __init__(self, directory: Path, port: int, dispatcher: Dispatcher) -> None:
        self.dispatcher = dispatcher
        self.trace: list[str] = []
        self.runtime = Runtime()
        reporter = Reporter()
        self.agent = TracedAgent(
            runtime=self.runtime,
            network=QuietNetwork(),  # type: ignore[arg-type]
            secrets=Secrets(directory / "secrets", self.trace),
            journal=Journal(directory / "tasks"),
            reporter=reporter,
            clock=FakeClock(),
            node_id="n1",
            node=NodeDescription(hostname="host1"),
        )
        self.agent.trace = self.trace
        # Only this machine can be on the other end of a local credential.
        self.pool = ManagerPool([f"127.0.0.1:{port}"], grpc.local_channel_credentials)
        self.sessions = Sessions(
            pool=self.pool,
            agent=self.agent,
            reporter=reporter,
            entropy=SYSTEM_ENTROPY,
            describe=lambda: NodeDescription(hostname="host1"),
            addr="10.0.0.1",
            on_message=self._heard,
        )

    async def _heard(self, message: pb.SessionMessage) -> None:
        pass

    async def until_reported(self, task_id: str, state: TaskState) -> None:
        await self.dispatcher.until(lambda: any(r.get(task_id) == state for r in self.dispatcher.reports))


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(module, "BACKOFF_FIRST_SECONDS", 0.01)
    dispatcher = Dispatcher()
    server = grpc.aio.server()
    dispatcher_pb2_grpc.add_DispatcherServicer_to_server(dispatcher, server)
    port = server.add_secure_port("127.0.0.1:0", grpc.local_server_credentials())
    await server.start()
    world = World(tmp_path, port, dispatcher)
    world.running = asyncio.create_task(world.sessions.run())
    running = [asyncio.create_task(world.agent.run()), world.running]
    yield world
    for task in reversed(running):
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await world.pool.close()
    await server.stop(None)


def assigned(*ids: str) -> list[pb.TaskAssignment]:
    tasks = [a_task(id, service=WEB, node="n1", state=TaskState.ASSIGNED) for id in ids]
    spec = to_message(WEB.spec.task_template, types_pb2.TaskSpec)
    return [pb.TaskAssignment(task=to_message(task, types_pb2.Task), spec=spec) for task in tasks]


def complete(*ids: str, payloads: tuple[str, ...] = ()) -> pb.AssignmentsMessage:
    return pb.AssignmentsMessage(
        type=pb.AssignmentsMessage.COMPLETE,
        results_in=1,
        update=assigned(*ids),
        payloads=[pb.Payload(id=id, data=b"x") for id in payloads],
    )


def incremental(after: int, *ids: str, remove: tuple[str, ...] = (), **of_payloads: Any) -> pb.AssignmentsMessage:
    return pb.AssignmentsMessage(
        type=pb.AssignmentsMessage.INCREMENTAL,
        applies_to=after,
        results_in=after + 1,
        update=assigned(*ids),
        remove_task_ids=remove,
        **of_payloads,
    )


async def test_what_tasks_need_comes_before_them_and_goes_after_them(world: World):  # swarm mistake 44
    world.dispatcher.say[1].put_nowait(complete("t1", payloads=("key",)))
    await world.until_reported("t1", TaskState.RUNNING)
    new = [pb.Payload(id="site", data=b"x")]
    world.dispatcher.say[1].put_nowait(incremental(1, "t2", remove=("t1",), payloads=new, remove_payload_ids=["key"]))
    await world.until_reported("t2", TaskState.RUNNING)
    assert world.trace == ["keep key", "assign t1", "take site", "assign t2", "forget t1", "drop key"]


async def test_after_a_gap_the_agent_asks_for_the_whole_set_and_takes_nothing_of_what_came(world: World):
    """Swarm mistake 45."""
    world.dispatcher.say[1].put_nowait(complete("t1"))
    await world.until_reported("t1", TaskState.RUNNING)
    world.dispatcher.say[1].put_nowait(incremental(2, "t3"))
    world.dispatcher.say[2].put_nowait(complete("t1", "t2"))
    await world.until_reported("t2", TaskState.RUNNING)
    assert world.dispatcher.sessions == 2
    assert "assign t3" not in world.trace


async def test_what_a_complete_set_does_not_name_goes_also_a_container_that_nobody_remembers(world: World):
    """Swarm mistake 45."""
    config = runtime_pb2.ContainerConfig(labels={"pyswarm.task": "leftover"})
    leftover = runtime_pb2.Container(id="leftover", config=config, state=runtime_pb2.CONTAINER_RUNNING)
    other = runtime_pb2.Container(id="operators", state=runtime_pb2.CONTAINER_RUNNING)
    world.runtime.kept |= {"leftover": leftover, "operators": other}
    for container in (leftover, other):
        for tell in world.runtime.told:
            tell(container)
    world.dispatcher.say[1].put_nowait(complete("t1", "t2"))
    await world.until_reported("t1", TaskState.RUNNING)
    await world.until_reported("t2", TaskState.RUNNING)
    world.dispatcher.say[1].put_nowait(None)
    world.dispatcher.say[2].put_nowait(complete("t2", "t3"))
    await world.until_reported("t3", TaskState.RUNNING)
    async with asyncio.timeout(SECONDS_MAX):
        assert {await world.runtime.gone.get() for _ in range(2)} == {"leftover", "t1"}
    assert set(world.runtime.kept) == {"t2", "t3", "operators"}


async def test_each_session_begins_with_the_status_of_every_task(world: World):  # swarm mistake 48
    world.dispatcher.say[1].put_nowait(complete("t1", "t2"))
    await world.until_reported("t1", TaskState.RUNNING)
    await world.until_reported("t2", TaskState.RUNNING)
    world.dispatcher.reports.clear()
    world.dispatcher.say[1].put_nowait(None)
    # Nothing has changed since, and what the managers were told may have been lost with their leader.
    await world.dispatcher.until(lambda: bool(world.dispatcher.reports))
    assert world.dispatcher.reports[0] == {"t1": TaskState.RUNNING, "t2": TaskState.RUNNING}


async def test_a_node_that_leaves_opens_no_other_session_and_keeps_no_task(world: World):
    """In another one it was given its tasks again, and was killed in the end by whoever waited for it to be empty."""
    world.dispatcher.say[1].put_nowait(complete("t1"))
    world.dispatcher.say[2].put_nowait(complete("t1"))
    await world.until_reported("t1", TaskState.RUNNING)
    world.sessions.open_no_more()
    world.dispatcher.say[1].put_nowait(None)  # what the managers do when a node has said goodbye
    async with asyncio.timeout(SECONDS_MAX):
        await world.running
        await world.agent.remove_everything()
    assert world.dispatcher.sessions == 1
    assert not world.runtime.kept
