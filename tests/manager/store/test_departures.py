"""Writes that come while others are under way leave together after them; nobody waits for company."""

import asyncio
from collections.abc import Callable

import pytest

from pyswarm.manager.store.departures import ALONE_MAX, Departures

SOON = 10.0


class Harbour:
    """Writes that have left and are under way, by name; `end` gives one its outcome."""

    def __init__(self) -> None:
        self.departures = Departures()
        self.under_way: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def begin(self, *names: str, seconds: float = SOON) -> None:
        """Let writes begin in one step of the loop, and let it run on."""
        for name in names:
            self.tasks[name] = asyncio.create_task(self._write(name, seconds))
        await self._settle()

    async def _write(self, name: str, seconds: float) -> None:
        await self.departures.enter(asyncio.get_running_loop().time() + seconds)
        try:
            self.under_way[name] = asyncio.Event()
            await self.under_way[name].wait()
        finally:
            self.under_way.pop(name, None)
            self.departures.leave()

    async def end(self, *names: str) -> None:
        for name in names:
            self.under_way[name].set()
        await self._settle()

    async def give_up(self, name: str) -> None:
        self.tasks[name].cancel()
        await self._settle()

    @staticmethod
    async def _settle() -> None:
        for _ in range(8):
            await asyncio.sleep(0)


@pytest.fixture
async def harbour() -> Harbour:
    return Harbour()


@pytest.fixture
async def loaded(harbour: Harbour) -> Harbour:
    """As many under way as leave without waiting, and `w1`, `w2` waiting."""
    for number in range(ALONE_MAX):
        await harbour.begin(f"alone{number}")
    await harbour.begin("w1", "w2")
    assert set(harbour.under_way) == {f"alone{number}" for number in range(ALONE_MAX)}
    return harbour


async def test_a_write_that_finds_hardly_any_under_way_leaves_at_once(harbour: Harbour):
    for number in range(ALONE_MAX):
        await harbour.begin(f"alone{number}")
        assert f"alone{number}" in harbour.under_way


async def test_writes_of_one_step_leave_together(harbour: Harbour):
    await harbour.begin(*(f"w{number}" for number in range(50)))
    assert len(harbour.under_way) == 50
    await harbour.begin("late")
    assert "late" not in harbour.under_way


async def test_those_that_wait_leave_together_when_all_before_them_have_ended(loaded: Harbour):
    await loaded.end("alone0")
    assert set(loaded.under_way) == {"alone1"}
    await loaded.begin("w3")
    await loaded.end("alone1")
    assert set(loaded.under_way) == {"w1", "w2", "w3"}
    await loaded.begin("w4")
    await loaded.end("w1", "w2")
    assert set(loaded.under_way) == {"w3"}
    await loaded.end("w3")
    assert set(loaded.under_way) == {"w4"}


async def test_waiting_has_a_deadline_and_leaves_nothing_behind(harbour: Harbour):
    await harbour.begin("a", "b", "c")
    await harbour.begin("late", seconds=0.0)
    with pytest.raises(TimeoutError):
        await harbour.tasks["late"]
    await harbour.end("a", "b", "c")
    await harbour.begin("next")
    assert set(harbour.under_way) == {"next"}


@pytest.mark.parametrize(
    "when",
    [lambda harbour: None, lambda harbour: [event.set() for event in harbour.under_way.values()]],
    ids=["while it waits", "as it is called"],
)
async def test_who_gives_up_holds_up_nobody(loaded: Harbour, when: Callable[[Harbour], object]):
    when(loaded)
    await loaded.give_up("w1")
    await loaded.end(*set(loaded.under_way) - {"w2"})
    assert set(loaded.under_way) == {"w2"}
    await loaded.end("w2")
    await loaded.begin("next")
    assert set(loaded.under_way) == {"next"}
    assert loaded.tasks["w1"].cancelled()


async def test_one_that_was_called_and_cancelled_in_the_same_step_counts_no_more():
    departures, deadline = Departures(), asyncio.get_running_loop().time() + SOON
    for _ in range(ALONE_MAX):
        await departures.enter(deadline)
    await asyncio.sleep(0)
    called = asyncio.create_task(departures.enter(deadline))
    await asyncio.sleep(0)
    for _ in range(ALONE_MAX):
        departures.leave()
    called.cancel()
    with pytest.raises(asyncio.CancelledError):
        await called
    for _ in range(ALONE_MAX):
        await asyncio.wait_for(departures.enter(deadline), 1)
        await asyncio.sleep(0)
