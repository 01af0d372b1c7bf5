"""Tasks by service and node: always in slot order, which is found once and not at each reading."""

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lib.builders import a_task
from msgspec.structs import replace

from pyswarm.manager.store import snapshot as subject
from pyswarm.manager.store.changes import Create, Delete, Update
from pyswarm.manager.store.snapshot import Snapshot


@pytest.fixture
def sorts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many objects each sort looked at."""
    counted: list[int] = []

    def counting(items: Iterable[object], **how: object) -> list[object]:
        in_order: list[object] = sorted(items, **how)  # type: ignore[call-overload]
        counted.append(len(in_order))
        return in_order

    monkeypatch.setattr(subject, "sorted", counting, raising=False)
    return counted


def test_reading_a_group_again_sorts_nothing_also_after_its_tasks_were_written(sorts: list[int]) -> None:
    view = Snapshot.of(*(a_task(f"t{n}", slot=n % 7, node="n1") for n in range(50)))
    first = view.tasks_of_service("web")
    assert [t.slot for t in first] == sorted(t.slot for t in first)
    later = view.with_changes([Update(replace(task, why="written")) for task in first], version=2)
    assert [t.id for t in later.tasks_of_service("web")] == [t.id for t in first]
    assert {t.why for t in later.tasks_of_service("web")} == {"written"}
    assert sorts == [50]


def test_a_group_that_changes_leaves_the_order_of_others_alone(sorts: list[int]) -> None:
    view = Snapshot.of(*(a_task(f"t{n}", slot=n, service=f"s{n % 2}") for n in range(20)))
    view.tasks_of_service("s0"), view.tasks_of_service("s1")
    view = view.with_changes([Create(a_task("new", slot=3, service="s1"))], version=2)
    assert [t.slot for t in view.tasks_of_service("s1")] == [1, 3, 3, *range(5, 20, 2)]
    assert len(view.tasks_of_service("s0")) == 10
    assert sorts == [10, 10, 11]


def test_many_objects_are_walked_over_in_order_without_one_long_sort(sorts: list[int]) -> None:
    count = 2 * subject.SORTED_AT_ONCE + 5
    view = Snapshot.of(*(a_task(f"t{n:06}") for n in range(count)))
    assert [task.id for task in view.tasks()] == [f"t{n:06}" for n in range(count)]
    assert max(sorts) == subject.SORTED_AT_ONCE
    assert sum(sorts) == count


@given(st.data())
@settings(deadline=None, max_examples=100)
def test_the_order_is_true_whatever_is_written_between_readings(data: st.DataObject) -> None:
    view = Snapshot()
    for version in range(1, data.draw(st.integers(2, 12))):
        id = data.draw(st.sampled_from(("a", "b", "c", "d")))
        slot, age = data.draw(st.integers(1, 3)), float(data.draw(st.integers(1, 3)))
        node, service = data.draw(st.sampled_from(("", "n1"))), data.draw(st.sampled_from(("s1", "s2")))
        task = a_task(id, slot=slot, created_at=age, node=node, service=service)
        old = view.task(id)
        if old is None:
            view = view.with_changes([Create(task)], version=version)
        elif data.draw(st.booleans()):
            view = view.with_changes([Update(replace(task, version=old.version))], version=version)
        else:
            view = view.with_changes([Delete("task", id)], version=version)
        tasks = sorted(view.tasks(), key=lambda t: (t.slot, t.created_at, t.id))
        assert view.tasks_of_node("n1") == tuple(t for t in tasks if t.node_id == "n1")
        for service in ("s1", "s2"):
            assert view.tasks_of_service(service) == tuple(t for t in tasks if t.service_id == service)
