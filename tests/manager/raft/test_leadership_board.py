"""Watching leadership: the present first, then the newest, never a missed last one."""

import asyncio

from pyswarm.manager.raft.leadership import LeadershipBoard
from pyswarm.manager.raft.port import Leadership


def leadership(term: int) -> Leadership:
    return Leadership(term, None, is_leader=False, is_ready=False)


async def test_a_slow_watcher_sees_the_newest() -> None:
    board = LeadershipBoard(leadership(1))
    watch = board.watch()
    assert await anext(watch) == leadership(1)
    for term in (2, 3, 4):
        board.post(leadership(term))
    assert await anext(watch) == leadership(4)


async def test_every_watcher_is_woken() -> None:
    board = LeadershipBoard(leadership(1))
    watches = [board.watch() for _ in range(3)]
    for watch in watches:
        await anext(watch)
    waiting = [asyncio.ensure_future(anext(watch)) for watch in watches]
    await asyncio.sleep(0)
    board.post(leadership(2))
    assert await asyncio.gather(*waiting) == [leadership(2)] * 3


async def test_posting_the_same_is_no_change() -> None:
    board = LeadershipBoard(leadership(1))
    assert not board.post(leadership(1))
    assert board.post(leadership(2))


async def test_closing_ends_every_watch() -> None:
    board = LeadershipBoard(leadership(1))
    watch = board.watch()
    await anext(watch)
    waiting = asyncio.ensure_future(anext(watch, None))
    await asyncio.sleep(0)
    board.close()
    assert await waiting is None
