"""Wait until something holds in the cluster: look once a watch is in place, and again after each change.

A lost connection is opened again, with backoff, until a deadline.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from pyswarm.manager.cli.client.control import ControlClient
from pyswarm.proto.backoff import Backoff
from pyswarm.proto.clock import SYSTEM_CLOCK
from pyswarm.proto.entropy import SYSTEM_ENTROPY
from pyswarm.proto.errors import Unavailable

LOOK_GAP_SECONDS = 0.2
"""Least time between two looks, so that a burst of commits does not become a burst of reads."""

UNREACHABLE_SECONDS_MAX = 60.0
_RETRY = Backoff(0.2, 5.0)


async def wait_until(client: ControlClient, holds: Callable[[], Awaitable[bool]], *, kinds: Sequence[str]) -> None:
    """Return once `holds()`. Raises Unavailable when no manager answers for too long."""
    lost_since: float | None = None
    attempt = 0
    while True:
        try:
            async for _ in client.watch(kinds=kinds):
                if await holds():
                    return
                lost_since, attempt = None, 0
                await asyncio.sleep(LOOK_GAP_SECONDS)
            raise Unavailable("the manager ended the watch")
        except Unavailable:
            now = SYSTEM_CLOCK.monotonic()
            lost_since = now if lost_since is None else lost_since
            if now - lost_since > UNREACHABLE_SECONDS_MAX:
                raise
            await asyncio.sleep(_RETRY.delay_seconds(attempt, SYSTEM_ENTROPY.uniform(0.0, 1.0)))
            attempt += 1
