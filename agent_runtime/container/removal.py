"""Erase what removed containers have left on disk, after they are gone and without anybody waiting for it.

A container is gone when its directory has another name, which is one system call; to give back its fifteen inodes
takes some thirty, and waits for the file system's journal. What is not erased when the daemon ends, the next one
erases at its start.
"""

import asyncio

from pyswarm.agent_runtime.container.state_directory import StateDirectory
from pyswarm.proto.log import get_logger

log = get_logger(__name__)

MOST_WAITING = 256
"""Containers that may wait to be erased: who removes more of them has to wait, so that the disk cannot fill up."""


class Removals:
    """`tasks` owns the work. Use it inside the event loop."""

    def __init__(self, state: StateDirectory, tasks: asyncio.TaskGroup) -> None:
        self._state = state
        self._tasks = tasks
        self._waiting: list[str] = []
        self._work: asyncio.Task[None] | None = None

    async def add(self, discarded: str) -> None:
        """Have erased what `StateDirectory.discard` returned."""
        self._waiting.append(discarded)
        if self._work is None or self._work.done():
            self._work = self._tasks.create_task(self._erase_all())
        if len(self._waiting) > MOST_WAITING:
            await asyncio.shield(self._work)

    async def _erase_all(self) -> None:
        while self._waiting:
            taken, self._waiting = self._waiting, []
            await asyncio.to_thread(self._erase, taken)

    def _erase(self, taken: list[str]) -> None:
        for discarded in taken:
            try:
                self._state.erase(discarded)
            except OSError as error:
                log.error("cannot erase a removed container; the next start tries again", path=discarded, error=error)
