"""A decision that took its time: what others have changed meanwhile is left out of it, and nothing else."""

import pytest
from lib.builders import a_cluster, a_node, a_revision, a_service, a_task
from msgspec.structs import replace

from pyswarm.manager.orchestrator.late import still_valid
from pyswarm.manager.orchestrator.moves import desire
from pyswarm.manager.store.changes import Change, Create, Delete, Update
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.proto.model.objects import Task
from pyswarm.proto.model.spec import UpdateConfig
from pyswarm.proto.model.states import TaskState

WEB = a_service("web", replicas=3)
TASKS = {n: a_task(f"t{n}", service=WEB, slot=n, node="n1", state=TaskState.RUNNING) for n in (1, 2, 3)}
THEN = Snapshot.of(a_cluster(), a_node("n1"), WEB, a_revision(WEB), *TASKS.values())
STOPS = {n: Update(desire(task, TaskState.SHUTDOWN)) for n, task in TASKS.items()}
STARTS = {n: Create(a_task(f"new{n}", service=WEB, slot=n, version=0)) for n in (1, 2, 3)}
DECIDED = (*STOPS.values(), *STARTS.values())


def failed(task: Task) -> Update:
    return Update(replace(task, status=replace(task.status, state=TaskState.FAILED)))


def after(*changes: Change, version: int = 2, seen: Snapshot = THEN) -> Snapshot:
    return seen.with_changes(changes, version=version)


def test_all_of_it_holds_while_nothing_has_happened_to_the_service():
    assert still_valid(DECIDED, WEB.id, then=THEN, now=THEN) == DECIDED
    assert still_valid(DECIDED, WEB.id, then=THEN, now=after(Create(a_node("n2", version=0)))) == DECIDED


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(failed(TASKS[2]), id="its task has failed"),
        pytest.param(Delete("task", "t2", 1), id="its task was forgotten"),
        pytest.param(Create(a_task("other", service=WEB, slot=2, version=0)), id="it got another task"),
    ],
)
def test_a_slot_that_has_moved_is_left_out_whole(change: Change):
    assert still_valid(DECIDED, WEB.id, then=THEN, now=after(change)) == (STOPS[1], STOPS[3], STARTS[1], STARTS[3])


def test_of_a_service_with_canaries_nothing_holds_when_a_slot_has_moved():
    """A slot is taken because another lost its canary with its node: unless that is written too, it is one too many."""
    web = replace(WEB, spec=replace(WEB.spec, update_config=UpdateConfig(canary=("1",))))
    then = THEN.with_changes([Update(web)], version=2)
    untouched = after(Create(a_node("n2", version=0)), seen=then, version=3)
    assert still_valid(DECIDED, WEB.id, then=then, now=untouched) == DECIDED
    assert still_valid(DECIDED, WEB.id, then=then, now=after(failed(TASKS[2]), seen=then, version=3)) == ()
    assert still_valid(DECIDED[:1], WEB.id, then=then, now=after(failed(TASKS[2]), seen=then, version=3)) == DECIDED[:1]


def test_nothing_holds_when_the_service_has_changed_or_is_gone():
    scaled = Update(replace(WEB, spec=replace(WEB.spec, name="other")))
    assert still_valid(DECIDED, WEB.id, then=THEN, now=after(scaled)) == ()
    assert still_valid(DECIDED, WEB.id, then=THEN, now=after(Delete("service", WEB.id, 1))) == ()


def test_what_the_decision_itself_has_written_does_not_overtake_it():
    now = after(Update(WEB), STOPS[1], STOPS[2])
    assert still_valid(tuple(STARTS.values()), WEB.id, then=THEN, now=now, own={2}) == tuple(STARTS.values())
    (stopped,) = [task for task in now.tasks_of_service(WEB.id) if task.id == "t1"]
    now = after(failed(stopped), version=3, seen=now)
    assert still_valid(tuple(STARTS.values()), WEB.id, then=THEN, now=now, own={2}) == (STARTS[2], STARTS[3])


def test_what_is_left_of_a_removed_service_holds_task_by_task():
    then = after(Delete("service", WEB.id, 1))
    deletions = tuple(Delete("task", task.id, 1) for task in TASKS.values())
    now = after(failed(TASKS[3]), version=3, seen=then)
    assert still_valid(deletions, WEB.id, then=then, now=now) == deletions[:2]


def test_a_task_that_came_further_on_its_way_is_changed_as_it_is_now():
    new = a_task("new", service=WEB, slot=4, node="n1", state=TaskState.PREPARING)
    new = replace(new, desired_state=TaskState.READY)
    then = Snapshot.of(WEB, a_revision(WEB), new)
    start = Update(desire(new, TaskState.RUNNING))
    ready = replace(new, status=replace(new.status, state=TaskState.READY))
    now = after(Update(ready), seen=then)
    (made,) = still_valid((start,), WEB.id, then=then, now=now)
    assert made == Update(replace(ready, desired_state=TaskState.RUNNING, version=2))
    assert still_valid((start,), WEB.id, then=then, now=after(failed(new), seen=then)) == ()
    orphaned = Update(replace(new, status=replace(new.status, state=TaskState.ORPHANED)))
    assert still_valid((orphaned,), WEB.id, then=then, now=now) == ()
