"""What is still to be told to the managers: the latest status of each task, until it was acknowledged.

That a task runs, or has ended, is told at once. How far it is on its way there may wait a moment for more: most tasks
pass through several states within it, and each report is a write that all managers make durable.
"""

import asyncio

from pyswarm.proto.model.objects import TaskStatus
from pyswarm.proto.model.states import TaskState

GATHER_SECONDS = 0.2
"""How long the states on the way to RUNNING wait for the next one."""


class Reporter:
    """Holds at most one status per task: a later one replaces what was not sent yet."""

    def __init__(self) -> None:
        self._waiting: dict[str, TaskStatus] = {}
        self._something = asyncio.Event()
        self._urgent = asyncio.Event()

    def report(self, task_id: str, status: TaskStatus) -> None:
        self._waiting[task_id] = status
        self._something.set()
        if status.state >= TaskState.RUNNING:
            self._urgent.set()

    async def take(self) -> dict[str, TaskStatus]:
        """Wait for something to report and return all of it; give back what could not be sent."""
        await self._something.wait()
        try:
            async with asyncio.timeout(GATHER_SECONDS):
                await self._urgent.wait()
        except TimeoutError:
            pass  # nothing has come that cannot wait: what is there is told
        self._something.clear()
        self._urgent.clear()
        taken, self._waiting = self._waiting, {}
        return taken

    def give_back(self, unsent: dict[str, TaskStatus]) -> None:
        """Keep statuses for the next attempt, unless something newer came meanwhile."""
        self._waiting = {**unsent, **self._waiting}
        if self._waiting:
            self._something.set()
            self._urgent.set()
