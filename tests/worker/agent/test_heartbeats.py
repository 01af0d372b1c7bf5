"""An agent's session against a dispatcher that the test drives: when it beats, and when it gives a connection up."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any, cast

import grpc.aio
import pytest
from lib.scale.tasks import Payloads
from lib.sim.virtual_time import VirtualLoop

from pyswarm.proto.entropy import SYSTEM_ENTROPY
from pyswarm.proto.model.objects import NodeDescription, TaskStatus
from pyswarm.proto.model.states import TaskState
from pyswarm.proto.rpc.client import ManagerPool, open_unix_channel
from pyswarm.proto.v1 import dispatcher_pb2 as pb
from pyswarm.proto.v1 import dispatcher_pb2_grpc
from pyswarm.worker.agent import session as module
from pyswarm.worker.agent.agent import Agent
from pyswarm.worker.agent.reporter import Reporter
from pyswarm.worker.agent.session import Sessions

PERIOD = 0.05


class Dispatcher(dispatcher_pb2_grpc.DispatcherServicer):
    """Answers everything at once; `is_silent` leaves heartbeats unanswered."""

    def __init__(self) -> None:
        self.sessions = 0
        self.beats: asyncio.Queue[str] = asyncio.Queue()
        self.reports: asyncio.Queue[pb.UpdateTaskStatusRequest] = asyncio.Queue()
        self.period = PERIOD
        self.apart = 0.0
        self.is_silent = False
        self.must_end_reports = False

    async def Session(self, request: pb.SessionRequest, context: Any) -> AsyncIterator[pb.SessionMessage]:
        self.sessions += 1
        yield pb.SessionMessage(session_id=f"session{self.sessions}", heartbeat_period_seconds=self.period)
        await asyncio.Event().wait()

    async def Heartbeats(
        self, request_iterator: AsyncIterator[pb.HeartbeatRequest], context: Any
    ) -> AsyncIterator[pb.HeartbeatResponse]:
        async for request in request_iterator:
            self.beats.put_nowait(request.session_id)
            if not self.is_silent:
                yield pb.HeartbeatResponse(period_seconds=self.period)

    async def UpdateTaskStatus(
        self, request_iterator: AsyncIterator[pb.UpdateTaskStatusRequest], context: Any
    ) -> AsyncIterator[pb.UpdateTaskStatusResponse]:
        async for request in request_iterator:
            self.reports.put_nowait(request)
            if self.must_end_reports:
                self.must_end_reports = False
                return
            yield pb.UpdateTaskStatusResponse(period_seconds=self.period, apart_seconds=self.apart)

    async def Assignments(self, request: pb.AssignmentsRequest, context: Any) -> AsyncIterator[pb.AssignmentsMessage]:
        yield pb.AssignmentsMessage(type=pb.AssignmentsMessage.COMPLETE, results_in=1)
        await asyncio.Event().wait()

    async def Leave(self, request: pb.LeaveRequest, context: Any) -> pb.LeaveResponse:
        return pb.LeaveResponse()


class Pool:
    """One manager's socket in place of a `ManagerPool`; counts how often another manager was to be asked."""

    address = "m1:2377"

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._channel: grpc.aio.Channel | None = None
        self.moves = 0

    def channel(self) -> grpc.aio.Channel:
        if self._channel is None:
            self._channel = open_unix_channel(self._socket)
        return self._channel

    async def move_on(self) -> None:
        self.moves += 1
        await self.close()

    async def close(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close(None)


class NoTasks:
    """What a session needs of an agent that holds nothing."""

    def __init__(self) -> None:
        self.secrets = Payloads()

    def assign_all(self, assignments: Iterable[Any]) -> None:
        assert not list(assignments)

    def statuses(self) -> dict[str, TaskStatus]:
        return {}


class Node:
    def __init__(self, socket: Path) -> None:
        self.dispatcher, self.pool, self.reporter = Dispatcher(), Pool(socket), Reporter()
        self.sessions = Sessions(
            pool=cast(ManagerPool, self.pool),
            agent=cast(Agent, NoTasks()),
            reporter=self.reporter,
            entropy=SYSTEM_ENTROPY,
            describe=NodeDescription,
            addr="",
            on_message=self._told,
        )

    async def _told(self, message: pb.SessionMessage) -> None: ...


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    made = Node(tmp_path / "manager.sock")
    server = grpc.aio.server()
    dispatcher_pb2_grpc.add_DispatcherServicer_to_server(made.dispatcher, server)
    server.add_insecure_port(f"unix:{tmp_path}/manager.sock")
    await server.start()
    living = asyncio.create_task(made.sessions.run())
    yield made
    living.cancel()
    await asyncio.gather(living, return_exceptions=True)
    await made.pool.close()
    await server.stop(None)


async def test_a_session_beats_for_as_long_as_it_is_answered(node: Node):
    async with asyncio.timeout(10):
        beats = [await node.dispatcher.beats.get() for _ in range(5)]
    assert beats == ["session1"] * 5
    assert node.pool.moves == 0


async def test_an_unanswered_heartbeat_makes_the_agent_ask_another_manager(node: Node, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.1)
    async with asyncio.timeout(10):
        await node.dispatcher.beats.get()
        node.dispatcher.is_silent = True
        while (beat := await node.dispatcher.beats.get()) == "session1":
            pass
    assert beat == "session2"
    assert node.pool.moves >= 1


async def test_a_node_whose_reports_are_answered_need_not_beat(node: Node):
    node.dispatcher.period = 1.0
    async with asyncio.timeout(10):
        await node.dispatcher.beats.get()  # tells the period of a second
        while not node.dispatcher.beats.empty():
            node.dispatcher.beats.get_nowait()
        now = asyncio.get_running_loop().time
        began = now()
        while now() - began < 2 * node.dispatcher.period:
            node.reporter.report("t1", TaskStatus(state=TaskState.RUNNING))
            await node.dispatcher.reports.get()
        assert node.dispatcher.beats.empty()
        await node.dispatcher.beats.get()


async def test_the_next_report_waits_as_long_as_the_managers_say_for_more_to_tell(node: Node):
    node.dispatcher.apart = 0.3
    now = asyncio.get_running_loop().time
    async with asyncio.timeout(10):
        node.reporter.report("t1", TaskStatus(state=TaskState.RUNNING))
        first = await node.dispatcher.reports.get()
        began = now()
        node.reporter.report("t1", TaskStatus(state=TaskState.COMPLETE))
        await asyncio.sleep(0)
        node.reporter.report("t2", TaskStatus(state=TaskState.RUNNING))
        second = await node.dispatcher.reports.get()
    assert now() - began >= node.dispatcher.apart
    assert [report.task_id for report in first.reports] == ["t1"]
    assert [report.task_id for report in second.reports] == ["t1", "t2"]


async def test_reports_that_were_not_answered_are_told_again_in_the_next_session(node: Node):
    node.dispatcher.must_end_reports = True
    async with asyncio.timeout(10):
        node.reporter.report("t1", TaskStatus(state=TaskState.RUNNING))
        told = [await node.dispatcher.reports.get() for _ in range(2)]
    assert [request.session_id for request in told] == ["session1", "session2"]
    assert told[0].reports == told[1].reports


async def test_an_agent_that_did_not_run_itself_blames_nobody_and_waits_anew():
    """Frozen, or starved of processors: the answer may have come meanwhile."""
    loop = asyncio.get_running_loop()
    answered = asyncio.Event()

    async def answers() -> AsyncIterator[str]:
        await answered.wait()
        yield "answer"

    def hold_up() -> None:
        until = loop.time() + 0.1 + 2 * module.STARVED_SECONDS
        while loop.time() < until:
            pass
        loop.call_soon(answered.set)

    loop.call_soon(hold_up)
    assert await module._within(0.1, answers(), lambda: 0.0) == "answer"


def test_an_agent_is_the_more_patient_the_more_attempts_were_in_vain():
    assert [module._patience(attempts) for attempts in (0, 1, 2, 3, 50)] == [5.0, 10.0, 20.0, 40.0, 40.0]


def test_a_manager_that_tells_other_things_meanwhile_is_slow_and_its_line_is_sound():
    """Were it left for another one, it and the next had one more handshake and session to pay for."""
    loop = VirtualLoop()
    told: list[float] = []

    async def answers() -> AsyncIterator[str]:
        for _ in range(4):
            await at(loop.time() + 0.9)
            told.append(loop.time())
        await at(loop.time() + 0.9)
        yield "answer"

    async def silence() -> AsyncIterator[str]:
        await at(loop.time() + 1.1)
        yield "too late"

    async def at(moment: float) -> None:
        come = loop.create_future()
        loop.call_at(moment, come.set_result, None)
        await come

    async def story() -> None:
        assert await module._within(1.0, answers(), lambda: max(told, default=0.0)) == "answer"
        with pytest.raises(TimeoutError):
            await module._within(1.0, silence(), lambda: max(told, default=0.0))

    loop.run_until_complete(story())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


async def test_an_answer_that_came_while_the_agent_did_something_else_is_read_before_it_is_missed():
    """The time is up at the very end of what the agent did: its timer is in time, and the answer unread."""
    loop = asyncio.get_running_loop()
    answered = loop.create_future()

    async def answers() -> AsyncIterator[str]:
        await answered
        yield "answer"

    def do_something_else(seconds: float) -> None:
        until = loop.time() + seconds
        while loop.time() < until:
            pass

    began = loop.time()
    loop.call_soon(lambda: do_something_else(began + 0.295 - loop.time()))
    # To read it takes some turns of the loop.
    loop.call_later(0.31, answered.set_result, None)
    assert await module._within(0.3, answers(), lambda: 0.0) == "answer"
