"""The Dispatcher service: sessions, heartbeats, reports and assignments of agents, answered by the leader.

`DispatcherEdge` lives as long as this manager leads; the servicer lives as long as the server and refuses while there
is no edge. One subscription to the store serves every agent: an event wakes only the streams of the node it concerns.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

from pyswarm.manager.dispatcher.assignments import (
    Assigned,
    Assignments,
    Difference,
    assignments_of,
    difference,
    is_told,
    replaces_in_place,
)
from pyswarm.manager.dispatcher.reports import Report, fold
from pyswarm.manager.leader.liveness import NodeWatch
from pyswarm.manager.store.changes import Change, Update
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.manager.store.store import Overrun, Store
from pyswarm.manager.store.transition import Event
from pyswarm.manager.store.writer import Writer
from pyswarm.proto.clock import Clock
from pyswarm.proto.codec.messages import from_message, to_message
from pyswarm.proto.entropy import Entropy
from pyswarm.proto.errors import PermissionDenied, SwarmError, Unavailable
from pyswarm.proto.log import get_logger
from pyswarm.proto.model.objects import Node, NodeDescription, Service, Task, TaskStatus
from pyswarm.proto.rpc.identity import Caller, current_caller
from pyswarm.proto.v1 import dispatcher_pb2 as pb
from pyswarm.proto.v1 import dispatcher_pb2_grpc, types_pb2

log = get_logger(__name__)

REPORTS_QUEUED_MAX = 10_000
"""Calls whose reports may wait to be written; those of further ones are taken when there is room."""

REPORTS_PER_WRITE = 500
"""Reports folded and written before others get their turn: some milliseconds."""

EVENTS_IN_A_TURN = 500
"""Events routed before others get their turn."""

REPORT_ATTEMPTS = 50
"""How often reports are folded anew because others changed the same tasks."""

STREAMS_IN_A_TURN = 8
"""Assignment streams that look at once: a commit may concern all nodes, and heartbeats must be answered meanwhile."""

ASSIGNMENTS_PER_SECOND_MAX = 2_000
"""Messages of all assignment streams together, after the first on each: tasks that are placed one after the other on
thousands of nodes travel together, as many as go to one node."""

REPORTS_PER_SECOND_MAX = 1_000
"""Requests with reports of all nodes together, after the first of each: when thousands of agents have something to tell
at once, each of them tells more at a time."""

Call = tuple[list[Report], asyncio.Future[None]]
"""The reports of one call, and what tells that they are committed."""

SPECS_KEPT = 1_024
"""Encoded specs of services kept for the next task of the same: all replicas have one spec."""


class DispatcherEdge:
    """Everything of the dispatcher that lives while this manager leads."""

    def __init__(self, *, store: Store, writer: Writer, clock: Clock, entropy: Entropy) -> None:
        self.nodes = NodeWatch(store=store, writer=writer, clock=clock, entropy=entropy)
        self.store = store
        self._writer = writer
        self._clock = clock
        self._reports: deque[Call] = deque()
        self._under_way: list[Call] = []
        self._reported = asyncio.Event()
        self._drained = asyncio.Event()
        self._by_node: dict[str, set[asyncio.Event]] = {}
        self._about_nodes: set[asyncio.Event] = set()
        self.turns = asyncio.Semaphore(STREAMS_IN_A_TURN)
        self.specs = EncodedSpecs()
        self._managers = _managers(store.view)

    @property
    def managers(self) -> tuple[pb.ManagerAddress, ...]:
        """The managers' addresses: gathered when they change, because every session tells them."""
        return self._managers

    async def run(self) -> None:
        """Run until cancelled; ends every session then."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.nodes.run(), name="node-watch")
                group.create_task(self._write_reports(), name="report-writer")
                group.create_task(self._route(), name="assignment-router")
        finally:
            self.nodes.close()
            for _, done in (*self._under_way, *self._reports):
                if not done.done():
                    done.set_exception(Unavailable("leadership was lost"))

    # -- routing commits to streams

    async def _route(self) -> None:
        while True:
            seen, commits = self.store.view_and_watch(("task", "node", "service"))
            self._managers = _managers(seen)
            self._wake_all()
            with commits:
                try:
                    events = 0
                    async for commit in commits:
                        events += len(commit.events)
                        if events >= EVENTS_IN_A_TURN:
                            events = 0
                            await asyncio.sleep(0)
                        for event in commit.events:
                            self._tell(event, commit.snapshot)
                except Overrun:
                    log.warning("the dispatcher fell behind the store: every stream looks again")

    def _tell(self, event: Event, seen: Snapshot) -> None:
        """Wake the streams that an event concerns."""
        if isinstance(event.object, Task):
            if is_told(event):
                self._wake(event.object.node_id)
        elif isinstance(event.object, Service):
            if replaces_in_place(event):
                for task in seen.tasks_of_service(event.object.id):
                    self._wake(task.node_id)
        elif isinstance(event.object, Node) and _concerns_all(event):
            self._managers = _managers(seen)
            for woken in self._about_nodes:
                woken.set()

    def _wake(self, node_id: str) -> None:
        for woken in self._by_node.get(node_id, ()):
            woken.set()

    def _wake_all(self) -> None:
        for node_id in self._by_node:
            self._wake(node_id)
        for woken in self._about_nodes:
            woken.set()

    def listen(self, node_id: str, woken: asyncio.Event) -> Callable[[], None]:
        """Have `woken` set whenever a task of the node changes; return what undoes it."""
        listeners = self._by_node.setdefault(node_id, set())
        listeners.add(woken)

        def stop() -> None:
            listeners.discard(woken)
            if not listeners and self._by_node.get(node_id) is listeners:
                del self._by_node[node_id]

        return stop

    def listen_to_nodes(self, woken: asyncio.Event) -> Callable[[], None]:
        """Have `woken` set whenever managers or roles change; return what undoes it."""
        self._about_nodes.add(woken)
        return lambda: self._about_nodes.discard(woken)

    @property
    def assignments_apart_seconds(self) -> float:
        """How long after a message the next one to the same node may leave."""
        return len(self._by_node) / ASSIGNMENTS_PER_SECOND_MAX

    @property
    def reports_apart_seconds(self) -> float:
        """How long after a report was answered the next one from the same node may come."""
        return len(self._by_node) / REPORTS_PER_SECOND_MAX

    def heard(self, caller: Caller, session_id: str) -> None:
        """Count a message on a stream as a heartbeat of its node.

        Raises PermissionDenied for one that the gate would not admit any more, whose stream goes on, and SessionOver.
        """
        if self._clock.now() > caller.expires_at:
            raise PermissionDenied(
                f"the certificate of node {caller.node_id} has expired", remedy="Renew it, or join the node again."
            )
        if self.store.view.node(caller.node_id) is None:
            raise PermissionDenied(f"node {caller.node_id} was removed from the cluster", remedy="Join it again.")
        self.nodes.beat(caller.node_id, session_id)

    # -- reports

    async def report(self, reports: list[Report]) -> None:
        """Have reports written; returns once they are committed. What comes during a write goes into the next."""
        if not reports:
            return
        while len(self._reports) >= REPORTS_QUEUED_MAX:
            await self._drained.wait()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reports.append((reports, done))
        self._reported.set()
        await done

    async def _write_reports(self) -> None:
        while True:
            await self._reported.wait()
            batch = self._under_way = self._next_batch()
            failure: SwarmError | None = None
            try:
                await self._write([report for reports, _ in batch for report in reports])
            except SwarmError as error:
                log.warning("status reports could not be written", reason=error.message)
                failure = error
            for _, done in batch:
                if done.done():
                    continue
                if failure is None:
                    done.set_result(None)
                else:
                    done.set_exception(failure)

    def _next_batch(self) -> list[Call]:
        batch, size = [], 0
        while self._reports and size < REPORTS_PER_WRITE:
            batch.append(self._reports.popleft())
            size += len(batch[-1][0])
        if not self._reports:
            self._reported.clear()
        self._drained.set()
        self._drained = asyncio.Event()
        return batch

    async def _write(self, reports: list[Report]) -> None:
        """Write what the reports change, in parts; what others changed meanwhile is folded anew."""
        now = self._clock.now()
        for _ in range(REPORT_ATTEMPTS):
            plan = fold(self.store.view, reports, now=now)
            if not plan.changes:
                # That there is nothing to write is only believed of a view that is up to date.
                await self._writer.update(partial(fold, reports=reports, now=now), attempts=REPORT_ATTEMPTS)
                return
            outcome = await self._writer.write_batch(plan.changes)
            if not outcome.overtaken:
                return
            overtaken = {_task_id(change) for part in outcome.overtaken for change in part.changes}
            reports = [report for report in reports if report.task_id in overtaken]
        raise outcome.overtaken[0].conflict


def _task_id(change: Change) -> str:
    assert isinstance(change, Update), "reports only update tasks"
    return change.object.id


def _managers(seen: Snapshot) -> tuple[pb.ManagerAddress, ...]:
    return tuple(
        pb.ManagerAddress(node_id=node.id, addr=node.manager_status.addr)
        for node in seen.nodes()
        if node.manager_status is not None
    )


def _concerns_all(event: Event) -> bool:
    """Whether a change of a node changes what sessions say: the managers' addresses, somebody's role."""
    old, new = event.old, event.object
    assert isinstance(new, Node)
    if not isinstance(old, Node) or event.action == "delete":
        return new.manager_status is not None
    return (old.manager_status, old.role, old.spec.role) != (new.manager_status, new.role, new.spec.role)


class DispatcherServicer(dispatcher_pb2_grpc.DispatcherServicer):
    """Speaks for the edge; the node is the one of the certificate, never of a message."""

    def __init__(self, edge: Callable[[], DispatcherEdge | None]) -> None:
        self._current = edge

    def _edge(self) -> DispatcherEdge:
        edge = self._current()
        if edge is None:
            raise Unavailable("this manager does not lead at the moment", remedy="The agent tries again by itself.")
        return edge

    async def Session(self, request: pb.SessionRequest, context: Any) -> AsyncIterator[pb.SessionMessage]:
        edge = self._edge()
        node_id = current_caller().node_id
        description = from_message(request.description, NodeDescription)
        session_id, end = await edge.nodes.register(node_id, description, request.addr)
        woken = asyncio.Event()
        stops = (edge.listen_to_nodes(woken), end.wakes(woken))
        told: pb.SessionMessage | None = None
        try:
            while not end.is_over:
                message = _session_message(edge, node_id, session_id)
                if message != told:
                    yield message
                    told = message
                await woken.wait()
                woken.clear()
        finally:
            for stop in stops:
                stop()

    async def Heartbeats(
        self, request_iterator: AsyncIterator[pb.HeartbeatRequest], context: Any
    ) -> AsyncIterator[pb.HeartbeatResponse]:
        caller = current_caller()
        async for request in request_iterator:
            edge = self._edge()
            edge.heard(caller, request.session_id)
            yield pb.HeartbeatResponse(period_seconds=edge.nodes.period_seconds)

    async def UpdateTaskStatus(
        self, request_iterator: AsyncIterator[pb.UpdateTaskStatusRequest], context: Any
    ) -> AsyncIterator[pb.UpdateTaskStatusResponse]:
        caller = current_caller()
        async for request in request_iterator:
            edge = self._edge()
            edge.heard(caller, request.session_id)
            await edge.report(
                [Report(caller.node_id, r.task_id, from_message(r.status, TaskStatus)) for r in request.reports]
            )
            yield pb.UpdateTaskStatusResponse(
                period_seconds=edge.nodes.period_seconds, apart_seconds=edge.reports_apart_seconds
            )

    async def Assignments(self, request: pb.AssignmentsRequest, context: Any) -> AsyncIterator[pb.AssignmentsMessage]:
        edge = self._edge()
        node_id = current_caller().node_id
        edge.nodes.check(node_id, request.session_id)
        end = edge.nodes.end_of(node_id)
        woken = asyncio.Event()
        stops = (edge.listen(node_id, woken), end.wakes(woken))
        try:
            told = Assignments()
            sequence = 0
            while not end.is_over:
                woken.clear()
                async with edge.turns:
                    now = assignments_of(edge.store.view, node_id)
                    changed = difference(told, now)
                    message = _message(changed, edge.specs, sequence) if changed or not sequence else None
                    told = now
                    await asyncio.sleep(0)
                if message is not None:
                    sequence += 1
                    yield message
                    await asyncio.sleep(edge.assignments_apart_seconds)
                await woken.wait()
        finally:
            for stop in stops:
                stop()

    async def Leave(self, request: pb.LeaveRequest, context: Any) -> pb.LeaveResponse:
        await self._edge().nodes.leave(current_caller().node_id, request.session_id)
        return pb.LeaveResponse()


def _session_message(edge: DispatcherEdge, node_id: str, session_id: str) -> pb.SessionMessage:
    seen = edge.store.view
    node = seen.node(node_id)
    return pb.SessionMessage(
        session_id=session_id,
        managers=edge.managers,
        heartbeat_period_seconds=edge.nodes.period_seconds,
        desired_role=int(node.role) if node is not None else 0,  # type: ignore[arg-type]
        root_ca_pem=seen.cluster.root_ca.certificate_pem if seen.cluster is not None else "",
    )


class EncodedSpecs:
    """What is the same for all tasks of a revision, encoded once."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, int, tuple[str, ...]], pb.TaskAssignment] = {}

    def of(self, assigned: Assigned) -> pb.TaskAssignment:
        """Return an assignment without its task. Not to be changed."""
        revision = assigned.revision
        key = (revision.id, revision.version, assigned.in_place)
        found = self._kept.get(key)
        if found is None:
            if len(self._kept) >= SPECS_KEPT:
                del self._kept[next(iter(self._kept))]
            found = self._kept[key] = pb.TaskAssignment(
                spec=to_message(revision.task_template, types_pb2.TaskSpec),
                ports=[to_message(port, types_pb2.PortConfig) for port in revision.ports],
                service_name=revision.service_name,
            )
        return found


def _message(changed: Difference, specs: EncodedSpecs, sequence: int) -> pb.AssignmentsMessage:
    """Return the message that follows number `sequence`: the COMPLETE set after none."""
    message = pb.AssignmentsMessage(
        type=pb.AssignmentsMessage.INCREMENTAL if sequence else pb.AssignmentsMessage.COMPLETE,
        applies_to=sequence,
        results_in=sequence + 1,
        remove_task_ids=changed.remove,
        payloads=[pb.Payload(id=payload.id, data=payload.spec.data) for payload in changed.payloads],
        remove_payload_ids=changed.remove_payloads,
    )
    for assigned in changed.update:
        assignment = message.update.add()
        assignment.CopyFrom(specs.of(assigned))
        assignment.task.CopyFrom(to_message(assigned.task, types_pb2.Task))
    return message
