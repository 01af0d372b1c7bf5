"""The running digest: always what a walk over all objects would give, at the cost of what changes."""

import pytest
from lib.builders import a_node, a_service, a_task
from msgspec.structs import replace

from pyswarm.manager.store import digest as subject
from pyswarm.manager.store.apply import EMPTY, Entry, State, apply_entry, encode_entry, state_digest, state_objects
from pyswarm.manager.store.changes import Change, Create, Delete, Update
from pyswarm.manager.store.digest import tally
from pyswarm.proto.model.objects import Object, Secret
from pyswarm.proto.model.spec import SecretSpec


def after(state: State, *entries: tuple[Change, ...]) -> State:
    for changes in entries:
        index = state.view.version + 1
        state, _, _ = apply_entry(state, index, encode_entry(Entry("c", index, index, changes)))
    return state


def test_the_tally_is_kept_true_through_creates_updates_deletes_and_refusals() -> None:
    state = after(
        EMPTY,
        (Create(a_node("n1")), Create(a_task("t1")), Create(a_task("t2"))),
        (Update(a_task("t1", version=1, node="n1")), Delete("task", "t2")),
        (Update(a_task("t1", version=1, node="n9")),),  # refused
        (Delete("node", "n1"), Create(a_service("web"))),
    )
    assert state.objects_tally == tally(state_objects(state)) != 0


def test_everything_deleted_leaves_an_empty_tally() -> None:
    state = after(EMPTY, (Create(a_node("n1")),), (Delete("node", "n1"),))
    assert state.objects_tally == EMPTY.objects_tally


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(a_task("t2"), id="the id"),
        pytest.param(replace(a_task("t1"), version=9), id="the version"),
        pytest.param(replace(a_task("t1"), why="because"), id="the content"),
        pytest.param(a_node("t1"), id="the kind"),
    ],
)
def test_objects_that_differ_in_one_thing_have_different_tallies(other: Object) -> None:
    assert tally([a_task("t1")]) != tally([other])


def test_the_order_of_labels_is_no_difference() -> None:
    one = Secret("s", spec=SecretSpec("key", {"a": "1", "b": "2"}, b"K"))
    other = Secret("s", spec=SecretSpec("key", {"b": "2", "a": "1"}, b"K"))
    assert tally([one]) == tally([other])


def test_the_digest_of_a_large_state_looks_at_no_object(monkeypatch: pytest.MonkeyPatch) -> None:
    state = after(EMPTY, tuple(Create(a_task(f"t{n}")) for n in range(500)))
    seen: list[Object] = []
    fingerprint = subject.fingerprint

    def counting(object: Object) -> int:
        seen.append(object)
        return fingerprint(object)

    monkeypatch.setattr(subject, "fingerprint", counting)
    state_digest(state)
    assert seen == []
    state_digest(after(state, (Update(a_task("t7", version=1)),)))
    assert [o.id for o in seen] == ["t7", "t7"]
