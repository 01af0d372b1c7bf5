"""Lead exactly while elected: what runs for the time of one leadership, and what happens when it fails."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Any

from pyswarm.manager.orchestrator.nodes import keep_addresses
from pyswarm.manager.raft.port import Leadership, Member
from pyswarm.manager.store.conflict import Conflict
from pyswarm.manager.store.writer import Writer
from pyswarm.proto.errors import NotLeader, Unavailable
from pyswarm.proto.log import get_logger

log = get_logger(__name__)

RETRY_SECONDS = 0.5
"""Pause before a write that failed for a passing reason is tried again."""


async def during_leadership(
    changes: AsyncIterator[Leadership], lead: Callable[[int], Coroutine[Any, Any, None]]
) -> None:
    """Run `lead(term)` from when this manager leads and is ready until it does so no longer; ends with `changes`.

    `lead` is cancelled and has ended before the next term's begins. It never returns by itself.

    Raises an ExceptionGroup of what `lead` raised, also in answer to being cancelled: a leader whose loops have died
    would freeze the cluster, so whoever runs this has to end.
    """
    async with asyncio.TaskGroup() as group:
        leading: asyncio.Task[None] | None = None
        term = 0
        try:
            async for leadership in changes:
                should = leadership.is_leader and leadership.is_ready
                if leading is not None and (not should or leadership.term != term):
                    await _end(leading)
                    leading = None
                if should and leading is None:
                    term = leadership.term
                    leading = group.create_task(lead(term), name=f"lead-term-{term}")
        finally:
            if leading is not None:
                leading.cancel()


async def follow_addresses(members: AsyncIterator[tuple[Member, ...]], writer: Writer) -> None:
    """Have the store say where the managers are, as their group does: workers look for them there."""
    async for present in members:
        decide = partial(keep_addresses, addresses={member.raft_id: member.api_addr for member in present})
        while True:
            try:
                await writer.update(decide)
                break
            except (NotLeader, Unavailable, Conflict) as error:
                # Cancelled soon if leadership is lost; otherwise a quorum is missing for the moment.
                log.warning("the managers' addresses could not be written", reason=error.message)
                await asyncio.sleep(RETRY_SECONDS)


async def _end(leading: "asyncio.Task[None]") -> None:
    leading.cancel()
    # Not awaited itself: if it fails now, that is the group's to raise.
    await asyncio.wait({leading})
