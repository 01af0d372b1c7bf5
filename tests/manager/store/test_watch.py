"""Following the store: nothing is missed, nothing is told twice, and a gap is never silent."""

import asyncio
import threading

import pytest
from lib.builders import a_node, a_task

from pyswarm.manager.store.apply import Entry, encode_entry
from pyswarm.manager.store.changes import Change, Create, Delete, Update
from pyswarm.manager.store.store import Store
from pyswarm.manager.store.watch import Overrun, Restored
from pyswarm.proto.errors import SwarmError


class Feeder:
    """Applies entries to a store as consensus would."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.index = 0

    def __call__(self, *changes: Change) -> int:
        self.index += 1
        self.store.apply(self.index, encode_entry(Entry("c", self.index, self.index, changes)))
        return self.index


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def feed(store: Store) -> Feeder:
    return Feeder(store)


async def test_the_view_and_what_follows_meet_without_a_gap(store: Store, feed: Feeder) -> None:
    feed(Create(a_node("n1")))
    view, subscription = store.view_and_watch()
    feed(Create(a_node("n2")))
    feed(Update(a_node("n1", version=1, cpus=8)), Delete("node", "n2"))

    async with subscription:
        first, second = await anext(subscription), await anext(subscription)
    assert (view.version, first.version, second.version) == (1, 2, 3)
    assert [(e.action, e.object.id) for e in second.events] == [("update", "n1"), ("delete", "n2")]
    assert second.events[0].old == view.node("n1")
    assert second.snapshot.version == 3
    assert second.snapshot.count("node") == 1


async def test_a_waiting_follower_is_woken(store: Store, feed: Feeder) -> None:
    _, subscription = store.view_and_watch()
    waiting = asyncio.ensure_future(anext(subscription))
    await asyncio.sleep(0)
    assert not waiting.done()
    feed(Create(a_node("n1")))
    assert (await asyncio.wait_for(waiting, 1)).version == 1


async def test_only_the_kinds_asked_for_are_told(store: Store, feed: Feeder) -> None:
    _, subscription = store.view_and_watch({"task"})
    feed(Create(a_node("n1")))
    feed(Create(a_node("n2")), Create(a_task("t1")))
    (commit,) = await subscription.next_batch()
    assert (commit.version, [e.kind for e in commit.events]) == (2, ["task"])


async def test_entries_without_effect_are_not_told(store: Store, feed: Feeder) -> None:
    _, subscription = store.view_and_watch()
    feed(Delete("node", "n9", 4))
    feed(Create(a_node("n1")))
    assert [c.version for c in await subscription.next_batch()] == [2]


async def test_a_batch_is_all_that_has_come(store: Store, feed: Feeder) -> None:
    _, subscription = store.view_and_watch()
    for n in range(5):
        feed(Create(a_node(f"n{n}")))
    assert [c.version for c in await subscription.next_batch()] == [1, 2, 3, 4, 5]


async def test_a_follower_that_falls_behind_is_told_and_holds_nothing_up(store: Store, feed: Feeder) -> None:
    _, slow = store.view_and_watch(limit=3)
    _, quick = store.view_and_watch()
    for n in range(5):
        feed(Create(a_node(f"n{n}")))
    with pytest.raises(Overrun) as raised:
        await anext(slow)
    assert isinstance(raised.value, SwarmError)
    assert raised.value.remedy
    with pytest.raises(Overrun):
        await slow.next_batch()
    assert len(await quick.next_batch()) == 5
    view, again = store.view_and_watch()
    feed(Create(a_node("n9")))
    assert (view.version, (await anext(again)).version) == (5, 6)


async def test_a_restore_tells_every_follower_to_start_again(store: Store, feed: Feeder) -> None:
    feed(Create(a_node("n1")))
    pieces = list(store.snapshot())
    _, subscription = store.view_and_watch()
    feed(Create(a_node("n2")))
    store.restore(1, pieces)
    with pytest.raises(Restored):
        await anext(subscription)
    assert store.view.node("n2") is None
    subscription.close()


async def test_closing_ends_the_iteration_also_for_one_who_waits(store: Store, feed: Feeder) -> None:
    _, subscription = store.view_and_watch()
    waiting = asyncio.ensure_future(subscription.next_batch())
    await asyncio.sleep(0)
    subscription.close()
    subscription.close()
    assert await asyncio.wait_for(waiting, 1) == ()
    assert [commit async for commit in subscription] == []
    feed(Create(a_node("n1")))
    assert [commit async for commit in subscription] == []


async def test_commits_from_another_thread_arrive_complete_and_in_order(store: Store, feed: Feeder) -> None:
    count = 500
    view, subscription = store.view_and_watch()
    thread = threading.Thread(target=lambda: [feed(Create(a_node(f"n{n}"))) for n in range(count)])
    thread.start()
    seen: list[int] = []
    async with asyncio.timeout(20):
        while len(seen) < count:
            seen += [commit.version for commit in await subscription.next_batch()]
    thread.join()
    assert seen == list(range(view.version + 1, count + 1))


async def test_views_taken_while_another_thread_applies_have_no_gap_behind_them(store: Store, feed: Feeder) -> None:
    thread = threading.Thread(target=lambda: [feed(Create(a_node(f"n{n}"))) for n in range(300)])
    thread.start()
    for _ in range(20):
        view, subscription = store.view_and_watch()
        with subscription:
            if view.version >= 300:
                break
            async with asyncio.timeout(20):
                assert (await anext(subscription)).version == view.version + 1
    thread.join()
