"""Coming back to a watch: everything after the version one has, or a clear word that it is not remembered."""

import pytest
from lib.builders import a_node, a_task

from pyswarm.manager.store.apply import Entry, encode_entry
from pyswarm.manager.store.changes import Change, Create, Update
from pyswarm.manager.store.history import History
from pyswarm.manager.store.store import Overrun, Selector, Store
from pyswarm.proto.errors import VersionTooOld


def feed(store: Store, *changes: Change, index: int = 0) -> int:
    index = index or store.view.version + 1
    store.apply(index, encode_entry(Entry("c", index, index, changes)))
    return index


def stored(count: int, **options: int) -> Store:
    """Return a store that made nodes n1, n2, … at versions 1, 2, …"""
    store = Store(**options)
    for n in range(1, count + 1):
        feed(store, Create(a_node(f"n{n}")))
    return store


async def test_a_resumed_watch_goes_on_behind_the_version_it_names() -> None:
    store = stored(5)
    with store.watch_after(2) as subscription:
        feed(store, Create(a_node("n6")))
        commits = await subscription.next_batch()
    assert [c.version for c in commits] == [3, 4, 5, 6]
    assert [c.snapshot.count("node") for c in commits] == [3, 4, 5, 6]


async def test_whoever_has_seen_everything_resumes_at_the_present() -> None:
    store = stored(3)
    with store.watch_after(3) as subscription:
        assert subscription.waiting == 0
        feed(store, Create(a_node("n4")))
        assert [c.version for c in await subscription.next_batch()] == [4]


async def test_a_resumed_watch_is_told_only_what_it_selects() -> None:
    store = stored(2)
    feed(store, Create(a_task("t1", node="n1")), Create(a_task("t2", node="n2")))
    feed(store, Update(a_task("t2", version=3, node="n2", slot=2)))
    with store.watch_after(1, selectors=[Selector("task", "node", "n1")]) as subscription:
        (commit,) = await subscription.next_batch()
    assert (commit.version, [e.object.id for e in commit.events]) == (3, ["t1"])


async def test_a_version_that_is_not_remembered_is_refused_with_the_remedy() -> None:
    store = stored(10, history_events=4)
    with pytest.raises(VersionTooOld, match="remembers what came after 6") as raised:
        store.watch_after(5)
    assert "List again" in raised.value.remedy
    with store.watch_after(6) as subscription:
        assert [c.version for c in await subscription.next_batch()] == [7, 8, 9, 10]
    assert store.followers == 0


async def test_a_version_not_reached_yet_is_waited_for() -> None:
    store = stored(2)
    with store.watch_after(4) as subscription:
        for n in (3, 4, 5):
            feed(store, Create(a_node(f"n{n}")))
        assert [c.version for c in await subscription.next_batch()] == [5]


async def test_after_a_restore_nothing_older_is_remembered() -> None:
    store, other = stored(6), Store()
    other.restore(6, list(store.snapshot()))
    with pytest.raises(VersionTooOld):
        other.watch_after(5)
    with other.watch_after(6) as subscription:
        feed(other, Create(a_node("n7")))
        assert [c.version for c in await subscription.next_batch()] == [7]


async def test_entries_without_effect_leave_no_trace_in_what_is_remembered() -> None:
    store = stored(1, history_events=2)
    for _ in range(10):
        feed(store, Update(a_node("n1", version=99)))
    with store.watch_after(0) as subscription:
        assert [c.version for c in await subscription.next_batch()] == [1]


async def test_what_waits_for_one_follower_is_bounded_by_events_as_well_as_commits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pyswarm.manager.store.watch.QUEUED_EVENTS_MAX", 20)
    store = Store()
    _, subscription = store.view_and_watch()
    feed(store, *(Create(a_node(f"a{n}")) for n in range(30)))
    assert len((await subscription.next_batch())[0].events) == 30  # one large commit always fits
    feed(store, *(Create(a_node(f"b{n}")) for n in range(15)))
    feed(store, *(Create(a_node(f"c{n}")) for n in range(15)))
    with pytest.raises(Overrun, match="30 events"):
        await subscription.next_batch()
    assert store.followers == 0


def test_what_is_remembered_is_bounded_by_events() -> None:
    store = Store(history_events=100)
    for n in range(40):
        feed(store, *(Create(a_node(f"n{n}-{m}")) for m in range(30)))
    assert len(list(store.history_after(37))) == 3
    with pytest.raises(VersionTooOld):
        store.history_after(36)
    assert History().floor == 0
