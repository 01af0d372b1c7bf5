"""Whatever waits and whatever is there: no task is ever put where a filter refuses it, judged by a naive oracle."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from lib.builders import GIB, a_node, a_port, a_revision, a_service, a_task
from msgspec.structs import replace

from pyswarm.manager.orchestrator.placement import matches
from pyswarm.manager.scheduler.schedule import schedule
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.proto.codec.constraint import parse_constraint
from pyswarm.proto.model.objects import Node, Object, Revision, Service, Task
from pyswarm.proto.model.states import Availability, NodeState, PlacementStrategy, TaskState

NAMES = ("a", "b", "c", "d", "e")

services_drawn = st.fixed_dictionaries(
    {},
    optional={
        "constraints": st.sampled_from([(), ("node.labels.zone==a",), ("node.labels.zone!=a",)]),
        "max_replicas": st.integers(0, 2),
        "reserve_memory_bytes": st.sampled_from([0, GIB, 3 * GIB]),
        "reserve_cpus": st.sampled_from([0, 1.0]),
        "reserve_pids": st.sampled_from([0, 400]),
        "reserve_generic": st.sampled_from([{}, {"gpu": 1}, {"gpu": 2, "licence": 1}]),
        "affinities": st.sampled_from(
            [(), ("service!=a",), ("service==b",), ("service!=c@node.labels.zone",), ("service==a@node.labels.zone",)]
        ),
        "ports": st.sampled_from([(), (a_port(80),)]),
        "priority": st.integers(-1, 1),
    },
)
kinds = st.sampled_from(["spread", "binpack", "preference", "global"])
nodes_drawn = st.fixed_dictionaries(
    {
        "labels": st.sampled_from([{}, {"zone": "a"}, {"zone": "b"}]),
        "state": st.sampled_from([NodeState.READY, NodeState.READY, NodeState.DOWN]),
        "availability": st.sampled_from([Availability.ACTIVE, Availability.ACTIVE, Availability.PAUSE]),
        "pids": st.sampled_from([0, 1000]),
        "generic": st.sampled_from([(), ("gpu=g1", "gpu=g2", "licence=2")]),
    }
)


def made(name: str, of_spec: dict[str, object], kind: str) -> Service:
    if kind == "binpack":
        of_spec = {**of_spec, "strategy": PlacementStrategy.BINPACK}
    if kind == "preference":
        of_spec = {**of_spec, "preferences": ("node.labels.zone",)}
    return a_service(name, is_global=kind == "global", **of_spec)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(services_drawn, kinds, st.integers(0, 4)), min_size=1, max_size=5),
    st.lists(nodes_drawn, max_size=4),
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), max_size=4),
)
def test_no_task_is_put_where_a_filter_refuses_it(drawn, node_facts, running):
    services = [made(name, spec, kind) for name, (spec, kind, _) in zip(NAMES, drawn, strict=False)]
    nodes = [a_node(f"n{n}", **facts) for n, facts in enumerate(node_facts)]
    objects: list[Object] = [*services, *map(a_revision, services), *nodes]
    for number, (service, node) in enumerate(running):
        if service < len(services) and node < len(nodes):
            objects.append(a_task(f"r{number}", service=services[service], slot=90 + number, node=f"n{node}"))
    for service, (_, kind, count) in zip(services, drawn, strict=True):
        for slot in range(1, count + 1):
            bound = f"n{slot - 1}" if kind == "global" and slot <= len(nodes) else ""
            if kind == "global" and not bound:
                continue
            task = a_task(f"{service.id}{slot}", service=service, slot=slot, state=TaskState.PENDING)
            objects.append(replace(task, node_id=bound))
    seen = Snapshot.of(*objects, version=1)
    for _ in range(len(services) + 2):
        plan = schedule(seen, seen.tasks(), now=1.0)
        if not plan.changes:
            return
        before, seen = seen, seen.with_changes(plan.changes, version=seen.version + 1)
        fresh = [t for t in seen.tasks() if t.state is TaskState.ASSIGNED and before.task(t.id).state < t.state]  # type: ignore[union-attr]
        for task in fresh:
            node = seen.node(task.node_id)
            assert node is not None
            _check(seen, task, node, fresh)
    # A service may make room for one that wants to be near to it, and an explanation change: no more often than that.
    raise AssertionError("the scheduler does not come to rest")


def _holding(seen: Snapshot, node: Node) -> list[tuple[Task, Revision]]:
    tasks = [t for t in seen.tasks_of_node(node.id) if TaskState.ASSIGNED <= t.state <= TaskState.RUNNING]
    return [(t, r) for t in tasks if (r := seen.revision_of(t)) is not None]


def _check(seen: Snapshot, task: Task, node: Node, fresh: list[Task]) -> None:
    revision = seen.revision_of(task)
    assert revision is not None
    placement, wanted = revision.task_template.placement, revision.task_template.resources.reservations
    assert node.status.state is NodeState.READY
    assert node.spec.availability is Availability.ACTIVE
    assert all(matches(node, parse_constraint(text)) for text in placement.constraints)
    there = _holding(seen, node)
    if placement.max_replicas:
        assert sum(r.service_id == revision.service_id for _, r in there) <= placement.max_replicas
    has = node.description.resources
    reserved = [r.task_template.resources.reservations for _, r in there]
    if wanted.memory_bytes:
        assert sum(r.memory_bytes for r in reserved) <= has.memory_bytes
    if wanted.nano_cpus:
        assert sum(r.nano_cpus for r in reserved) <= has.nano_cpus
    if wanted.pids and has.pids:
        assert sum(r.pids for r in reserved) <= has.pids
    if wanted.generic:
        pieces = Counter(piece for t, _ in there for piece in t.assigned_generic if piece.name)
        assert set(pieces) <= set(has.generic)
        assert all(count == 1 for count in pieces.values())
        counts = Counter[str]()
        for t, _ in there:
            counts.update({p.kind: p.count for p in t.assigned_generic if not p.name})
        assert all(counts[p.kind] <= p.count for p in has.generic if not p.name)
        given = Counter[str]()
        for piece in task.assigned_generic:
            given[piece.kind] += piece.count or 1
        assert given == {need.kind: need.count for need in wanted.generic}
    if revision.ports:
        assert sum(bool(r.ports) for _, r in there) == 1
    for _, other in there:
        _check_apart(revision, other, is_same=other is revision)
    for text in placement.affinities:
        if text == "service!=c@node.labels.zone" and node.spec.labels.get("zone"):
            zone = [n for n in seen.nodes() if n.spec.labels.get("zone") == node.spec.labels["zone"]]
            mates = [t for n in zone for t, r in _holding(seen, n) if r.service_name == "c" and t.id != task.id]
            # One that was there before ours, or came after it, must have kept away as well.
            assert not [m for m in mates if revision.service_name != "c" or m in fresh]


def _check_apart(one: Revision, other: Revision, *, is_same: bool) -> None:
    if not is_same and "service!=a" in one.task_template.placement.affinities:
        assert other.service_name != "a"
    if not is_same and "service!=a" in other.task_template.placement.affinities:
        assert one.service_name != "a"
