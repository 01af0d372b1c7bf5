"""Control.Watch: filtered, resumable, and honest about what it cannot tell."""

from collections.abc import AsyncGenerator
from typing import cast

import pytest
from lib.builders import a_node, a_service, a_task

from pyswarm.manager.api.watch import selectors_of, watch_events
from pyswarm.manager.store.apply import Entry, encode_entry
from pyswarm.manager.store.changes import Change, Create, Update
from pyswarm.manager.store.store import Overrun, Selector, Store
from pyswarm.manager.store.watch import QUEUE_LIMIT
from pyswarm.proto.errors import InvalidArgument, VersionTooOld
from pyswarm.proto.v1 import control_pb2 as pb


def feed(store: Store, *changes: Change) -> int:
    index = store.view.version + 1
    store.apply(index, encode_entry(Entry("c", index, index, changes)))
    return index


def watch(store: Store, **request: object) -> AsyncGenerator[pb.WatchEvents, None]:
    return cast("AsyncGenerator[pb.WatchEvents, None]", watch_events(store, pb.WatchRequest(**request)))  # type: ignore[arg-type]


def seen(message: pb.WatchEvents) -> tuple[int, list[str]]:
    return message.version, [event.id for event in message.events]


async def test_the_first_message_says_that_the_watch_is_in_place() -> None:
    store = Store()
    feed(store, Create(a_node("n1")))
    messages = watch(store)
    assert seen(await anext(messages)) == (1, [])
    feed(store, Create(a_task("t1")), Create(a_node("n2")))
    assert seen(await anext(messages)) == (2, ["t1", "n2"])
    await messages.aclose()
    assert store.followers == 0


async def test_a_watch_resumes_from_a_version() -> None:
    store = Store()
    for n in range(4):
        feed(store, Create(a_node(f"n{n}")))
    messages = watch(store, after_version=2)
    assert [seen(await anext(messages)) for _ in range(3)] == [(2, []), (3, ["n2"]), (4, ["n3"])]
    await messages.aclose()


async def test_a_version_too_old_is_refused_before_anything_is_told() -> None:
    store = Store(history_events=1)
    for n in range(4):
        feed(store, Create(a_node(f"n{n}")))
    with pytest.raises(VersionTooOld):
        await anext(watch(store, after_version=1))


@pytest.mark.parametrize("request_fields", [{"kinds": ["cluster"]}, {"kinds": ["task", "x"]}, {"after_version": -1}])
async def test_what_cannot_be_watched_is_refused(request_fields: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument):
        await anext(watch(Store(), **request_fields))


async def test_a_caller_who_does_not_read_is_cut_off() -> None:
    store = Store()
    messages = watch(store, kinds=["node"])
    await anext(messages)
    version = feed(store, Create(a_node("n1")))
    for _ in range(QUEUE_LIMIT):
        version = feed(store, Update(a_node("n1", version=version)))
    with pytest.raises(Overrun):
        await anext(messages)
    assert store.followers == 0


async def test_conditions_add_up() -> None:
    store = Store()
    messages = watch(store, service_id="web", node_id="n1")
    await anext(messages)
    web = a_service("web")
    feed(store, Create(web), Create(a_node("n1")), Create(a_task("t1", service=web, node="n2")))
    version = feed(store, Create(a_task("t2", service=web, node="n1")))
    assert seen(await anext(messages)) == (version, ["t2"])
    await messages.aclose()


@pytest.mark.parametrize(
    ("request_fields", "selectors"),
    [
        ({"kinds": ["node"]}, {Selector("node")}),
        ({"node_id": "n1"}, {Selector("node", "id", "n1"), Selector("task", "node", "n1")}),
        ({"service_id": "s", "kinds": ["task"]}, {Selector("task", "service", "s")}),
        ({"service_id": "s", "kinds": ["node"]}, set()),
    ],
)
def test_the_store_is_asked_for_no_more_than_is_wanted(
    request_fields: dict[str, object], selectors: set[Selector]
) -> None:
    assert selectors_of(pb.WatchRequest(**request_fields)) == selectors  # type: ignore[arg-type]
