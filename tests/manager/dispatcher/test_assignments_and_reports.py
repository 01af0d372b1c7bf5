"""What a node is told, and what it may say."""

import pytest
from lib.builders import a_revision, a_service, a_task
from msgspec.structs import replace

from pyswarm.manager.dispatcher.assignments import Assignments, assignments_of, difference, is_told, replaces_in_place
from pyswarm.manager.dispatcher.reports import Report, fold
from pyswarm.manager.store.changes import Update
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.manager.store.transition import Event
from pyswarm.proto.model.objects import Config, Secret, Service, TaskStatus
from pyswarm.proto.model.spec import ConfigReference, ConfigSpec, ContainerSpec, FileTarget, SecretReference, SecretSpec
from pyswarm.proto.model.states import TaskState

WEB = a_service("web")


def seen(*tasks: object) -> Snapshot:
    return Snapshot.of(WEB, a_revision(WEB), *tasks, version=1)  # type: ignore[arg-type]


def test_a_node_is_told_its_own_tasks_from_the_moment_they_are_assigned():
    tasks = [
        a_task("mine", service=WEB, node="n1", state=TaskState.ASSIGNED),
        a_task("early", service=WEB, slot=2, state=TaskState.PENDING),
        a_task("theirs", service=WEB, slot=3, node="n2"),
    ]
    assert set(assignments_of(seen(*tasks), "n1").tasks) == {"mine"}


def test_only_what_managers_decide_makes_a_difference():
    old = assignments_of(seen(a_task("t", service=WEB, node="n1", state=TaskState.ASSIGNED)), "n1")
    reported = assignments_of(seen(a_task("t", service=WEB, node="n1", state=TaskState.RUNNING)), "n1")
    stopped = assignments_of(seen(a_task("t", service=WEB, node="n1", desired=TaskState.SHUTDOWN)), "n1")
    assert not difference(old, reported).update
    assert [a.task.id for a in difference(old, stopped).update] == ["t"]
    assert difference(old, Assignments()).remove == ("t",)


def with_files(id: str = "web") -> Service:
    container = ContainerSpec(
        image="r/web:1",
        secrets=(SecretReference("s1", "key"),),
        configs=(ConfigReference("c1", "site"),),
    )
    return a_service(id, container=container)


def files_seen(*tasks: object, service: Service) -> Snapshot:
    payloads = [
        Secret(id="s1", version=1, spec=SecretSpec("key", {}, b"K")),
        Secret(id="s2", version=1, spec=SecretSpec("other", {}, b"O")),
        Config(id="c1", version=1, spec=ConfigSpec("site", {}, b"S")),
    ]
    return Snapshot.of(service, a_revision(service), *payloads, *tasks, version=1)  # type: ignore[arg-type]


def test_a_node_gets_the_secrets_and_configs_its_own_tasks_need_and_no_others():
    web = with_files()
    told = assignments_of(files_seen(a_task("t", service=web, node="n1"), service=web), "n1")
    assert sorted(told.payloads) == ["c1", "s1"]
    elsewhere = assignments_of(files_seen(a_task("t", service=web, node="n2"), service=web), "n1")
    assert elsewhere.payloads == {}


def test_what_a_node_no_longer_needs_is_taken_back():
    web = with_files()
    old = assignments_of(files_seen(a_task("t", service=web, node="n1"), service=web), "n1")
    dead = a_task("t", service=web, node="n1", state=TaskState.FAILED, desired=TaskState.SHUTDOWN)
    new = assignments_of(files_seen(dead, service=web), "n1")
    changed = difference(old, new)
    assert (changed.payloads, changed.remove_payloads) == ((), ("c1", "s1"))
    assert [p.id for p in difference(new, old).payloads] == ["c1", "s1"]


def one(plan):
    (change,) = plan.changes
    assert isinstance(change, Update)
    return change.object


def test_the_furthest_of_several_reports_counts_and_is_stamped_by_the_manager():
    task = a_task("t", service=WEB, node="n1", state=TaskState.ASSIGNED)
    reports = [
        Report("n1", "t", TaskStatus(state=state, timestamp=5.0))
        for state in (TaskState.ACCEPTED, TaskState.RUNNING, TaskState.PREPARING)
    ]
    after = one(fold(seen(task), reports, now=99.0))
    assert after.status.state is TaskState.RUNNING
    assert after.status.timestamp == 99.0


@pytest.mark.parametrize(
    ("report", "why"),
    [
        (Report("n2", "t", TaskStatus(state=TaskState.RUNNING)), "another node's"),
        (Report("n1", "t", TaskStatus(state=TaskState.ACCEPTED)), "a step back"),
        (Report("n1", "t", TaskStatus(state=TaskState.ORPHANED)), "not the agent's to say"),
        (Report("n1", "gone", TaskStatus(state=TaskState.RUNNING)), "of no task"),
        (Report("n1", "t", TaskStatus(state=TaskState.STARTING)), "nothing new"),
    ],
)
def test_reports_that_change_nothing(report, why):
    task = a_task("t", service=WEB, node="n1", state=TaskState.STARTING)
    task = replace(task, status=replace(task.status, err="", message=""))
    assert fold(seen(task), [report], now=1.0).changes == (), why


def test_what_has_ended_stays_as_it_ended():
    task = a_task("t", service=WEB, node="n1", state=TaskState.FAILED)
    late = [
        Report("n1", "t", TaskStatus(state=TaskState.SHUTDOWN)),
        Report("n1", "t", TaskStatus(state=TaskState.RUNNING)),
    ]
    assert fold(seen(task), late, now=1.0).changes == ()


@pytest.mark.parametrize(
    ("changes", "is_told_of"),
    [
        pytest.param({"state": TaskState.PREPARING}, False, id="how far a task has come is the node's own report"),
        pytest.param({"state": TaskState.RUNNING}, False, id="that it runs, too"),
        pytest.param({"state": TaskState.FAILED}, True, id="a dead task needs its secrets no longer"),
        pytest.param({"desired": TaskState.SHUTDOWN}, True, id="it shall stop"),
    ],
)
def test_a_node_s_stream_looks_when_something_was_decided(changes: dict[str, TaskState], is_told_of: bool):
    old = a_task("t1", state=TaskState.ASSIGNED, node="n1")
    new = a_task("t1", **({"state": TaskState.ASSIGNED} | changes), node="n1", version=2)  # type: ignore[arg-type]
    assert is_told(Event("update", "task", new, old)) is is_told_of


def test_a_stream_looks_when_a_task_comes_to_its_node_or_leaves_it():
    waiting = a_task("t1", state=TaskState.PENDING, node="")
    placed = a_task("t1", state=TaskState.ASSIGNED, node="n1", version=2)
    assert is_told(Event("update", "task", placed, waiting))
    assert is_told(Event("create", "task", placed, None))
    assert is_told(Event("delete", "task", placed, placed))


def test_a_node_is_told_when_a_file_is_replaced_in_place_and_not_of_other_changes_of_a_service():
    file = FileTarget("key", in_place=True)
    old = a_service("web", container=ContainerSpec("web:1", secrets=(SecretReference("s1", "key", file),)))
    container = ContainerSpec("web:1", secrets=(SecretReference("s2", "key.2", file),))
    new = a_service("web", container=container, spec_version=2, version=2)
    scaled = replace(old, spec=replace(old.spec, labels={"a": "b"}), version=2)
    assert replaces_in_place(Event("update", "service", new, old))
    assert not replaces_in_place(Event("update", "service", scaled, old))
    task = a_task("t", service=old, node="n1")
    first, second = (Secret(id=id, version=1, spec=SecretSpec(id, {}, b"K")) for id in ("s1", "s2"))
    told = assignments_of(Snapshot.of(old, a_revision(old), task, first, second, version=1), "n1")
    now = assignments_of(Snapshot.of(new, a_revision(old), a_revision(new), task, first, second, version=2), "n1")
    changed = difference(told, now)
    (assigned,) = changed.update
    assert (assigned.task, assigned.in_place) == (task, ("s2",))
    assert ([p.id for p in changed.payloads], changed.remove_payloads) == (["s2"], ("s1",))
