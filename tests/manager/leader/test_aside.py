"""Long decisions leave the event loop to others; short ones cost no thread."""

import asyncio
import threading

import pytest

from pyswarm.manager.leader.aside import SHORT_TASKS, DecisionThread


async def test_the_event_loop_goes_on_while_a_long_decision_is_taken():
    aside = DecisionThread("decisions")
    may_end = threading.Event()
    deciding = asyncio.create_task(aside(lambda: may_end.wait(5), tasks=SHORT_TASKS + 1))
    await asyncio.sleep(0)
    may_end.set()  # by the loop, which is not held
    assert await deciding
    aside.close()


async def test_a_short_decision_is_taken_where_it_is_asked_for():
    aside = DecisionThread("decisions")
    assert await aside(threading.get_ident, tasks=SHORT_TASKS) == threading.get_ident()
    assert await aside(threading.get_ident, tasks=SHORT_TASKS + 1) != threading.get_ident()
    aside.close()


async def test_what_a_decision_raises_comes_back_from_the_thread():
    aside = DecisionThread("decisions")
    with pytest.raises(ZeroDivisionError):
        await aside(lambda: 1 // 0, tasks=SHORT_TASKS + 1)
    aside.close()
