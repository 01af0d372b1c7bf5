"""Tell subscribers about containers: the present state of all, then every container that changed.

A subscriber holds at most one message per container: a slow one misses intermediate states, never the latest, and
cannot make us remember without bound.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable

from pyswarm.proto.v1 import runtime_pb2 as pb


class Watchers:
    def __init__(self) -> None:
        self._pending: set[_Subscription] = set()

    def publish(self, container: pb.Container) -> None:
        for subscription in self._pending:
            subscription.put(container)

    async def subscribe(self, present: Callable[[], Iterable[pb.Container]]) -> AsyncIterator[pb.Container]:
        """Yield what `present` returns, then every change from that very moment on."""
        subscription = _Subscription()
        for container in present():
            subscription.put(container)
        self._pending.add(subscription)
        try:
            while True:
                await subscription.changed.wait()
                for container in subscription.take():
                    yield container
        finally:
            self._pending.discard(subscription)


class _Subscription:
    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self._latest: dict[str, pb.Container] = {}

    def put(self, container: pb.Container) -> None:
        self._latest.pop(container.id, None)  # in the order of the latest change
        self._latest[container.id] = container
        self.changed.set()

    def take(self) -> list[pb.Container]:
        taken = list(self._latest.values())
        self._latest.clear()
        self.changed.clear()
        return taken
