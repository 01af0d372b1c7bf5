"""What agents get from the leader's dispatcher: heartbeats on one stream, reports that are written whatever comes."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from lib.builders import FakeClock, a_cluster, a_node, a_revision, a_service, a_task

from pyswarm.manager.api import dispatcher as module
from pyswarm.manager.api.dispatcher import DispatcherEdge, DispatcherServicer
from pyswarm.manager.leader.liveness import SessionOver
from pyswarm.manager.raft.fake import SingleNodeConsensus
from pyswarm.manager.store.changes import Change, Create, Delete
from pyswarm.manager.store.store import Store
from pyswarm.manager.store.writer import Writer
from pyswarm.proto.entropy import SYSTEM_ENTROPY
from pyswarm.proto.errors import PermissionDenied, Unavailable
from pyswarm.proto.model.objects import NodeDescription
from pyswarm.proto.model.states import Role, TaskState
from pyswarm.proto.rpc.identity import Caller, set_caller
from pyswarm.proto.v1 import dispatcher_pb2 as pb
from pyswarm.proto.v1 import types_pb2

WEB = a_service("web", version=0)
TASKS = 40


class Leader:
    """A leader's dispatcher with one node and its tasks; calls are the node's."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.store = Store()
        writer = Writer(SingleNodeConsensus(self.store), self.store, clock=self.clock, entropy=SYSTEM_ENTROPY)
        self.writer = writer
        self.edge = DispatcherEdge(store=self.store, writer=writer, clock=self.clock, entropy=SYSTEM_ENTROPY)
        self.servicer = DispatcherServicer(lambda: self.edge)
        self.session_id = ""
        self.running: asyncio.Task[None]

    async def write(self, *changes: Change) -> None:
        await self.writer.write(changes)

    async def open_session(self) -> None:
        self.session_id, _ = await self.edge.nodes.register("n1", NodeDescription(), "")

    def heartbeats(self, *session_ids: str) -> AsyncIterator[pb.HeartbeatResponse]:
        async def requests() -> AsyncIterator[pb.HeartbeatRequest]:
            for session_id in session_ids:
                yield pb.HeartbeatRequest(session_id=session_id)

        return self.servicer.Heartbeats(requests(), None)

    async def report(self, state: TaskState, *task_ids: str) -> pb.UpdateTaskStatusResponse:
        return await anext(self.reports(state, list(task_ids)))

    def reports(self, state: TaskState, *requests: list[str]) -> AsyncIterator[pb.UpdateTaskStatusResponse]:
        """Report the state of the tasks of each request, one request after the other on one stream."""
        status = types_pb2.TaskStatus(state=int(state))  # type: ignore[arg-type]

        async def sent(session_id: str) -> AsyncIterator[pb.UpdateTaskStatusRequest]:
            for task_ids in requests:
                reports = [pb.TaskStatusReport(task_id=task_id, status=status) for task_id in task_ids]
                yield pb.UpdateTaskStatusRequest(session_id=session_id, reports=reports)

        return self.servicer.UpdateTaskStatus(sent(self.session_id), None)

    def states(self) -> set[TaskState]:
        return {task.state for task in self.store.view.tasks()}


TASK_IDS = [f"t{number:02}" for number in range(TASKS)]


@pytest.fixture
async def leader() -> AsyncIterator[Leader]:
    made = Leader()
    tasks = [
        a_task(id, service=WEB, node="n1", slot=slot, state=TaskState.ASSIGNED, version=0)
        for slot, id in enumerate(TASK_IDS, start=1)
    ]
    objects: list[Any] = [a_cluster(version=0), a_node("n1", version=0), WEB, a_revision(WEB, version=0), *tasks]
    await made.write(*map(Create, objects))
    set_caller(Caller(node_id="n1", role=Role.WORKER, expires_at=made.clock.now() + 1_000))
    made.running = asyncio.create_task(made.edge.run())
    await asyncio.sleep(0)
    await made.open_session()
    yield made
    made.running.cancel()
    await asyncio.gather(made.running, return_exceptions=True)


async def test_each_heartbeat_on_a_stream_is_answered_with_the_period_to_keep(leader: Leader):
    period = leader.edge.nodes.period_seconds
    answers = [answer async for answer in leader.heartbeats(*[leader.session_id] * 3)]
    assert [answer.period_seconds for answer in answers] == [period] * 3


async def test_the_heartbeats_of_a_session_that_was_replaced_are_refused(leader: Leader):
    old = leader.session_id
    await leader.open_session()
    with pytest.raises(SessionOver):
        await anext(leader.heartbeats(old))


async def test_heartbeats_end_with_the_certificate_they_were_begun_with(leader: Leader):
    beats = leader.heartbeats(*[leader.session_id] * 2)
    await anext(beats)
    leader.clock.advance(1_001)
    with pytest.raises(PermissionDenied, match="expired"):
        await anext(beats)


async def test_heartbeats_of_a_node_that_was_removed_are_refused(leader: Leader):
    beats = leader.heartbeats(*[leader.session_id] * 2)
    await anext(beats)
    await leader.write(Delete("node", "n1"))
    with pytest.raises(PermissionDenied, match="removed"):
        await anext(beats)


async def test_a_report_is_written_and_tells_the_period_as_a_heartbeat_does(leader: Leader):
    answer = await leader.report(TaskState.RUNNING, *TASK_IDS)
    assert leader.states() == {TaskState.RUNNING}
    assert answer.period_seconds == leader.edge.nodes.period_seconds


async def test_a_report_counts_as_a_heartbeat(leader: Leader, monkeypatch: pytest.MonkeyPatch):
    heard: list[tuple[str, str]] = []
    beat = leader.edge.nodes.beat
    monkeypatch.setattr(leader.edge.nodes, "beat", lambda *who: (heard.append(who), beat(*who)))
    await leader.report(TaskState.RUNNING, "t00")
    assert heard == [("n1", leader.session_id)]


async def test_each_report_on_a_stream_is_answered_when_it_is_written(leader: Leader):
    states = []
    async for _ in leader.reports(TaskState.RUNNING, *([id] for id in TASK_IDS[:3])):
        states.append([leader.store.view.task(id).state is TaskState.RUNNING for id in TASK_IDS[:3]])
    assert states == [[True, False, False], [True, True, False], [True, True, True]]


async def test_reports_of_a_session_that_was_replaced_are_refused(leader: Leader):
    answers = leader.reports(TaskState.RUNNING, ["t00"], ["t01"])
    await anext(answers)
    await leader.open_session()
    with pytest.raises(SessionOver):
        await anext(answers)
    assert leader.store.view.task("t01").state is TaskState.ASSIGNED


async def test_reports_end_with_the_certificate_they_were_begun_with(leader: Leader):
    answers = leader.reports(TaskState.RUNNING, ["t00"], ["t01"])
    await anext(answers)
    leader.clock.advance(1_001)
    with pytest.raises(PermissionDenied, match="expired"):
        await anext(answers)


async def test_the_more_nodes_there_are_the_longer_each_of_them_gathers_its_reports(
    leader: Leader, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "REPORTS_PER_SECOND_MAX", 10)
    for number in range(20):
        leader.edge.listen(f"n{number}", asyncio.Event())
    assert (await leader.report(TaskState.RUNNING, "t00")).apart_seconds == 2.0


async def test_reports_that_find_the_queue_full_wait_and_are_written(leader: Leader, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "REPORTS_QUEUED_MAX", 2)
    monkeypatch.setattr(module, "REPORTS_PER_WRITE", 1)
    await asyncio.gather(*(leader.report(TaskState.RUNNING, id) for id in TASK_IDS))
    assert leader.states() == {TaskState.RUNNING}


async def test_who_waits_for_a_report_is_told_when_leadership_is_lost(leader: Leader, monkeypatch: pytest.MonkeyPatch):
    async def never(changes: Any) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(leader.writer, "write_batch", never)
    under_way = asyncio.create_task(leader.report(TaskState.RUNNING, "t00"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting = asyncio.create_task(leader.report(TaskState.RUNNING, "t01"))
    await asyncio.sleep(0)
    leader.running.cancel()
    async with asyncio.timeout(5):
        outcomes = await asyncio.gather(under_way, waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Unavailable, Unavailable]


async def test_a_report_overtaken_by_another_change_of_its_task_is_folded_anew(
    leader: Leader, monkeypatch: pytest.MonkeyPatch
):
    writes = leader.writer.write_batch

    async def overtaken_once(changes: Any) -> Any:
        monkeypatch.setattr(leader.writer, "write_batch", writes)
        # Somebody else changes a task between the decision and the write.
        task = leader.store.view.task("t07")
        await leader.write(module.Update(task))
        return await writes(changes)

    monkeypatch.setattr(leader.writer, "write_batch", overtaken_once)
    await leader.report(TaskState.RUNNING, *TASK_IDS)
    assert leader.states() == {TaskState.RUNNING}


async def test_tasks_placed_one_after_the_other_on_a_node_of_a_large_cluster_travel_together(
    leader: Leader, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "ASSIGNMENTS_PER_SECOND_MAX", 10)  # one node: a tenth of a second apart
    request = pb.AssignmentsRequest(session_id=leader.session_id)
    messages = leader.servicer.Assignments(request, None)
    assert len((await anext(messages)).update) == TASKS
    following = asyncio.ensure_future(anext(messages))
    for number in range(5):
        await leader.write(Create(a_task(f"new{number}", service=WEB, node="n1", state=TaskState.ASSIGNED, version=0)))
    assert len((await following).update) == 5
    await messages.aclose()
