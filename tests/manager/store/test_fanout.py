"""Telling followers: each gets exactly what it selected, and those who wanted something else cost nothing."""

import pytest
from lib.builders import a_node, a_service, a_task

from pyswarm.manager.store.apply import Entry, encode_entry
from pyswarm.manager.store.changes import Change, Create, Delete, Update
from pyswarm.manager.store.fanout import By
from pyswarm.manager.store.store import Commit, Selector, Store, Subscription


def feed(store: Store, *changes: Change) -> int:
    index = store.view.version + 1
    store.apply(index, encode_entry(Entry("c", index, index, changes)))
    return index


async def told(subscription: Subscription) -> list[tuple[str, str, str]]:
    """Return everything that waits, as (action, kind, id); [] when nothing does."""
    if not subscription.waiting:
        return []
    return [(e.action, e.kind, e.object.id) for c in await subscription.next_batch() for e in c.events]


@pytest.mark.parametrize(
    ("by", "value", "ids"),
    [
        ("", "", ["t1", "t2", "t3"]),
        ("id", "t2", ["t2"]),
        ("node", "n1", ["t1", "t3"]),
        ("service", "web", ["t1", "t2"]),
        ("service", "we", []),
    ],
)
async def test_a_selector_selects_by_kind_id_node_or_service(by: By, value: str, ids: list[str]) -> None:
    store = Store()
    _, subscription = store.view_and_watch(selectors=[Selector("task", by, value)])
    web, other = a_service("web"), a_service("other")
    feed(
        store,
        Create(a_node("n1")),
        Create(a_task("t1", service=web, node="n1")),
        Create(a_task("t2", service=web, node="n2")),
        Create(a_task("t3", service=other, node="n1")),
    )
    assert [id for _, _, id in await told(subscription)] == ids


async def test_a_task_that_gets_a_node_or_loses_it_is_told_to_the_followers_of_both() -> None:
    store = Store()
    _, old = store.view_and_watch(selectors=[Selector("task", "node", "n1")])
    _, new = store.view_and_watch(selectors=[Selector("task", "node", "n2")])
    feed(store, Create(a_task("t1", node="n1")))
    feed(store, Update(a_task("t1", version=1, node="n2")))
    feed(store, Delete("task", "t1"))
    assert [action for action, _, _ in await told(old)] == ["create", "update"]
    assert [action for action, _, _ in await told(new)] == ["update", "delete"]


async def test_an_event_that_two_selectors_fit_is_told_once() -> None:
    store = Store()
    selectors = [Selector("task", "node", "n1"), Selector("task", "id", "t1"), Selector("node")]
    _, subscription = store.view_and_watch(selectors=selectors)
    feed(store, Create(a_task("t1", node="n1")), Create(a_node("n1")), Create(a_task("t2", node="n1")))
    assert [id for _, _, id in await told(subscription)] == ["t1", "n1", "t2"]


async def test_followers_of_the_same_kinds_share_one_record() -> None:
    store = Store()
    _, one = store.view_and_watch({"task"})
    _, other = store.view_and_watch({"task"})
    feed(store, Create(a_node("n1")), Create(a_task("t1")))
    (first,), (second,) = await one.next_batch(), await other.next_batch()
    assert first is second


async def test_a_commit_looks_only_at_followers_that_want_some_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    followers = 5_000
    store = Store()
    feed(store, *(Create(a_task(f"t{n}", node=f"n{n}")) for n in range(followers)))
    subscriptions = [
        store.view_and_watch(selectors=[Selector("task", "node", f"n{n}"), Selector("node", "id", f"n{n}")])[1]
        for n in range(followers)
    ]
    looked_at = 0
    deliver = Subscription.deliver

    def counting(self: Subscription, commit: Commit) -> bool:
        nonlocal looked_at
        looked_at += 1
        return deliver(self, commit)

    monkeypatch.setattr(Subscription, "deliver", counting)
    for n in range(0, followers, 10):
        feed(store, *(Update(a_task(f"t{m}", version=1, node=f"n{m}", slot=9)) for m in range(n, n + 10)))
    assert looked_at == followers
    assert [len(await told(s)) for s in subscriptions] == [1] * followers


async def test_closed_followers_leave_nothing_behind() -> None:
    store = Store()
    for n in range(3):
        _, narrow = store.view_and_watch(selectors=[Selector("task", "node", f"n{n}")])
        _, broad = store.view_and_watch({"task"})
        narrow.close()
        broad.close()
        broad.close()
    assert store.followers == 0
    feed(store, Create(a_task("t1", node="n1")))
    assert await told(narrow) == await told(broad) == []
