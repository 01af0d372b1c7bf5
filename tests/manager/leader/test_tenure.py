"""What runs while a manager leads: begun and ended with its leadership, and never dead without the manager's end."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from lib.builders import a_cluster, a_node
from msgspec.structs import replace

from pyswarm.manager.leader import tenure
from pyswarm.manager.leader.tenure import during_leadership, follow_addresses
from pyswarm.manager.raft.fake import FAKE_MEMBER, SingleNodeConsensus
from pyswarm.manager.raft.port import Member
from pyswarm.manager.store.changes import Create
from pyswarm.manager.store.store import Store
from pyswarm.manager.store.writer import Writer
from pyswarm.proto.clock import SYSTEM_CLOCK
from pyswarm.proto.entropy import SYSTEM_ENTROPY
from pyswarm.proto.model.objects import ManagerStatus
from pyswarm.proto.model.states import Reachability


class Term:
    """Notes which terms were begun and ended; `ends_with` is raised when one is cancelled."""

    def __init__(self, ends_with: Exception | None = None) -> None:
        self.events: list[tuple[str, int]] = []
        self.changed = asyncio.Event()
        self.fails = asyncio.Event()
        self._ends_with = ends_with

    async def lead(self, term: int) -> None:
        self._note("begun", term)
        try:
            await self.fails.wait()
            raise ValueError("a fault of a loop")
        finally:
            self._note("ended", term)
            if self._ends_with is not None:
                raise self._ends_with

    async def until(self, *events: tuple[str, int]) -> None:
        async with asyncio.timeout(5):
            while self.events != list(events):
                await self.changed.wait()
                self.changed.clear()

    def _note(self, what: str, term: int) -> None:
        self.events.append((what, term))
        self.changed.set()


def consensus() -> SingleNodeConsensus:
    return SingleNodeConsensus(Store())


async def test_it_leads_in_each_of_its_terms_and_only_then():
    group, term = consensus(), Term()
    running = asyncio.create_task(during_leadership(group.watch_leadership(), term.lead))
    await term.until(("begun", 1))
    group.lose_leadership()
    await term.until(("begun", 1), ("ended", 1))
    group.lead_again()
    await term.until(("begun", 1), ("ended", 1), ("begun", 3))
    await group.close()
    async with asyncio.timeout(5):
        await running
    assert term.events[-1] == ("ended", 3)


async def test_a_fault_while_leading_ends_it_all():
    group, term = consensus(), Term()
    running = asyncio.create_task(during_leadership(group.watch_leadership(), term.lead))
    await term.until(("begun", 1))
    term.fails.set()
    with pytest.raises(ExceptionGroup) as raised:
        async with asyncio.timeout(5):
            await running
    assert raised.group_contains(ValueError, match="a fault of a loop")


async def test_a_fault_in_answer_to_losing_leadership_ends_it_all():
    group, term = consensus(), Term(ends_with=RuntimeError("could not end"))
    running = asyncio.create_task(during_leadership(group.watch_leadership(), term.lead))
    await term.until(("begun", 1))
    group.lose_leadership()
    with pytest.raises(ExceptionGroup) as raised:
        async with asyncio.timeout(5):
            await running
    assert raised.group_contains(RuntimeError, match="could not end")


async def test_addresses_are_written_when_leadership_was_away_for_a_moment(monkeypatch: pytest.MonkeyPatch):
    """Deposed while it asked whether its view is the present one, the leader's loop went down with the manager."""
    monkeypatch.setattr(tenure, "RETRY_SECONDS", 0.01)
    store = Store()
    group = SingleNodeConsensus(store)
    writer = Writer(group, store, clock=SYSTEM_CLOCK, entropy=SYSTEM_ENTROPY)
    status = ManagerStatus(FAKE_MEMBER.raft_id, "127.0.0.1:1", Reachability.REACHABLE)
    node = replace(a_node("node-1"), version=0, manager_status=status)
    await writer.write([Create(replace(a_cluster(), version=0)), Create(node)])

    refused = asyncio.Event()
    propose = group.propose

    async def noted(payload: bytes, *, timeout_seconds: float = 10.0) -> tuple[int, bytes]:
        try:
            return await propose(payload, timeout_seconds=timeout_seconds)
        except Exception:
            refused.set()
            raise

    monkeypatch.setattr(group, "propose", noted)

    async def members() -> AsyncIterator[tuple[Member, ...]]:
        yield (replace(FAKE_MEMBER, api_addr="127.0.0.1:2"),)

    group.lose_leadership()
    following = asyncio.create_task(follow_addresses(members(), writer))
    async with asyncio.timeout(5):
        await refused.wait()
        group.lead_again()
        await following
    seen = store.view.node("node-1")
    assert seen is not None
    assert seen.manager_status is not None
    assert seen.manager_status.addr == "127.0.0.1:2"
