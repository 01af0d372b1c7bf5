"""Mistakes of Swarm's scheduler that ours must not make: what each of them would break."""

from collections import Counter

from lib.builders import GIB, a_node, a_revision, a_service, a_task
from msgspec.structs import replace

from pyswarm.manager.orchestrator.placement import satisfies
from pyswarm.manager.scheduler.nodes import NodeTable
from pyswarm.manager.scheduler.schedule import schedule
from pyswarm.manager.store.changes import Update
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.proto.model.objects import Service, Task
from pyswarm.proto.model.states import TaskState


def waiting(service: Service, count: int, prefix: str = "") -> list[Task]:
    name = prefix or service.id
    return [a_task(f"{name}{n}", service=service, slot=n, state=TaskState.PENDING) for n in range(1, count + 1)]


def nodes_of(seen: Snapshot, table: NodeTable | None = None) -> Counter[str]:
    plan = schedule(seen, seen.tasks(), now=1000.0, table=table)
    return Counter(c.object.node_id for c in plan.changes if isinstance(c, Update) and isinstance(c.object, Task))


def test_what_was_decided_and_not_yet_written_counts_and_is_given_back_when_it_was_not():  # swarm mistake 39
    fat = a_service("fat", reserve_memory_bytes=6 * GIB)
    first, second = waiting(fat, 2)
    seen = Snapshot.of(fat, a_revision(fat), a_node("n1"), first, second, version=1)
    table = NodeTable(seen)
    assert schedule(seen, [first], now=1.0, table=table).changes[0].object.node_id == "n1"  # type: ignore[union-attr]
    refused = schedule(seen, [second], now=1.0, table=table).changes[0].object  # type: ignore[union-attr]
    assert refused.status.err == "no suitable node (insufficient resources on 1 node)"
    table.take_back([first])
    assert schedule(seen, [second], now=1.0, table=table).changes[0].object.node_id == "n1"  # type: ignore[union-attr]


def test_a_new_version_is_not_punished_for_the_failures_of_the_old_one():  # swarm mistake 40
    old = a_service("web")
    new = replace(old, spec_version=2)
    failed = [
        a_task(f"f{n}", service=old, slot=9, node="n1", state=TaskState.FAILED, desired=TaskState.SHUTDOWN, since=990.0)
        for n in range(5)
    ]
    both = [old, a_revision(old), a_revision(new), a_node("n1"), a_node("n2"), *failed]
    assert nodes_of(Snapshot.of(*both, *waiting(old, 2), version=1)) == {"n2": 2}
    assert nodes_of(Snapshot.of(*both, *waiting(new, 2, "new"), version=1)) == {"n1": 1, "n2": 1}


def test_an_empty_node_is_not_filled_at_the_cost_of_balance_within_a_service():  # swarm mistake 41
    web, other = a_service("web"), a_service("other")
    # n1 is full of other tasks, n2 has one of the service, n3 has just come back and is empty.
    there = [a_task(f"o{n}", service=other, slot=n, node="n1") for n in range(1, 9)]
    there += [a_task("w", service=web, slot=9, node="n2")]
    nodes = [a_node("n1"), a_node("n2"), a_node("n3")]
    seen = Snapshot.of(web, other, a_revision(web), a_revision(other), *nodes, *there, *waiting(web, 2), version=1)
    # Each node gets its share of the service first; only then does it matter how full they are.
    assert nodes_of(seen) == {"n1": 1, "n3": 1}


def test_a_node_without_a_label_is_one_with_another_value():  # swarm mistake 42
    bare, ssd = a_node("bare"), a_node("ssd", labels={"disk": "ssd"})
    assert satisfies(bare, ["node.labels.disk!=ssd"])
    assert not satisfies(bare, ["node.labels.disk==ssd"])
    assert not satisfies(ssd, ["node.labels.disk!=ssd"])
    assert satisfies(bare, ["engine.labels.storage!=fast"])
