"""Affinities, bin packing, priorities, processes and generic resources: who goes where, and in what words not."""

from collections import Counter
from collections.abc import Mapping

import pytest
from lib.builders import GIB, a_node, a_revision, a_service, a_task
from msgspec.structs import replace

from pyswarm.manager.scheduler.schedule import schedule
from pyswarm.manager.store.changes import Update
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.proto.codec.generic_resources import parse_inventory, parse_reservation
from pyswarm.proto.errors import InvalidArgument
from pyswarm.proto.model.objects import Node, Object, Service, Task
from pyswarm.proto.model.resources import GenericResource
from pyswarm.proto.model.states import PlacementStrategy, TaskState


def waiting(service: Service, count: int) -> list[Task]:
    return [
        a_task(f"{service.id}-{n:02}", service=service, slot=n, state=TaskState.PENDING) for n in range(1, count + 1)
    ]


def placed(*services: tuple[Service, int], nodes: list[Node], there: tuple[Task, ...] = ()) -> Mapping[str, Task]:
    """Schedule so many tasks of each service, and return them by id."""
    objects: list[Object] = [*nodes, *there]
    for service, count in services:
        objects += [service, a_revision(service), *waiting(service, count)]
    seen = Snapshot.of(*objects, version=1)
    plan = schedule(seen, seen.tasks(), now=0.0)
    return {c.object.id: c.object for c in plan.changes if isinstance(c, Update) and isinstance(c.object, Task)}


def by_node(tasks: Mapping[str, Task]) -> Counter[str]:
    return Counter(task.node_id for task in tasks.values())


ZONES = [a_node("n1", labels={"zone": "a"}), a_node("n2", labels={"zone": "a"}), a_node("n3", labels={"zone": "b"})]

# -- affinities


def test_a_service_stays_away_from_another():
    web, db = a_service("web", affinities=("service!=db",)), a_service("db")
    there = a_task("d", service=db, node="n1")
    assert by_node(placed((web, 3), (db, 0), nodes=[a_node("n1"), a_node("n2")], there=(there,))) == {"n2": 3}


def test_what_keeps_others_away_is_heeded_by_those_that_come_later():
    web, db = a_service("web"), a_service("db", affinities=("service!=web",))
    there = a_task("d", service=db, node="n1")
    assert by_node(placed((web, 3), (db, 0), nodes=[a_node("n1"), a_node("n2")], there=(there,))) == {"n2": 3}


def test_a_service_that_stays_away_from_itself_has_one_task_a_node_and_says_why_the_rest_waits():
    web = a_service("web", affinities=("service!=web",))
    tasks = placed((web, 4), nodes=list(ZONES))
    assert by_node(tasks) == {"n1": 1, "n2": 1, "n3": 1, "": 1}
    assert tasks["web-04"].status.err == "no suitable node (service affinity not satisfied on 3 nodes)"


def test_keeping_apart_may_be_meant_of_zones():
    web = a_service("web", affinities=("service!=web@node.labels.zone",))
    assert sorted(by_node(placed((web, 3), nodes=list(ZONES))).values()) == [1, 1, 1]
    assert sum(not t.node_id for t in placed((web, 3), nodes=list(ZONES)).values()) == 1


def test_a_service_goes_where_the_other_is():
    web, cache = a_service("web", affinities=("service==cache",)), a_service("cache")
    there = a_task("c", service=cache, node="n2")
    assert by_node(placed((web, 3), (cache, 0), nodes=list(ZONES), there=(there,))) == {"n2": 3}
    zonal = a_service("web", affinities=("service==cache@node.labels.zone",))
    assert by_node(placed((zonal, 4), (cache, 0), nodes=list(ZONES), there=(there,))).keys() == {"n1", "n2"}


def test_a_service_waits_for_the_one_it_wants_to_be_near_to_but_not_for_itself():
    lonely = placed((a_service("web", affinities=("service==cache",)), 1), nodes=list(ZONES))
    assert "affinity" in lonely["web-01"].status.err
    together = by_node(placed((a_service("web", affinities=("service==web",)), 5), nodes=list(ZONES)))
    assert list(together.values()) == [5]


def test_services_are_also_meant_by_their_labels():
    web = a_service("web", affinities=("service.labels.tier!=db",))
    db = a_service("pg", labels={"tier": "db"})
    there = a_task("d", service=db, node="n1")
    assert "n1" not in by_node(placed((web, 4), (db, 0), nodes=list(ZONES), there=(there,)))


def test_affinity_and_spread_preferences_go_together():
    web = a_service("web", affinities=("service!=db",), preferences=("node.labels.zone",))
    db = a_service("db")
    there = a_task("d", service=db, node="n1")
    assert by_node(placed((web, 4), (db, 0), nodes=list(ZONES), there=(there,))) == {"n2": 2, "n3": 2}


# -- bin packing


def test_bin_packing_fills_one_node_before_it_begins_the_next():
    web = a_service("web", strategy=PlacementStrategy.BINPACK, reserve_memory_bytes=3 * GIB)
    nodes = [a_node(f"n{n}", memory_bytes=8 * GIB) for n in range(1, 5)]
    assert sorted(by_node(placed((web, 5), nodes=nodes)).values()) == [1, 2, 2]


def test_bin_packing_begins_with_the_fullest_node_that_has_room():
    big = a_service("big", reserve_memory_bytes=4 * GIB)
    web = a_service("web", strategy=PlacementStrategy.BINPACK, reserve_memory_bytes=2 * GIB)
    there = a_task("b", service=big, node="n2")
    tasks = placed((web, 3), (big, 0), nodes=[a_node("n1"), a_node("n2"), a_node("n3")], there=(there,))
    assert by_node(tasks) == {"n2": 2, "n1": 1}


def test_bin_packing_heeds_what_other_services_were_given_in_the_same_round():
    a = a_service("a", strategy=PlacementStrategy.BINPACK, reserve_memory_bytes=6 * GIB)
    b = a_service("b", strategy=PlacementStrategy.BINPACK, reserve_memory_bytes=2 * GIB)
    tasks = placed((a, 2), (b, 3), nodes=[a_node(f"n{n}") for n in range(1, 5)])
    assert by_node(tasks) == {"n1": 2, "n2": 2, "n3": 1}


def test_bin_packing_puts_no_node_into_the_pool_of_a_condition_that_it_does_not_meet():
    packed = {"strategy": PlacementStrategy.BINPACK, "reserve_memory_bytes": GIB}
    first = a_service("a", constraints=("node.labels.disk==ssd",), **packed)
    between = a_service("b", constraints=("node.labels.disk!=ssd",), reserve_cpus=3, **packed)
    last = a_service("c", constraints=("node.labels.disk==ssd",), **packed)
    tasks = placed((first, 1), (between, 1), (last, 3), nodes=[a_node("n1"), a_node("n2", labels={"disk": "ssd"})])
    assert tasks["b-01"].node_id == "n1"
    assert {tasks[f"c-0{n}"].node_id for n in (1, 2, 3)} == {"n2"}


# -- priority


def test_the_highest_priority_gets_the_last_room():
    low = a_service("a-low", reserve_memory_bytes=6 * GIB)
    high = a_service("z-high", reserve_memory_bytes=6 * GIB, priority=10)
    tasks = placed((low, 1), (high, 1), nodes=[a_node("n1")])
    assert tasks["z-high-01"].node_id == "n1"
    assert tasks["a-low-01"].status.err == "no suitable node (insufficient resources on 1 node)"


# -- processes and generic resources


def test_processes_are_reserved_where_a_node_tells_how_many_it_can_hold():
    web = a_service("web", reserve_pids=600)
    assert by_node(placed((web, 3), nodes=[a_node("n1", pids=1000)])) == {"n1": 1, "": 2}
    assert by_node(placed((web, 3), nodes=[a_node("n1")])) == {"n1": 3}


def test_named_pieces_go_to_one_task_each_and_the_task_is_told_which():
    train = a_service("train", reserve_generic={"gpu": 2})
    nodes = [a_node("n1", generic=("gpu=g1", "gpu=g2", "gpu=g3", "gpu=g4")), a_node("n2")]
    tasks = placed((train, 3), nodes=nodes)
    given = sorted(piece.name for task in tasks.values() for piece in task.assigned_generic)
    assert given == ["g1", "g2", "g3", "g4"]
    assert by_node(tasks) == {"n1": 2, "": 1}


def test_pieces_that_a_task_holds_are_not_given_twice():
    train = a_service("train", reserve_generic={"gpu": 1})
    there = replace(a_task("x", service=train, node="n1"), assigned_generic=(GenericResource("gpu", name="g1"),))
    tasks = placed((train, 2), nodes=[a_node("n1", generic=("gpu=g1", "gpu=g2"))], there=(there,))
    assert [task.assigned_generic for task in tasks.values()] == [(GenericResource("gpu", name="g2"),), ()]


def test_counted_pieces_are_taken_by_number():
    train = a_service("train", reserve_generic={"licence": 2})
    tasks = placed((train, 2), nodes=[a_node("n1", generic=("licence=3",))])
    assert tasks["train-01"].assigned_generic == (GenericResource("licence", 2),)
    assert not tasks["train-02"].node_id


@pytest.mark.parametrize("text", ["gpu", "gpu=", "=2", "gpu=0", "gpu=a", "g pu=1", "gpu=99999999999"])
def test_a_reservation_that_is_none_is_refused(text: str):
    with pytest.raises(InvalidArgument):
        parse_reservation(text)


@pytest.mark.parametrize("texts", [["gpu=a", "gpu=2"], ["gpu=a", "gpu=a"], ["gpu"]])
def test_an_inventory_that_cannot_be_kept_is_refused(texts: list[str]):
    with pytest.raises(InvalidArgument):
        parse_inventory(texts)
