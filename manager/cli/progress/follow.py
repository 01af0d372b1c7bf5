"""Follow services until each has converged or failed: watch, read, judge, show. Decides nothing itself.

Every commit that touches a followed service wakes the loop; missed or doubled events are harmless, because the
loop reads the state anew each time. A lost connection is opened again, with backoff, until a deadline.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

from pyswarm.manager.cli.client.control import ControlClient
from pyswarm.manager.cli.progress.convergence import Goal, Memory, Observation, Outcome, Progress, judge
from pyswarm.manager.cli.progress.reporter import Reporter
from pyswarm.manager.cli.records import ServiceRow
from pyswarm.proto.backoff import Backoff
from pyswarm.proto.clock import SYSTEM_CLOCK
from pyswarm.proto.entropy import SYSTEM_ENTROPY
from pyswarm.proto.errors import FailedPrecondition, NotFound, SwarmError, Unavailable
from pyswarm.proto.model.objects import Task

READ_GAP_SECONDS = 0.1
"""Least time between two reads, so that a burst of commits does not become a burst of reads."""

UNREACHABLE_SECONDS_MAX = 60.0
_RETRY = Backoff(0.2, 5.0)


async def goal_before(client: ControlClient, service_id: str, name: str, *, is_rollback: bool = False) -> Goal:
    """Return a goal for a request about to be made: what is in the past now will not count."""
    row = (await client.services([service_id]))[0]
    listed = await client.tasks(service_ids=[service_id])
    dead = frozenset(task.id for task in listed.tasks if task.state.is_terminal)
    return Goal(service_id, name, row.service.update_status, dead, is_rollback)


async def follow(client: ControlClient, goals: Sequence[Goal], reporter: Reporter, *, stack: str = "") -> None:
    """Return when every goal is reached. Raises FailedPrecondition with the reason of the first that cannot be.

    `stack` narrows what wakes us when there are several goals.
    """
    follower = _Follower(client, goals, reporter, stack)
    while True:
        try:
            await follower.run()
            return
        except Unavailable as error:
            await follower.pause_after(error)


class _Follower:
    def __init__(self, client: ControlClient, goals: Sequence[Goal], reporter: Reporter, stack: str) -> None:
        self._client = client
        self._goals = goals
        self._reporter = reporter
        self._stack = stack
        self._memories = {goal.service_id: Memory() for goal in goals}
        self._lost_since: float | None = None
        self._attempt = 0

    async def run(self) -> None:
        """Follow over one connection. Raises Unavailable when it is lost."""
        changes = _Changes(self._watch())
        failure: SwarmError | None = None
        async with asyncio.TaskGroup() as group:
            pump = group.create_task(changes.pump())
            try:
                await self._until_all_converged(changes)
            except SwarmError as error:
                failure = error  # raised outside: a group would wrap it
            finally:
                pump.cancel()
        if failure is not None:
            raise failure

    async def _until_all_converged(self, changes: "_Changes") -> None:
        look_again_at: float | None = None
        while True:
            await changes.wait_until(look_again_at)
            progresses, look_again_at = await self._look()
            self._reporter.show(progresses)
            _raise_first_failure(progresses)
            if all(progress.outcome is Outcome.CONVERGED for progress in progresses):
                return
            await asyncio.sleep(READ_GAP_SECONDS)

    async def pause_after(self, error: Unavailable) -> None:
        """Wait before the next connection. Raises Unavailable once that has lasted too long."""
        now = SYSTEM_CLOCK.monotonic()
        self._lost_since = now if self._lost_since is None else self._lost_since
        if now - self._lost_since > UNREACHABLE_SECONDS_MAX:
            raise Unavailable(
                f"lost sight of the service: {error.message}",
                remedy="It goes on without us: `pyswarm service ps` shows it once a manager answers.",
            ) from error
        await asyncio.sleep(_RETRY.delay_seconds(self._attempt, SYSTEM_ENTROPY.uniform(0.0, 1.0)))
        self._attempt += 1

    def _watch(self) -> AsyncIterator[object]:
        only = self._goals[0].service_id if len(self._goals) == 1 else ""
        return self._client.watch(kinds=["service", "task"], service_id=only, stack="" if only else self._stack)

    async def _look(self) -> tuple[list[Progress], float | None]:
        """Read the goals' services and tasks, and judge each; return also when to look again at the latest."""
        seen = await observe(self._client, self._goals, self._stack)
        self._lost_since, self._attempt = None, 0
        now = SYSTEM_CLOCK.monotonic()
        verdicts = [judge(goal, seen[goal.service_id], self._memories[goal.service_id], now) for goal in self._goals]
        for goal, verdict in zip(self._goals, verdicts, strict=True):
            self._memories[goal.service_id] = verdict.memory
        moments = [verdict.look_again_at for verdict in verdicts if verdict.look_again_at is not None]
        return [verdict.progress for verdict in verdicts], min(moments, default=None)


class _Changes:
    """A stream of commits as one flag: something changed since the last look."""

    def __init__(self, stream: AsyncIterator[object]) -> None:
        self._stream = stream
        self._changed = asyncio.Event()
        self._lost: SwarmError | None = None

    async def pump(self) -> None:
        """Read the stream to its end; how it ended is told by `wait_until`."""
        try:
            async for _ in self._stream:
                self._changed.set()
            self._lost = Unavailable("the manager ended the watch")
        except SwarmError as error:
            self._lost = error
        self._changed.set()

    async def wait_until(self, moment: float | None) -> None:
        """Return at the next change, or at `moment` (monotonic seconds). Raises what ended the stream."""
        delay = None if moment is None else max(0.0, moment - SYSTEM_CLOCK.monotonic())
        with suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._changed.wait()
        self._changed.clear()
        if self._lost is not None:
            raise self._lost


async def observe(client: ControlClient, goals: Sequence[Goal], stack: str) -> dict[str, Observation]:
    """Return what the cluster says of each goal's service, by service id."""
    if stack:
        rows = await client.services(stack=stack)
    else:
        rows = [row for goal in goals for row in await _service_or_none(client, goal.service_id)]
    ids = [row.service.id for row in rows]
    listed = await client.tasks(service_ids=ids) if ids else None
    services = {row.service.id: row for row in rows}
    tasks: dict[str, list[Task]] = {}
    for task in listed.tasks if listed else ():
        tasks.setdefault(task.service_id, []).append(task)
    hostnames = {node.id: node.description.hostname or node.id for node in listed.nodes.values()} if listed else {}
    return {
        goal.service_id: Observation(row.service, row.desired, tuple(tasks.get(goal.service_id, ())), hostnames)
        if (row := services.get(goal.service_id)) is not None
        else Observation(None)
        for goal in goals
    }


async def _service_or_none(client: ControlClient, service_id: str) -> list[ServiceRow]:
    try:
        return await client.services([service_id])
    except NotFound:
        return []


def _raise_first_failure(progresses: Sequence[Progress]) -> None:
    for progress in progresses:
        if progress.outcome is Outcome.FAILED:
            raise FailedPrecondition(progress.note, remedy=progress.remedy)
