"""What is still to be told to the managers: the latest status of each task, until it was acknowledged."""

import asyncio

from pyswarm.proto.model.objects import TaskStatus


class Reporter:
    """Holds at most one status per task: a later one replaces what was not sent yet."""

    def __init__(self) -> None:
        self._waiting: dict[str, TaskStatus] = {}
        self._something = asyncio.Event()

    def report(self, task_id: str, status: TaskStatus) -> None:
        self._waiting[task_id] = status
        self._something.set()

    async def take(self) -> dict[str, TaskStatus]:
        """Wait for something to report and return all of it; give back what could not be sent."""
        await self._something.wait()
        self._something.clear()
        taken, self._waiting = self._waiting, {}
        return taken

    def give_back(self, unsent: dict[str, TaskStatus]) -> None:
        """Keep statuses for the next attempt, unless something newer came meanwhile."""
        self._waiting = {**unsent, **self._waiting}
        if self._waiting:
            self._something.set()
