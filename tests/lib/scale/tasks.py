"""The tasks of a simulated node: what the agent's controllers report of containers, without the containers.

Takes the place of `worker/agent/agent.py` under the real session: assignments come in, statuses go out through the real
reporter. Every task goes through the states that a controller reports, in the times that containers take.
"""

import asyncio
import random
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from msgspec.structs import replace

from pyswarm.proto.model.objects import Task, TaskStatus
from pyswarm.proto.model.states import TaskState
from pyswarm.worker.agent.journal import Accepted
from pyswarm.worker.agent.reporter import Reporter

PREPARE_SECONDS = (0.02, 0.2)
START_SECONDS = (0.05, 0.3)
STOP_SECONDS = (0.02, 0.2)


class Payloads:
    """Secrets and configs: known by their ids."""

    def __init__(self) -> None:
        self.held: set[str] = set()

    def keep_only(self, payloads: Mapping[str, bytes]) -> None:
        self.held = set(payloads)

    def take(self, payloads: Mapping[str, bytes]) -> None:
        self.held |= set(payloads)

    def forget(self, ids: Iterable[str]) -> None:
        self.held -= set(ids)


@dataclass(slots=True)
class Held:
    """A task and how far it got; `timer` is what it waits for."""

    task: Task
    status: TaskStatus
    timer: asyncio.TimerHandle | None = None


@dataclass
class Seen:
    """What happened at the agents of one process since it was last asked."""

    dispatch_seconds: list[float] = field(default_factory=list)
    """From a manager's decision to place a task until its agent knows."""

    sessions_opened: int = 0
    reports_sent: int = 0


class SimulatedTasks:
    """`secrets`, `assign_all`, `assign`, `forget` and `statuses` are what a session needs of an agent."""

    def __init__(self, reporter: Reporter, seen: Seen, rng: random.Random) -> None:
        self.secrets = Payloads()
        self.is_on = True
        self._reporter = reporter
        self._seen = seen
        self._rng = rng
        self._held: dict[str, Held] = {}
        self.running = 0

    def assign_all(self, assignments: Iterable[Accepted]) -> None:
        wanted = {a.task.id: a for a in assignments}
        for task_id in set(self._held) - set(wanted):
            self.forget(task_id)
        for assignment in wanted.values():
            self.assign(assignment)

    def assign(self, assignment: Accepted) -> None:
        task = assignment.task
        held = self._held.get(task.id)
        if held is not None:
            held.task = task
            self._go_on(held)
        elif not task.state.is_terminal:
            if task.state is TaskState.ASSIGNED:
                self._seen.dispatch_seconds.append(time.time() - task.status.timestamp)
            held = self._held[task.id] = Held(task, replace(task.status, state=TaskState.ASSIGNED))
            self._note(held, TaskState.ACCEPTED)
            self._go_on(held)

    def forget(self, task_id: str) -> None:
        held = self._held.pop(task_id, None)
        if held is not None:
            self._stop_waiting(held)
            self.running -= held.status.state is TaskState.RUNNING

    def statuses(self) -> dict[str, TaskStatus]:
        return {id: held.status for id, held in self._held.items() if held.status.state > TaskState.ASSIGNED}

    def lose_power(self) -> None:
        """Nothing goes on, and no container is left when the node is back."""
        self.is_on = False
        for held in self._held.values():
            self._stop_waiting(held)
            if held.status.state <= TaskState.RUNNING:
                held.status = replace(
                    held.status, state=TaskState.FAILED, message="failed", err="the container is gone"
                )
        self.running = 0

    # -- the life of a task

    def _go_on(self, held: Held) -> None:
        """Begin the next step, unless one is under way or there is nothing to do."""
        state = held.status.state
        if state.is_terminal:
            return
        if held.task.desired_state > TaskState.COMPLETE:
            self._stop_waiting(held)
            self._later(held, STOP_SECONDS if state >= TaskState.STARTING else (0.0, 0.0), TaskState.SHUTDOWN)
        elif held.timer is not None:
            return
        elif state is TaskState.ACCEPTED:
            self._note(held, TaskState.PREPARING)
            self._later(held, PREPARE_SECONDS, TaskState.READY)
        elif state is TaskState.READY and held.task.desired_state >= TaskState.RUNNING:
            self._note(held, TaskState.STARTING)
            self._later(held, START_SECONDS, TaskState.RUNNING)

    def _later(self, held: Held, seconds: tuple[float, float], then: TaskState) -> None:
        loop = asyncio.get_running_loop()
        held.timer = loop.call_later(self._rng.uniform(*seconds), self._arrive, held, then)

    def _arrive(self, held: Held, state: TaskState) -> None:
        held.timer = None
        self._note(held, state)
        self._go_on(held)

    def _note(self, held: Held, state: TaskState) -> None:
        self.running += (state is TaskState.RUNNING) - (held.status.state is TaskState.RUNNING)
        held.status = replace(held.status, state=state, message=state.name.lower(), timestamp=time.time())
        self._reporter.report(held.task.id, held.status)

    @staticmethod
    def _stop_waiting(held: Held) -> None:
        if held.timer is not None:
            held.timer.cancel()
            held.timer = None
