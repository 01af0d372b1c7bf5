"""Choosing nodes: what refuses a node, what ranks it, and what a task is told that fits nowhere."""

from collections import Counter

import pytest
from lib.builders import GIB, a_node, a_port, a_revision, a_service, a_task
from msgspec.structs import replace

from pyswarm.manager.orchestrator.placement import matches
from pyswarm.manager.scheduler.schedule import schedule
from pyswarm.manager.store.changes import Update
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.proto.codec.constraint import parse_constraint
from pyswarm.proto.model.objects import Service, Task
from pyswarm.proto.model.resources import Resources
from pyswarm.proto.model.states import Availability, NodeState, PublishMode, TaskState

NOW = 1000.0


def pending(service: Service, slot: int, **more: object) -> Task:
    return a_task(f"{service.id}-{slot}", service=service, slot=slot, state=TaskState.PENDING, **more)  # type: ignore[arg-type]


def place(*objects: object) -> dict[str, Task]:
    """Schedule every pending task and return the tasks by id, as they are then."""
    seen = Snapshot.of(*objects, version=1)  # type: ignore[arg-type]
    plan = schedule(seen, seen.tasks(), now=NOW)
    after = {t.id: t for t in seen.tasks()}
    for change in plan.changes:
        assert isinstance(change, Update)
        assert isinstance(change.object, Task)
        after[change.object.id] = change.object
    return after


def test_tasks_of_one_service_go_to_the_nodes_with_fewest_of_them_first():
    web, db = a_service("web"), a_service("db")
    busy = a_task("other", service=db, node="n1")
    tasks = [pending(web, slot) for slot in range(1, 4)]
    after = place(web, db, a_revision(web), a_revision(db), busy, *tasks, a_node("n1"), a_node("n2"))
    assert [after[t.id].node_id for t in tasks] == ["n2", "n1", "n2"]
    assert all(after[t.id].state is TaskState.ASSIGNED for t in tasks)


@pytest.mark.parametrize("placement", [{}, {"preferences": ("node.labels.zone",)}], ids=["nodes", "labels"])
def test_a_task_that_was_told_to_stop_does_not_keep_others_off_its_node(placement: dict[str, tuple[str, ...]]):
    """Else a rolling update leaves the replicas on ever fewer nodes: each new one shuns the place of the old."""
    web, db = a_service("web", **placement), a_service("db")
    stopping = [a_task(f"old{n}", service=web, node="n1", desired=TaskState.SHUTDOWN) for n in (1, 2)]
    busy = [a_task("kept", service=web, node="n2"), a_task("other", service=db, node="n2")]
    nodes = [a_node(f"n{n}", labels={"zone": f"z{n}"}) for n in (1, 2)]
    after = place(web, db, a_revision(web), a_revision(db), *stopping, *busy, *nodes, pending(web, 1), pending(web, 2))
    assert [after[f"web-{slot}"].node_id for slot in (1, 2)] == ["n1", "n1"]


def test_reservations_are_booked_within_one_pass():
    web = a_service("web", reserve_memory_bytes=3 * GIB)
    nodes = [a_node(f"n{n}") for n in (1, 2)]
    capacity = nodes[0].description.resources.memory_bytes // (3 * GIB)
    tasks = [pending(web, slot) for slot in range(1, 2 * capacity + 2)]
    after = place(web, a_revision(web), *nodes, *tasks)
    placed = Counter(t.node_id for t in after.values() if t.state is TaskState.ASSIGNED)
    assert placed == {"n1": capacity, "n2": capacity}
    (left,) = [t for t in after.values() if t.state is TaskState.PENDING]
    assert left.status.err == "no suitable node (insufficient resources on 2 nodes)"


def test_what_a_stopping_task_holds_is_not_free_yet():
    web = a_service("web", reserve_memory_bytes=3 * GIB)
    node = a_node("n1")
    small = replace(node.description, resources=Resources(nano_cpus=10**9, memory_bytes=4 * GIB))
    stopping = a_task("old", service=web, node="n1", desired=TaskState.SHUTDOWN)
    after = place(web, a_revision(web), replace(node, description=small), stopping, pending(web, 2))
    assert after["web-2"].state is TaskState.PENDING


def test_every_refusal_is_counted_in_the_explanation():
    web = a_service("web", constraints=("node.labels.zone==a",))
    down = replace(a_node("n2"), status=replace(a_node("n2").status, state=NodeState.DOWN))
    paused = a_node("n3")
    paused = replace(paused, spec=replace(paused.spec, availability=Availability.PAUSE))
    after = place(web, a_revision(web), a_node("n1"), down, paused, pending(web, 1))
    assert after["web-1"].status.err == (
        "no suitable node (not available for new tasks on 2 nodes; scheduling constraints not satisfied on 1 node)"
    )


def test_a_host_port_is_taken_by_one_task_a_node():
    web = a_service("web", ports=(a_port(8080, mode=PublishMode.HOST),))
    tasks = [pending(web, slot) for slot in (1, 2, 3)]
    after = place(web, a_revision(web), a_node("n1"), a_node("n2"), *tasks)
    assert Counter(t.node_id for t in after.values()) == {"n1": 1, "n2": 1, "": 1}
    assert any("host-mode port" in t.status.err for t in after.values())


def test_an_ingress_port_may_be_shared_by_tasks_of_a_node():
    web = a_service("web", ports=(a_port(8080, mode=PublishMode.INGRESS),))
    after = place(web, a_revision(web), a_node("n1"), pending(web, 1), pending(web, 2))
    assert {t.node_id for t in after.values()} == {"n1"}


def test_no_more_than_the_allowed_replicas_a_node():
    web = a_service("web", max_replicas=1)
    after = place(web, a_revision(web), a_node("n1"), pending(web, 1), pending(web, 2))
    assert Counter(t.state for t in after.values()) == {TaskState.ASSIGNED: 1, TaskState.PENDING: 1}


def test_replicas_spread_over_the_values_of_a_label_before_nodes():
    web = a_service("web")
    template = web.spec.task_template
    placement = replace(template.placement, preferences=("node.labels.zone",))
    web = replace(web, spec=replace(web.spec, task_template=replace(template, placement=placement)))
    nodes = []
    for id, zone in (("n1", "a"), ("n2", "a"), ("n3", "a"), ("n4", "b")):
        node = a_node(id)
        nodes.append(replace(node, spec=replace(node.spec, labels={"zone": zone})))
    after = place(web, a_revision(web), *nodes, *(pending(web, slot) for slot in range(1, 5)))
    zones = Counter("b" if t.node_id == "n4" else "a" for t in after.values())
    assert zones == {"a": 2, "b": 2}


def test_a_node_where_this_version_keeps_failing_comes_last():
    web = a_service("web")
    failed = [
        a_task(
            f"f{n}", service=web, slot=9, node="n1", state=TaskState.FAILED, desired=TaskState.SHUTDOWN, since=NOW - 10
        )
        for n in range(5)
    ]
    after = place(web, a_revision(web), a_node("n1"), a_node("n2"), *failed, *(pending(web, s) for s in (1, 2)))
    assert [after[f"web-{s}"].node_id for s in (1, 2)] == ["n2", "n2"]


def test_a_task_that_is_bound_to_a_node_goes_there_or_waits():
    web = a_service("web", is_global=True)
    bound = replace(pending(web, 0), node_id="n2")
    assert place(web, a_revision(web), a_node("n1"), a_node("n2"), bound)[bound.id].node_id == "n2"
    paused = a_node("n2")
    paused = replace(paused, spec=replace(paused.spec, availability=Availability.PAUSE))
    left = place(web, a_revision(web), a_node("n1"), paused, bound)[bound.id]
    assert left.state is TaskState.PENDING
    assert "not available" in left.status.err


def test_the_same_plan_comes_out_of_the_same_snapshot():
    web = a_service("web")
    objects = [web, a_revision(web), *(a_node(f"n{n}") for n in range(9)), *(pending(web, s) for s in range(1, 30))]
    assert place(*objects) == place(*reversed(objects))


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("node.id==n1", True),
        ("node.hostname==N1", True),
        ("node.role==worker", True),
        ("node.role!=manager", True),
        ("node.labels.zone==A", True),
        ("node.labels.zone!=b", True),
        pytest.param("node.labels.disk!=ssd", True, id="a missing label is the empty string"),
        ("node.ip==10.0.0.0/24", True),
        ("node.ip==10.0.0.9", False),
        ("node.platform.arch==amd64", True),
        ("node.platform.os==windows", False),
    ],
)
def test_constraints(text, holds):
    node = a_node("n1")
    node = replace(
        node,
        spec=replace(node.spec, labels={"zone": "a"}),
        status=replace(node.status, addr="10.0.0.7"),
        description=replace(
            node.description,
            hostname="n1",
            platform=replace(node.description.platform, architecture="x86_64", os="linux"),
        ),
    )
    assert matches(node, parse_constraint(text)) is holds
