"""What happens to containers: told as it happens, and the last of it remembered while the daemon lives.

By Docker's names: create, start, oom, die, kill, stop, pause, unpause, update, destroy, exec_start, exec_die, attach,
detach, `health_status: healthy` and `health_status: unhealthy`. What happened while no daemon was there is told when
the next one learns of it. The state of containers is `watchers`' business: those miss nothing, whoever is slow here is
cut off and told so.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from pyswarm.agent_runtime.container.log_drivers import name_of
from pyswarm.agent_runtime.container.record import Record
from pyswarm.proto.clock import Clock
from pyswarm.proto.errors import Unavailable
from pyswarm.proto.v1 import runtime_pb2 as pb

REMEMBERED = 1024
MOST_WAITING = 1024


class Events:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._past: deque[pb.ContainerEvent] = deque(maxlen=REMEMBERED)
        self._listeners: set[asyncio.Queue[pb.ContainerEvent]] = set()

    def tell(self, action: str, record: Record, **attributes: object) -> None:
        """Something has happened to a container; what belongs to it alone are its `attributes`."""
        event = pb.ContainerEvent(
            action=action,
            id=record.id,
            at=self._clock.now(),
            attributes={
                **record.config.labels,
                "image": record.config.image,
                "name": name_of(record),
                **{name: str(value) for name, value in attributes.items()},
            },
        )
        self._past.append(event)
        for waiting in list(self._listeners):
            try:
                waiting.put_nowait(event)
            except asyncio.QueueFull:
                self._listeners.discard(waiting)

    async def listen(self, since: float, until: float) -> AsyncIterator[pb.ContainerEvent]:
        """Yield what is remembered from `since` on (0: nothing), then what happens, until a moment (0: for ever).

        Raises Unavailable when it happens faster than it is taken.
        """
        waiting: asyncio.Queue[pb.ContainerEvent] = asyncio.Queue(MOST_WAITING)
        past = [event for event in self._past if since and since <= event.at and not 0 < until <= event.at]
        self._listeners.add(waiting)
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + until - self._clock.now() if until else None
        try:
            for event in past:
                yield event
            while waiting in self._listeners or not waiting.empty():
                try:
                    async with asyncio.timeout_at(ends_at):
                        event = await waiting.get()
                except TimeoutError:
                    return
                yield event
            raise Unavailable("events came faster than they were read", remedy="Listen again, with --since.")
        finally:
            self._listeners.discard(waiting)
