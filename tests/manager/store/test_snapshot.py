"""A snapshot is immutable, indexed and ordered; changes apply to it all or not at all."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lib.builders import a_cluster, a_node, a_revision, a_service, a_task
from msgspec.structs import replace

from pyswarm.manager.store.changes import Change, Create, Delete, Expect, Update
from pyswarm.manager.store.conflict import Conflict, InvalidChanges
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.proto.model.objects import VERSION_OF_LABEL, Config, Object, Service, Task
from pyswarm.proto.model.spec import ConfigSpec
from pyswarm.proto.model.states import TaskState


def ids(objects: Sequence[Object]) -> list[str]:
    return [o.id for o in objects]


def test_a_view_is_not_changed_by_later_changes() -> None:
    before = Snapshot.of(a_task("t1", node="n1"))
    after = before.with_changes([Delete("task", "t1"), Create(a_task("t2", node="n1"))], version=7)

    assert (ids(before.tasks_of_node("n1")), before.version) == (["t1"], 0)
    assert (ids(after.tasks_of_node("n1")), after.version) == (["t2"], 7)


def test_what_is_written_gets_the_version_of_the_entry() -> None:
    seen = Snapshot().with_changes([Create(a_node("n1")), Create(a_task("t1"))], version=5)
    assert seen.node("n1") == a_node("n1", version=5)
    assert seen.get("task", "t1") == a_task("t1", version=5)


def test_objects_come_in_a_fixed_order() -> None:
    seen = Snapshot.of(*(a_node(f"n{n}") for n in (3, 1, 2)), *(a_task(f"t{n}") for n in range(20)))
    assert ids(list(seen.nodes())) == ["n1", "n2", "n3"]
    assert ids(list(seen.tasks())) == sorted(f"t{n}" for n in range(20))


def test_tasks_come_by_slot_then_age_then_id() -> None:
    tasks = [
        a_task("d", slot=2, node="n", created_at=1),
        a_task("c", slot=1, node="n", created_at=9),
        a_task("b", slot=1, node="n", created_at=3),
        a_task("a", slot=1, node="n", created_at=9),
    ]
    seen = Snapshot.of(*tasks)
    assert ids(seen.tasks_of_service("web")) == ["b", "a", "c", "d"]
    assert ids(seen.tasks_of_node("n")) == ["b", "a", "c", "d"]
    assert seen.tasks_of_service("other") == ()


def test_a_task_that_is_assigned_joins_its_node() -> None:
    seen = Snapshot.of(a_task("t1"))
    assert seen.tasks_of_node("") == ()
    seen = seen.with_changes([Update(a_task("t1", node="n1"))], version=2)
    assert ids(seen.tasks_of_node("n1")) == ["t1"]


def test_revisions_are_found_by_service_and_by_task() -> None:
    web = a_service("web", spec_version=2)
    seen = Snapshot.of(web, a_revision(web), a_revision(web, spec_version=1))
    assert [r.spec_version for r in seen.revisions_of_service("web")] == [1, 2]
    assert seen.revision_of(a_task(service=web)) == a_revision(web)
    assert seen.revision_of(a_task(service=web, spec_version=9)) is None


def test_names_are_found_whatever_their_case_and_follow_renames_and_deletes() -> None:
    seen = Snapshot.of(a_service("s1", name="Web"))
    assert seen.service_by_name("wEB") is seen.service("s1")
    assert seen.service_by_name("we") is None
    assert seen.with_changes([Delete("service", "s1")], version=2).service_by_name("web") is None
    renamed = seen.with_changes([Update(a_service("s1", name="api"))], version=2)
    assert (renamed.service_by_name("web"), renamed.service_by_name("api")) == (None, renamed.service("s1"))


def a_config(id: str, name: str, version_of: str = "") -> Config:
    labels = {VERSION_OF_LABEL: version_of} if version_of else {}
    return Config(id=id, version=1, spec=ConfigSpec(name=name, labels=labels))


def test_versions_of_a_config_are_found_by_what_they_are_versions_of() -> None:
    first, second, third = a_config("c2", "Site"), a_config("c3", "site.2", "Site"), a_config("c1", "site.3", "site")
    seen = Snapshot.of(first, second, third, a_config("c9", "other"))
    assert ids(seen.configs_called("SITE")) == ["c1", "c2", "c3"]
    assert ids(seen.configs_called("site.2")) == ["c3"]
    assert (seen.configs_called("nobody"), seen.secrets_called("site")) == ((), ())

    changes = [Delete("config", "c2", 1), Update(replace(second, spec=replace(second.spec, labels={})))]
    after = seen.with_changes(changes, version=2)
    assert ids(after.configs_called("site")) == ["c1"]
    assert ids(after.configs_called("site.2")) == ["c3"]
    assert after.with_changes([Delete("config", "c1")], version=3).configs_called("site") == ()


REFUSED: dict[str, tuple[list[Change], str, int, int]] = {
    "creating what exists": ([Create(a_node("n1"))], "n1", 0, 1),
    "updating from an old version": ([Update(a_node("n1", version=9))], "n1", 9, 1),
    "updating what is gone": ([Update(a_node("n9", version=4))], "n9", 4, 0),
    "deleting at an old version": ([Delete("node", "n1", 3)], "n1", 3, 1),
    "deleting what is gone, at a version": ([Delete("node", "n9", 3)], "n9", 3, 0),
    "expecting an old version": ([Expect("node", "n1", 2)], "n1", 2, 1),
    "expecting what is gone": ([Expect("node", "n9", 2)], "n9", 2, 0),
    "expecting nothing where something is": ([Expect("node", "n1", 0)], "n1", 0, 1),
    "a second cluster": ([Create(a_cluster("other"))], "cluster1", 0, 1),
    "a service name that is taken": ([Create(a_service("s2", name="WEB"))], "web", 0, 1),
}


@pytest.mark.parametrize(("changes", "id", "expected", "found"), REFUSED.values(), ids=REFUSED)
def test_a_failed_check_refuses_everything(changes: list[Change], id: str, expected: int, found: int) -> None:
    seen = Snapshot.of(a_cluster(), a_node("n1"), a_service("web"))
    with pytest.raises(Conflict) as raised:
        seen.with_changes([Create(a_task("t1")), *changes], version=5)
    assert (raised.value.id, raised.value.expected, raised.value.found) == (id, expected, found)
    assert raised.value.message
    assert seen.task("t1") is None


@pytest.mark.parametrize(
    "changes",
    [
        [Expect("node", "n1", 1), Update(a_node("n1"))],
        [Update(a_node("n1")), Expect("node", "n1", 1)],
        [Expect("node", "n9", 0), Create(a_node("n9"))],
        [Delete("node", "n1", 1)],
        [Delete("node", "n9")],
        [Delete("service", "web"), Create(a_service("s2", name="web"))],
        [Create(a_service("s2", name="web")), Delete("service", "web")],
        [Create(a_service("s2", name="web")), Update(a_service("web", name="old"))],
    ],
)
def test_checks_look_at_what_was_before_the_entry_and_names_at_what_is_after_it(changes: list[Change]) -> None:
    seen = Snapshot.of(a_node("n1"), a_service("web"))
    after = seen.with_changes(changes, version=5)
    assert after.service_by_name("web") is not None


@pytest.mark.parametrize(
    "changes",
    [
        [Update(a_node("n1")), Update(a_node("n1"))],
        [Update(a_node("n1")), Delete("node", "n1")],
        [Create(a_node(""))],
    ],
)
def test_changes_that_contradict_each_other_are_a_fault(changes: list[Change]) -> None:
    with pytest.raises(InvalidChanges):
        Snapshot.of(a_node("n1")).with_changes(changes, version=5)


def test_two_new_services_cannot_share_a_name() -> None:
    with pytest.raises(Conflict, match="is taken by service"):
        Snapshot().with_changes([Create(a_service("s1", name="a")), Create(a_service("s2", name="A"))], version=1)


def test_two_services_may_swap_names() -> None:
    seen = Snapshot.of(a_service("s1", name="a"), a_service("s2", name="b"))
    seen = seen.with_changes([Update(a_service("s1", name="b")), Update(a_service("s2", name="a"))], version=2)
    assert (seen.service_by_name("a"), seen.service_by_name("b")) == (seen.service("s2"), seen.service("s1"))


def test_events_tell_what_happened_in_order() -> None:
    seen = Snapshot.of(a_node("n1"), a_task("t1"))
    _, events = seen.step(
        [Create(a_task("t2")), Update(a_node("n1", cpus=8)), Expect("task", "t1", 1), Delete("task", "t1")], version=3
    )
    assert [(e.action, e.kind, e.object.id) for e in events] == [
        ("create", "task", "t2"),
        ("update", "node", "n1"),
        ("delete", "task", "t1"),
    ]
    assert events[1].old == a_node("n1")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_indexes_always_agree_with_the_objects(data: st.DataObject) -> None:
    """Any run of changes leaves the same snapshot as building it from the objects that are left."""
    seen = Snapshot()
    for version in range(1, 12):
        changes: list[Change] = []
        for n in data.draw(st.sets(st.integers(0, 5), max_size=3)):
            task = seen.task(f"t{n}")
            node, service = data.draw(st.sampled_from(["", "n1", "n2"])), data.draw(st.sampled_from(["s1", "s2"]))
            wanted = a_task(f"t{n}", node=node, service=service, state=TaskState.NEW)
            if task is None:
                changes.append(Create(wanted))
            elif data.draw(st.booleans()):
                changes.append(Delete("task", task.id, task.version))
            else:
                changes.append(Update(replace(wanted, version=task.version)))
        for n in data.draw(st.sets(st.integers(0, 3), max_size=2)):
            held = seen.service(f"s{n}")
            if held is None:
                changes.append(Create(a_service(f"s{n}", name=data.draw(st.sampled_from("abc")))))
            else:
                changes.append(Delete("service", held.id))
        try:
            seen = seen.with_changes(changes, version=version)
        except Conflict:
            continue
    again = Snapshot.of(*seen.tasks(), *seen.services(), version=seen.version)
    assert list(again.tasks()) == list(seen.tasks())
    for service in ("s1", "s2"):
        assert again.tasks_of_service(service) == seen.tasks_of_service(service)
        assert all(isinstance(t, Task) and t.service_id == service for t in seen.tasks_of_service(service))
    for node in ("n1", "n2"):
        assert again.tasks_of_node(node) == seen.tasks_of_node(node)
    for name in "abc":
        found = seen.service_by_name(name)
        assert again.service_by_name(name) == found
        assert isinstance(found, Service | None)
    assert seen.count("task") == len(list(seen.tasks()))


STATES = (TaskState.PENDING, TaskState.STARTING, TaskState.RUNNING, TaskState.FAILED)
WISHES = (TaskState.READY, TaskState.RUNNING, TaskState.COMPLETE, TaskState.SHUTDOWN)


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(("t1", "t2", "t3")), st.sampled_from((*STATES, None)), st.sampled_from(WISHES)),
        max_size=12,
    )
)
def test_the_running_tasks_of_a_service_are_counted_as_they_come_and_go(
    steps: list[tuple[str, TaskState | None, TaskState]],
) -> None:
    seen = Snapshot.of()
    for version, (id, state, wish) in enumerate(steps, start=1):
        old = seen.task(id)
        change: Change
        if state is None:
            change = Delete("task", id)
        else:
            new = replace(a_task(id, state=state, version=old.version if old else 0), desired_state=wish)
            change = Update(new) if old else Create(new)
        seen = seen.with_changes([change], version=version)
        running = [
            t for t in seen.tasks() if t.state is TaskState.RUNNING and t.is_wanted and t.desired_state > WISHES[0]
        ]
        assert seen.running_of_service("web") == len(running)
    assert seen.running_of_service("other") == 0
