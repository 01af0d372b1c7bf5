"""Writes that come while others are under way leave together after them; only a crowd waits for company."""

import asyncio
from collections.abc import Callable

import pytest

from pyswarm.manager.store.departures import (
    ALONE_MAX,
    CROWD_MIN,
    GATHERING_SECONDS,
    QUIET_SECONDS,
    Departures,
)

SOON = 10.0


class Harbour:
    """Writes that have left and are under way, by name; `end` gives one its outcome."""

    def __init__(self) -> None:
        self.departures = Departures()
        self.now = asyncio.get_running_loop().time()
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

    async def wait(self, seconds: float) -> None:
        """Let time pass; it stands still otherwise."""
        self.now += seconds
        await self._settle()

    @staticmethod
    async def _settle() -> None:
        for _ in range(8):
            await asyncio.sleep(0)


@pytest.fixture
async def harbour(monkeypatch: pytest.MonkeyPatch) -> Harbour:
    harbour = Harbour()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: harbour.now)
    return harbour


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
    await loaded.end("alone1")
    assert set(loaded.under_way) == {"w1", "w2"}
    await loaded.begin("w3")
    await loaded.end("w1")
    assert set(loaded.under_way) == {"w2"}
    await loaded.end("w2")
    assert set(loaded.under_way) == {"w3"}


@pytest.fixture
async def crowd(loaded: Harbour) -> Harbour:
    """As many under way as make a crowd, which had waited for each other."""
    names = [f"c{number}" for number in range(CROWD_MIN - 2)]
    await loaded.begin(*names)
    await loaded.end(*loaded.under_way)
    assert set(loaded.under_way) == {"w1", "w2", *names}
    return loaded


async def test_a_crowd_leaves_again_as_soon_as_all_that_were_answered_have_come_back(crowd: Harbour):
    answered = list(crowd.under_way)
    await crowd.end(*answered)
    for number, _ in enumerate(answered):
        assert not crowd.under_way
        await crowd.begin(f"again{number}")
        await crowd.wait(QUIET_SECONDS * 0.75)
    assert set(crowd.under_way) == {f"again{number}" for number, _ in enumerate(answered)}


async def test_a_crowd_of_which_one_does_not_come_back_gathers_until_nobody_comes_any_more(crowd: Harbour):
    answered = list(crowd.under_way)
    await crowd.end(*answered)
    names = [f"again{number}" for number, _ in enumerate(answered[1:])]
    for name in names:
        await crowd.begin(name)
        await crowd.wait(QUIET_SECONDS * 0.75)
        assert not crowd.under_way
    await crowd.wait(QUIET_SECONDS * 0.5)
    assert set(crowd.under_way) == set(names)


async def test_those_that_came_while_the_crowd_was_under_way_leave_with_those_that_come_back(crowd: Harbour):
    answered = list(crowd.under_way)
    await crowd.begin("new0", "new1", "new2")
    await crowd.wait(QUIET_SECONDS * 0.75)
    await crowd.end(*answered)
    names = [f"again{number}" for number, _ in enumerate(answered)]
    for name in names:
        assert not crowd.under_way
        await crowd.begin(name)
    assert set(crowd.under_way) == {"new0", "new1", "new2", *names}


async def test_a_crowd_whose_members_have_gone_keeps_those_that_came_meanwhile_no_longer(crowd: Harbour):
    await crowd.begin("new0", "new1", "new2")
    await crowd.wait(QUIET_SECONDS * 1.5)
    await crowd.end(*crowd.under_way)
    assert set(crowd.under_way) == {"new0", "new1", "new2"}


async def test_a_crowd_stays_one_when_only_few_were_quick(crowd: Harbour):
    await crowd.end(*crowd.under_way)
    await crowd.begin("quick")
    await crowd.wait(QUIET_SECONDS)
    assert set(crowd.under_way) == {"quick"}
    await crowd.begin("late0", "late1")
    await crowd.end("quick")
    assert not crowd.under_way
    await crowd.begin("quick again")
    assert set(crowd.under_way) == {"late0", "late1", "quick again"}


async def test_a_crowd_that_never_pauses_and_is_never_complete_leaves_all_the_same(loaded: Harbour):
    names = [f"c{number}" for number in range(20)]
    await loaded.begin(*names)
    await loaded.end(*loaded.under_way)
    await loaded.end(*loaded.under_way)
    step = QUIET_SECONDS * 0.75
    needed = int(GATHERING_SECONDS / step)
    for number in range(needed):
        await loaded.begin(f"again{number}")
        await loaded.wait(step)
        assert not loaded.under_way
    await loaded.begin("last")
    await loaded.wait(step)
    assert len(loaded.under_way) == needed + 1


async def test_whoever_comes_when_the_crowd_has_gone_waits_for_nobody(crowd: Harbour):
    await crowd.end(*crowd.under_way)
    await crowd.wait(GATHERING_SECONDS)
    await crowd.begin("alone")
    assert set(crowd.under_way) == {"alone"}


async def test_what_is_left_of_a_crowd_waits_once(crowd: Harbour):
    await crowd.end(*crowd.under_way)
    await crowd.begin("alone")
    assert not crowd.under_way
    await crowd.wait(QUIET_SECONDS)
    await crowd.end("alone")
    await crowd.begin("next")
    assert set(crowd.under_way) == {"next"}


async def test_one_of_a_crowd_that_gives_up_while_it_gathers_holds_up_nobody(crowd: Harbour):
    await crowd.end(*crowd.under_way)
    await crowd.begin("again0", "again1")
    await crowd.give_up("again0")
    await crowd.wait(QUIET_SECONDS)
    assert set(crowd.under_way) == {"again1"}
    await crowd.end("again1")
    await crowd.begin("next")
    assert set(crowd.under_way) == {"next"}


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
