"""Checkpoints: the same on every manager that applied the same entries, and a vote when they are not."""

import pytest
from lib.builders import a_node

from pyswarm.manager.store import checkpoints as subject
from pyswarm.manager.store.apply import Entry, encode_entry
from pyswarm.manager.store.changes import Create
from pyswarm.manager.store.checkpoints import CHECKPOINTS_MAX, Checkpoint, Disagreement, find_disagreement
from pyswarm.manager.store.store import Store

EVERY = 10


@pytest.fixture(autouse=True)
def _frequent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "CHECKPOINT_VERSIONS", EVERY)


def apply_nodes(store: Store, first: int, last: int) -> None:
    for index in range(first, last + 1):
        store.apply(index, encode_entry(Entry("c", index, 1, (Create(a_node(f"n{index}")),))))


def test_managers_that_apply_the_same_entries_have_the_same_checkpoints() -> None:
    one, other = Store(), Store()
    for store in (one, other):
        apply_nodes(store, 1, 35)
    assert one.checkpoints() == other.checkpoints()
    assert [c.version for c in one.checkpoints()] == [10, 20, 30]


def test_a_manager_that_was_given_a_snapshot_has_the_same_checkpoints_from_there_on() -> None:
    one, given = Store(), Store()
    apply_nodes(one, 1, 15)
    given.restore(15, one.snapshot())
    for store in (one, given):
        apply_nodes(store, 16, 25)
    assert given.checkpoints() == one.checkpoints()[1:] != ()


def test_what_another_manager_was_told_shows_in_every_later_checkpoint() -> None:
    one, other = Store(), Store()
    for store in (one, other):
        apply_nodes(store, 1, 14)
    one.apply(15, encode_entry(Entry("c", 15, 1, (Create(a_node("x")),))))
    other.apply(15, encode_entry(Entry("c", 15, 1, (Create(a_node("y")),))))
    for store in (one, other):
        apply_nodes(store, 16, 30)
    assert one.checkpoints()[0] == other.checkpoints()[0]
    assert all(a.digest != b.digest for a, b in zip(one.checkpoints()[1:], other.checkpoints()[1:], strict=True))


def test_what_is_kept_is_bounded() -> None:
    store = Store()
    apply_nodes(store, 1, EVERY * (CHECKPOINTS_MAX + 5))
    kept = store.checkpoints()
    assert len(kept) == CHECKPOINTS_MAX
    assert kept[-1].version == EVERY * (CHECKPOINTS_MAX + 5)


def at(**digests: str) -> list[Checkpoint]:
    return [Checkpoint(int(name[1:]), digest) for name, digest in digests.items()]


@pytest.mark.parametrize(
    ("own", "others", "expected"),
    [
        pytest.param(at(v10="a"), {"m2": at(v10="a"), "m3": at(v10="a")}, None, id="all agree"),
        pytest.param(at(v10="a", v20="b"), {"m2": at(v10="a"), "m3": []}, None, id="one lags, one is silent"),
        pytest.param(at(v10="a"), {"m2": at(v20="z")}, None, id="no version in common"),
        pytest.param(
            at(v10="a"),
            {"m2": at(v10="z"), "m3": at(v10="z")},
            Disagreement(10, ("m2", "m3"), is_outvoted=True),
            id="a majority agrees on something else",
        ),
        pytest.param(
            at(v10="a"),
            {"m2": at(v10="z"), "m3": at(v10="a")},
            Disagreement(10, ("m2",), is_outvoted=False),
            id="one differs, and it is not us",
        ),
        pytest.param(
            at(v10="a"),
            {"m2": at(v10="z"), "m3": []},
            Disagreement(10, ("m2",), is_outvoted=False),
            id="one of two differs, and nobody can tell which",
        ),
        pytest.param(
            at(v10="a"),
            {"m2": at(v10="y"), "m3": at(v10="z")},
            Disagreement(10, ("m2", "m3"), is_outvoted=False),
            id="all differ",
        ),
        pytest.param(
            at(v10="a", v20="b"),
            {"m2": at(v10="z", v20="b"), "m3": at(v10="a")},
            Disagreement(10, ("m2",), is_outvoted=False),
            id="an older difference counts as well",
        ),
    ],
)
def test_who_differs_and_who_is_outvoted(
    own: list[Checkpoint], others: dict[str, list[Checkpoint]], expected: Disagreement | None
) -> None:
    assert find_disagreement(own, others, managers=3) == expected
