"""Work that many need is done once for all who asked before it began, and again for those who asked after."""

import asyncio

import pytest

from pyswarm.worker.agent.turns import SharedTurns


class Work:
    """Counts its turns; each ends when it is let go, with its number or the failure that is waiting."""

    def __init__(self) -> None:
        self.turns = 0
        self.go_on = asyncio.Semaphore(0)
        self.failure: Exception | None = None

    async def __call__(self) -> int:
        self.turns += 1
        number = self.turns
        await self.go_on.acquire()
        if self.failure is not None:
            raise self.failure
        return number


async def asked(turns: SharedTurns[int], times: int) -> list[asyncio.Task[int]]:
    tasks = [asyncio.create_task(turns.outcome()) for _ in range(times)]
    await asyncio.sleep(0)
    return tasks


async def test_those_who_ask_during_a_turn_share_the_next_one():
    work = Work()
    turns = SharedTurns(work)
    first = await asked(turns, 1)
    others = await asked(turns, 3)
    for _ in range(5):
        work.go_on.release()
    assert await asyncio.gather(*first, *others) == [1, 2, 2, 2]
    assert work.turns == 2


async def test_a_failure_is_told_to_all_who_asked_for_that_turn_and_the_next_turn_is_tried():
    work = Work()
    turns = SharedTurns(work)
    first = await asked(turns, 1)
    others = await asked(turns, 2)
    work.go_on.release()
    await first[0]
    work.failure = OSError("the disk is full")
    work.go_on.release()
    outcomes = await asyncio.gather(*others, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [OSError, OSError]
    work.failure = None
    work.go_on.release()
    assert await turns.outcome() == 3


async def test_the_next_in_line_takes_a_turn_of_its_own_when_an_asker_is_cancelled():
    work = Work()
    turns = SharedTurns(work)
    (first,) = await asked(turns, 1)
    (second,) = await asked(turns, 1)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    work.go_on.release()
    assert await second == 2
