"""Learn how a process ended whose parent is gone: containers that outlived their spawner.

On Linux 6.15 and later a pidfd that was opened while the process lived tells its exit status once somebody has reaped
it. Before, only that it has ended can be known.
"""

import asyncio
import os
import select
from collections.abc import Callable

from pyswarm.agent_runtime.kernel.process import can_tell_exit_status, exit_status_of

Ended = Callable[[int | None], None]
"""Called once with the wait status, or None where nobody can know it."""


class ExitWatch:
    """Watches pidfds, edge by edge: one comes when the process ends, another when it is reaped.

    A plain reader would be called again and again between the two.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._poll = select.epoll()
        self._watched: dict[int, Ended] = {}
        self._loop.add_reader(self._poll.fileno(), self._on_events)

    def watch(self, pidfd: int, ended: Ended) -> None:
        """Call `ended` when the process has ended; the watch keeps a descriptor of its own."""
        own = os.dup(pidfd)
        self._watched[own] = ended
        self._poll.register(own, select.EPOLLIN | select.EPOLLET)

    def _on_events(self) -> None:
        for descriptor, _ in self._poll.poll(0):
            status = None
            if can_tell_exit_status():
                try:
                    status = exit_status_of(descriptor)
                except OSError:
                    pass  # a kernel that has the version but not the call: the status stays unknown
                else:
                    if status is None:
                        continue  # a zombie: the next edge comes when it is reaped
            self._poll.unregister(descriptor)
            os.close(descriptor)
            self._watched.pop(descriptor)(status)

    def close(self) -> None:
        self._loop.remove_reader(self._poll.fileno())
        for descriptor in self._watched:
            os.close(descriptor)
        self._watched.clear()
        self._poll.close()
