"""The agent's connection to the managers: one session at a time, opened again whenever it ends.

Within a session: heartbeats at the period the managers name, the assignment stream, and reports, which count as
heartbeats. Whatever fails ends the session; the next one begins with all statuses and a COMPLETE set, so nothing
depends on what was lost.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import lru_cache
from typing import TypeVar

import grpc.aio

from pyswarm.proto.backoff import Backoff
from pyswarm.proto.codec.messages import from_message, to_message
from pyswarm.proto.entropy import Entropy
from pyswarm.proto.errors import NotLeader, SwarmError, Unavailable, Unreachable
from pyswarm.proto.log import get_logger
from pyswarm.proto.model.objects import NodeDescription, Task, TaskStatus
from pyswarm.proto.model.spec import PortConfig, TaskSpec
from pyswarm.proto.rpc.client import ManagerPool
from pyswarm.proto.v1 import dispatcher_pb2 as pb
from pyswarm.proto.v1 import dispatcher_pb2_grpc, types_pb2
from pyswarm.worker.agent.agent import Agent
from pyswarm.worker.agent.journal import Accepted
from pyswarm.worker.agent.reporter import Reporter

log = get_logger(__name__)

BACKOFF_FIRST_SECONDS, BACKOFF_CAP_SECONDS = 0.1, 2.0
BACKOFF_CAP_LEAST_SECONDS = 0.4
"""The leader bears little more silence than a blip lasts, so a small cluster's agents try again in quick succession.
A large one's period is longer, and so are the pauses: a new leader is not run over by all of them at once."""

HEARTBEAT_SECONDS = 1.0
"""How long a heartbeat may stay unanswered before another connection is tried: TCP alone, sending again at doubling
intervals, would be heard only seconds after a blip is over. Two periods in a cluster whose period is longer."""

HEARTBEAT_SECONDS_MAX = 2.5
"""So long at most, and in the end when heartbeats stay unanswered on one connection after the other: then it is not the
line but the leader that is slow, and new connections and sessions would only make it slower. The leader bears three
seconds of silence beyond the period, or half a period, and the time to come back."""

HEARTBEAT_PERIODS_MAX = 0.4
"""So many periods at most, where the period is so long that this is more."""

STARVED_SECONDS = 0.05
"""A timer that is so much late says that this process did not run (it was frozen, or others had the processors, or it
did something else all the while): that is not counted as waiting, and the answer may be here, unread."""

LOOK_SECONDS = 0.1
"""How long this process waits before it looks whether it ran."""

ELECTING_SECONDS = 1.0
"""How long a manager whose session has ended may take to open the next one before another is asked: it may be cut off
from the leader, and the leader bears little silence."""

FIRST_MESSAGE_SECONDS = 5.0
FIRST_MESSAGE_SECONDS_MAX = 40.0
"""How long a manager may take to open a session, at the first attempt and after some in vain: the leader of a large
cluster whose agents all come back opens so many a second, and to ask anew only loses one's place."""

RPC_SECONDS = 5.0

REPORTS_APART_SECONDS_MAX = 2.0
"""After a report the next one waits for as long as the managers took to answer, up to this, or for as long as they say:
when thousands of agents have something to tell at once, each of them tells more at a time."""

REPORT_SECONDS = 60.0
"""How long reports may take to be written: what is slow may be the disk, and whether the line is is for heartbeats to
find out. To open another session would only have everything reported again."""

SPECS_KEPT = 256
"""Specs that came with tasks, kept for further tasks of the same service."""

T = TypeVar("T")

OnMessage = Callable[[pb.SessionMessage], Awaitable[None]]


class SessionEnded(Unavailable):
    """The managers ended the session: a change of leader, or another session of this node."""


class Sessions:
    """Opens sessions until cancelled, or until the node leaves."""

    def __init__(
        self,
        *,
        pool: ManagerPool,
        agent: Agent,
        reporter: Reporter,
        entropy: Entropy,
        describe: Callable[[], NodeDescription],
        addr: str,
        on_message: OnMessage,
    ) -> None:
        self._pool = pool
        self._agent = agent
        self._reporter = reporter
        self._entropy = entropy
        self._describe = describe
        self._addr = addr
        self._on_message = on_message
        self._session_id = ""
        self._is_leaving = False
        self._period_seconds = 0.0
        self._heard_at = 0.0
        """When the managers last answered, on the loop's clock."""
        self._first_message_seconds = FIRST_MESSAGE_SECONDS
        self._told_at = 0.0
        """When anything last came from the managers, on the loop's clock."""
        self._unanswered = 0
        """Heartbeats that were not answered since one last was in good time."""

    async def run(self) -> None:
        attempt = 0
        while not self._is_leaving:
            self._session_id = ""
            try:
                await self._session()
            except* SwarmError as group:
                error = _first(group)
                log.warning("session ended", manager=self._pool.address, reason=error.message)
                must_move_on = self._must_move_on(error)
                self._first_message_seconds = _patience(attempt) if must_move_on else self._while_electing()
                if must_move_on:
                    await self._pool.move_on()
            except* grpc.aio.UsageError:
                log.warning("the channel was closed under the session", manager=self._pool.address)
            attempt = 0 if self._session_id else attempt + 1
            await asyncio.sleep(self._backoff().delay_seconds(attempt, self._entropy.uniform(0, 1)))

    def _must_move_on(self, error: SwarmError) -> bool:
        """Whether another manager is to be asked next.

        One that ended an open session answers: a new leader is being elected, and it will know it. Were every agent to
        change its manager whenever the leader changes, the new one would be buried under their handshakes.
        """
        if isinstance(error, Unreachable):
            return True
        return isinstance(error, Unavailable | NotLeader) and not self._session_id

    def _while_electing(self) -> float:
        # In a large cluster, whose leader bears more silence, all agents open their sessions again at once.
        return max(ELECTING_SECONDS, self._period_seconds)

    def _backoff(self) -> Backoff:
        cap = max(BACKOFF_CAP_LEAST_SECONDS, min(self._period_seconds, BACKOFF_CAP_SECONDS))
        return Backoff(first_seconds=BACKOFF_FIRST_SECONDS, cap_seconds=cap)

    def open_no_more(self) -> None:
        """The node leaves: the present session is its last. In another one it would be given its tasks again."""
        self._is_leaving = True

    async def say_goodbye(self) -> None:
        """Tell the managers that this node leaves. Raises SwarmError when they cannot be told."""
        stub = dispatcher_pb2_grpc.DispatcherStub(self._pool.channel())
        await stub.Leave(pb.LeaveRequest(session_id=self._session_id), timeout=RPC_SECONDS)

    async def _session(self) -> None:
        """Open a session and live in it; always ends by raising."""
        stub = dispatcher_pb2_grpc.DispatcherStub(self._pool.channel())
        request = pb.SessionRequest(
            description=to_message(self._describe(), types_pb2.NodeDescription), addr=self._addr
        )
        messages = stub.Session(request).__aiter__()
        try:
            async with asyncio.timeout(self._first_message_seconds):
                first: pb.SessionMessage = await anext(messages)
        except (TimeoutError, StopAsyncIteration) as error:
            raise SessionEnded("the manager did not open a session") from error
        if self._is_leaving:
            raise SessionEnded("the node leaves")
        self._session_id = first.session_id
        self._is_heard(first.heartbeat_period_seconds)
        log.info("session open", session=first.session_id, manager=self._pool.address)
        await self._on_message(first)
        self._reporter.give_back(self._agent.statuses())
        async with asyncio.TaskGroup() as group:
            group.create_task(self._heartbeats(stub), name="heartbeats")
            group.create_task(self._assignments(stub), name="assignments")
            group.create_task(self._reports(stub), name="reports")
            async for message in messages:
                self._told_at = asyncio.get_running_loop().time()
                await self._on_message(message)
            raise SessionEnded("the manager ended the session")

    async def _heartbeats(self, stub: "dispatcher_pb2_grpc.DispatcherAsyncStub") -> None:
        """Send a heartbeat whenever the managers have heard nothing of this node for a period."""
        due: asyncio.Queue[pb.HeartbeatRequest] = asyncio.Queue(maxsize=1)
        answers = stub.Heartbeats(_taken_from(due)).__aiter__()
        now = asyncio.get_running_loop().time
        while True:
            wait = self._heard_at + self._period_seconds - now()
            if wait > 0:
                await asyncio.sleep(wait)
                continue  # a report may have been answered meanwhile
            due.put_nowait(pb.HeartbeatRequest(session_id=self._session_id))
            self._is_heard(await self._answer(answers))

    def _is_heard(self, period_seconds: float) -> None:
        self._heard_at = self._told_at = asyncio.get_running_loop().time()
        self._period_seconds = period_seconds or self._period_seconds

    async def _answer(self, answers: AsyncIterator[pb.HeartbeatResponse]) -> float:
        """Return the period that the managers answer a heartbeat with. Raises Unreachable when they do not."""
        most = max(HEARTBEAT_SECONDS_MAX, HEARTBEAT_PERIODS_MAX * self._period_seconds)
        least = min(max(HEARTBEAT_SECONDS, 2 * self._period_seconds), most)
        deadline = min(least * (1 + self._unanswered), most)
        began = asyncio.get_running_loop().time()
        try:
            answer = await _within(deadline, answers, lambda: self._told_at)
        except StopAsyncIteration as error:
            raise SessionEnded("the manager ended the heartbeats") from error
        except TimeoutError as error:
            self._unanswered += 1
            raise Unreachable(f"{self._pool.address} did not answer a heartbeat within {deadline:g} s") from error
        except Unreachable:
            self._unanswered += 1
            raise
        if asyncio.get_running_loop().time() - began < least / 2:
            self._unanswered = 0
        return answer.period_seconds

    async def _assignments(self, stub: "dispatcher_pb2_grpc.DispatcherAsyncStub") -> None:
        sequence = 0
        async for message in stub.Assignments(pb.AssignmentsRequest(session_id=self._session_id)):
            self._told_at = asyncio.get_running_loop().time()
            assignments = [_accepted(update) for update in message.update]
            payloads = {payload.id: payload.data for payload in message.payloads}
            if message.type == pb.AssignmentsMessage.COMPLETE:
                self._agent.secrets.keep_only(payloads)
                self._agent.assign_all(assignments)
            elif message.applies_to != sequence:
                raise SessionEnded(f"assignments have a gap: {message.applies_to} follows {sequence}")
            else:
                # What tasks need comes before them and goes after them (swarm mistake 44).
                self._agent.secrets.take(payloads)
                for assignment in assignments:
                    self._agent.assign(assignment)
                for task_id in message.remove_task_ids:
                    self._agent.forget(task_id)
                self._agent.secrets.forget(message.remove_payload_ids)
            sequence = message.results_in
        raise SessionEnded("the manager ended the assignments")

    async def _reports(self, stub: "dispatcher_pb2_grpc.DispatcherAsyncStub") -> None:
        due: asyncio.Queue[pb.UpdateTaskStatusRequest] = asyncio.Queue(maxsize=1)
        answers = stub.UpdateTaskStatus(_taken_from(due)).__aiter__()
        while True:
            taken = await self._reporter.take()
            try:
                message = _reports_message(self._session_id, taken)
                began = asyncio.get_running_loop().time()
                due.put_nowait(message)
                answer = await self._written(answers)
            except BaseException:
                self._reporter.give_back(taken)
                raise
            self._is_heard(answer.period_seconds)
            took = self._heard_at - began
            await asyncio.sleep(max(answer.apart_seconds, min(took, REPORTS_APART_SECONDS_MAX)))

    async def _written(self, answers: AsyncIterator[pb.UpdateTaskStatusResponse]) -> pb.UpdateTaskStatusResponse:
        """Return what the managers say once reports are written. Raises Unreachable when they do not."""
        try:
            async with asyncio.timeout(REPORT_SECONDS):
                return await anext(answers)
        except StopAsyncIteration as error:
            raise SessionEnded("the manager ended the reports") from error
        except TimeoutError as error:
            raise Unreachable(f"{self._pool.address} wrote no reports within {REPORT_SECONDS:g} s") from error


def _patience(attempts_in_vain: int) -> float:
    """Return how long the next attempt to open a session may take."""
    return min(FIRST_MESSAGE_SECONDS * 2.0 ** min(attempts_in_vain, 8), FIRST_MESSAGE_SECONDS_MAX)


async def _within(seconds: float, source: AsyncIterator[T], told_at: Callable[[], float]) -> T:
    """Return the next item of `source`; raise TimeoutError when there is none while this process ran for so long.

    `told_at` is when anything else last came the same way: while that goes on it is not the line that is slow.
    """
    loop = asyncio.get_running_loop()
    looks_max = max(1, round(seconds / LOOK_SECONDS))
    looks, since = 0, loop.time()
    timer: asyncio.TimerHandle

    def look_again() -> asyncio.TimerHandle:
        due = loop.time() + seconds / looks_max
        return loop.call_at(due, look, due)

    def look(due: float) -> None:
        nonlocal timer, looks, since
        looks += 1
        if told_at() > since:
            looks, since = 0, loop.time()
        if looks >= looks_max and loop.time() < due + STARVED_SECONDS:
            limit.reschedule(due)
        else:
            timer = look_again()

    async with asyncio.timeout(None) as limit:
        timer = look_again()
        try:
            return await anext(source)
        finally:
            timer.cancel()


async def _taken_from(queue: asyncio.Queue[T]) -> AsyncIterator[T]:
    while True:
        yield await queue.get()


def _accepted(update: pb.TaskAssignment) -> Accepted:
    task = from_message(update.task, Task)
    return Accepted(
        task=task,
        spec=_spec(update.spec.SerializeToString()),
        ports=tuple(from_message(port, PortConfig) for port in update.ports),
        service_name=update.service_name,
        status=task.status,
    )


@lru_cache(maxsize=SPECS_KEPT)
def _spec(encoded: bytes) -> TaskSpec:
    """Return a spec as it was sent: read once for all tasks of a service, which share it."""
    return from_message(types_pb2.TaskSpec.FromString(encoded), TaskSpec)


def _reports_message(session_id: str, taken: dict[str, TaskStatus]) -> pb.UpdateTaskStatusRequest:
    reports = [
        pb.TaskStatusReport(task_id=task_id, status=to_message(status, types_pb2.TaskStatus))
        for task_id, status in sorted(taken.items())
    ]
    return pb.UpdateTaskStatusRequest(session_id=session_id, reports=reports)


def _first(group: BaseExceptionGroup[SwarmError]) -> SwarmError:
    """Return one plain error of a group, however deep."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, SwarmError)
    return error
