"""A simulated node: an agent that speaks to the dispatcher as the real one does, and containers that outlive it.

It can lose power (containers die), be frozen (containers go on, the agent does nothing) and be cut off (what it says
and hears waits or is lost). Everything it does takes a while, drawn from the seed.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from lib.builders import a_node

from pyswarm.manager.api.dispatcher import DispatcherEdge
from pyswarm.manager.dispatcher.assignments import Assigned, assignments_of
from pyswarm.manager.dispatcher.reports import Report
from pyswarm.manager.leader.liveness import SessionEnd
from pyswarm.proto.errors import SwarmError, Unavailable
from pyswarm.proto.model.objects import TaskStatus
from pyswarm.proto.model.states import TaskState

CALL_SECONDS = 1.0
RETRY_SECONDS = (0.1, 0.4)
LATENCY_SECONDS = (0.001, 0.03)
STEP_SECONDS = (0.02, 0.6)
"""To pull an image, to start a container, to stop one."""

BROKEN = "broken"
"""An image with this in its name ends at once."""

UNWELL = "unwell"
"""The health check of an image with this in its name never passes."""

HEALTH_SECONDS = (0.0, 0.8)
"""Until a health check passes for the first time."""

PATIENCE_SECONDS = 3.0
"""So long a container may be ill before its agent gives it up."""

JOB_SECONDS = (0.5, 6.0)
"""What a job's container works."""


@dataclass
class Held:
    """A task as the agent knows it; `is_running` is about its container."""

    assigned: Assigned
    status: TaskState = TaskState.ASSIGNED
    is_running: bool = False
    is_forgotten: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def must_stop(self) -> bool:
        return self.is_forgotten or self.assigned.task.desired_state > TaskState.COMPLETE


class SimAgent:
    def __init__(
        self,
        node_id: str,
        labels: Mapping[str, str],
        *,
        rng: random.Random,
        edge: Callable[[], DispatcherEdge | None],
        started: Callable[["SimAgent", Held], None],
    ) -> None:
        self.node_id = node_id
        self.node = a_node(node_id, labels=labels, version=0)
        self.tasks: dict[str, Held] = {}
        self.outages: list[tuple[float, float | None]] = []
        """From when until when it could not be heard."""
        self._rng = rng
        self._edge = edge
        self._started = started
        self._goes_on = asyncio.Event()
        self._goes_on.set()
        self._is_connected = asyncio.Event()
        self._is_connected.set()
        self._life: asyncio.Task[None] | None = None
        self._drivers: dict[str, asyncio.Task[None]] = {}
        self._reports: dict[str, TaskState] = {}
        self._reported = asyncio.Event()

    # -- faults

    @property
    def is_on(self) -> bool:
        return self._life is not None

    def boot(self) -> None:
        if self._life is not None:
            return
        for held in self.tasks.values():
            # The journal says what ran; nothing of it runs now.
            if TaskState.STARTING <= held.status <= TaskState.RUNNING:
                held.status = TaskState.FAILED
            held.is_running = False
        self._life = asyncio.create_task(self._live())
        for task_id, held in self.tasks.items():
            if not held.status.is_terminal:
                self._drive(task_id)
        self._end_outage()

    def cut_power(self) -> None:
        self._begin_outage()
        for work in (self._life, *self._drivers.values()):
            if work is not None:
                work.cancel()
        self._life = None
        self._drivers.clear()
        for held in self.tasks.values():
            held.is_running = False

    def freeze(self) -> None:
        self._begin_outage()
        self._goes_on.clear()

    def cut_off(self) -> None:
        self._begin_outage()
        self._is_connected.clear()

    def recover(self) -> None:
        """Thaw, reconnect and boot."""
        self._goes_on.set()
        self._is_connected.set()
        self.boot()
        self._end_outage()

    def crash(self, task_id: str) -> None:
        """A container ends by itself."""
        held = self.tasks[task_id]
        if held.is_running:
            held.is_running = False
            held.changed.set()

    def _begin_outage(self) -> None:
        if not self.outages or self.outages[-1][1] is not None:
            self.outages.append((asyncio.get_running_loop().time(), None))

    def _end_outage(self) -> None:
        if self.outages and self.outages[-1][1] is None:
            self.outages[-1] = (self.outages[-1][0], asyncio.get_running_loop().time())

    # -- the session

    async def _live(self) -> None:
        while True:
            try:
                await self._session()
            except* SwarmError:
                pass  # as the real agent: the next session begins with everything
            await asyncio.sleep(self._rng.uniform(*RETRY_SECONDS))

    async def _way(self) -> DispatcherEdge:
        """Be heard by the leader there is; raises Unavailable when nothing comes back in time."""
        await self._goes_on.wait()
        try:
            async with asyncio.timeout(CALL_SECONDS):
                await self._is_connected.wait()
        except TimeoutError as error:
            raise Unavailable("no answer") from error
        await asyncio.sleep(self._rng.uniform(*LATENCY_SECONDS))
        edge = self._edge()
        if edge is None:
            raise Unavailable("nobody leads")
        return edge

    async def _session(self) -> None:
        edge = await self._way()
        session_id, end = await edge.nodes.register(self.node_id, self.node.description, "")
        self._reports |= {id: held.status for id, held in self.tasks.items() if held.status > TaskState.ASSIGNED}
        self._reported.set()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._heartbeats(edge, session_id))
            group.create_task(self._assignments(edge, end))
            group.create_task(self._send_reports(edge, session_id))

    async def _same(self, edge: DispatcherEdge) -> None:
        if await self._way() is not edge:
            raise Unavailable("another manager leads")

    async def _heartbeats(self, edge: DispatcherEdge, session_id: str) -> None:
        while True:
            await asyncio.sleep(edge.nodes.period_seconds)
            await self._same(edge)
            edge.nodes.beat(self.node_id, session_id)

    async def _assignments(self, edge: DispatcherEdge, end: SessionEnd) -> None:
        woken = asyncio.Event()
        stops = (edge.listen(self.node_id, woken), end.wakes(woken))
        try:
            while not end.is_over:
                now = assignments_of(edge.store.view, self.node_id)
                # What is under way when the line is cut comes late, not never: TCP sends it again.
                await self._is_connected.wait()
                await self._goes_on.wait()
                await asyncio.sleep(self._rng.uniform(*LATENCY_SECONDS))
                self._take(now.tasks)
                await woken.wait()
                woken.clear()
        finally:
            for stop in stops:
                stop()
        raise Unavailable("the manager ended the session")

    async def _send_reports(self, edge: DispatcherEdge, session_id: str) -> None:
        while True:
            await self._reported.wait()
            self._reported.clear()
            taken, self._reports = self._reports, {}
            try:
                await self._same(edge)
                edge.nodes.check(self.node_id, session_id)
                await edge.report([Report(self.node_id, id, TaskStatus(state=s)) for id, s in sorted(taken.items())])
            except SwarmError:
                self._reports = taken | self._reports
                raise

    # -- tasks

    def _take(self, assigned: Mapping[str, Assigned]) -> None:
        for task_id in sorted(set(self.tasks) - set(assigned)):
            self.tasks[task_id].is_forgotten = True
            self.tasks[task_id].changed.set()
            if task_id not in self._drivers:
                del self.tasks[task_id]
        for task_id, assignment in sorted(assigned.items()):
            held = self.tasks.get(task_id)
            if held is not None:
                held.assigned = assignment
                held.changed.set()
            elif not assignment.task.state.is_terminal:
                self.tasks[task_id] = Held(assignment)
                self._drive(task_id)

    def _drive(self, task_id: str) -> None:
        self._drivers[task_id] = asyncio.create_task(self._driven(task_id, self.tasks[task_id]))

    async def _driven(self, task_id: str, held: Held) -> None:
        state = await self._run_container(task_id, held)
        held.is_running = False
        self._report(task_id, held, state)
        del self._drivers[task_id]
        if held.is_forgotten:
            self.tasks.pop(task_id, None)

    async def _run_container(self, task_id: str, held: Held) -> TaskState:
        """Do all that a task goes through; return how it ended."""
        await self._work()
        if held.must_stop:
            return TaskState.SHUTDOWN
        self._report(task_id, held, TaskState.READY)
        await _until(held, lambda: held.must_stop or held.assigned.task.desired_state >= TaskState.RUNNING)
        await self._work()
        if held.must_stop:
            return TaskState.SHUTDOWN
        if BROKEN in held.assigned.revision.task_template.container_spec.image:
            return TaskState.FAILED
        held.is_running = True
        self._started(self, held)
        self._report(task_id, held, TaskState.STARTING)
        is_unwell = UNWELL in held.assigned.revision.task_template.container_spec.image
        await self._until_or(PATIENCE_SECONDS if is_unwell else self._rng.uniform(*HEALTH_SECONDS), held)
        if held.is_running and not held.must_stop:
            if is_unwell:
                return TaskState.FAILED
            self._report(task_id, held, TaskState.RUNNING)
            is_job = held.assigned.task.desired_state is TaskState.COMPLETE
            has_worked = await self._until_or(self._rng.uniform(*JOB_SECONDS) if is_job else None, held)
            if has_worked:
                return TaskState.COMPLETE
        if not held.is_running:
            return TaskState.FAILED
        await self._work()
        return TaskState.SHUTDOWN

    async def _until_or(self, seconds: float | None, held: Held) -> bool:
        """Wait until a container must stop or ends; return whether so many seconds were over first."""
        try:
            async with asyncio.timeout(seconds):
                await _until(held, lambda: held.must_stop or not held.is_running)
        except TimeoutError:
            await self._goes_on.wait()
            return True
        return False

    async def _work(self) -> None:
        await asyncio.sleep(self._rng.uniform(*STEP_SECONDS))
        await self._goes_on.wait()

    def _report(self, task_id: str, held: Held, state: TaskState) -> None:
        held.status = state
        self._reports[task_id] = state
        self._reported.set()


async def _until(held: Held, holds: Callable[[], bool]) -> None:
    while not holds():
        held.changed.clear()
        await held.changed.wait()
