"""Tasks are moved off drained nodes and to spread a service again: new ones first, within the budget, no more."""

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lib.builders import GIB, a_node, a_service_spec
from lib.world import World
from msgspec.structs import replace

from pyswarm.manager.orchestrator.overcommit import relieve
from pyswarm.manager.orchestrator.rebalance import SETTLED_SECONDS, rebalance
from pyswarm.manager.orchestrator.reconcile import reconcile
from pyswarm.manager.orchestrator.relocate import MARKED_SECONDS, budget, starts_first
from pyswarm.manager.store.changes import Change, Create, Update
from pyswarm.proto.codec.generic_resources import parse_inventory
from pyswarm.proto.model.spec import MoveConfig, ServiceSpec, UpdateConfig
from pyswarm.proto.model.states import Availability, TaskState, UpdateOrder, UpdateState

START_FIRST = MoveConfig(order=UpdateOrder.START_FIRST)
STOP_FIRST = MoveConfig(order=UpdateOrder.STOP_FIRST)


def settled(spec: ServiceSpec, nodes: int = 3) -> World:
    world = World(nodes=nodes)
    world.create(spec)
    world.settle()
    return world


def lowest(name: str, seen: list[int]) -> Callable[[World], None]:
    return lambda world: seen.append(len(world.running(name)))


def where(world: World, name: str = "web") -> Counter[str]:
    return Counter(t.node_id for t in world.running(name))


def even_out(world: World) -> int:
    plan, moves = rebalance(world.seen, list(world.seen.services()), now=world.clock.now())
    world.apply(plan.changes)
    return len(moves)


# -- drain


def test_a_drained_node_is_left_without_a_moment_with_fewer_running():
    world = settled(a_service_spec(replicas=6))
    seen: list[int] = []
    world.after_round.append(lowest("web", seen))
    world.drain("n1", timeout_seconds=300)
    world.settle()
    assert "n1" not in where(world)
    assert (min(seen), len(world.running("web"))) == (6, 6)


def test_no_more_slots_are_moved_at_once_than_the_budget_allows():
    world = settled(a_service_spec(replicas=8, move=MoveConfig(parallelism=1, order=UpdateOrder.STOP_FIRST)), nodes=2)
    seen: list[int] = []
    world.after_round.append(lowest("web", seen))
    world.drain("n1", timeout_seconds=300)
    world.settle()
    assert where(world) == {"n2": 8}
    assert min(seen) == 7


@pytest.mark.parametrize("is_told_to_stop", [False, True])
def test_a_slot_is_not_moved_again_while_what_it_was_moved_from_still_runs(is_told_to_stop: bool):
    """Both ends of its move drained, it ran three containers: the old one, the one that was to stay, and a new one."""
    world = settled(a_service_spec(replicas=1, move=START_FIRST))
    (before,) = world.running("web")
    (elsewhere, *_) = {"n1", "n2", "n3"} - {before.node_id}
    world.apply([Create(replace(before, id="moved", node_id=elsewhere, version=0))])
    if is_told_to_stop:
        world.apply([Update(replace(before, desired_state=TaskState.SHUTDOWN))])
    world.drain(before.node_id, timeout_seconds=300)
    world.drain(elsewhere, timeout_seconds=300)

    def decided() -> tuple[Change, ...]:
        plan = reconcile(world.seen, world.service("web"), now=world.clock.now(), new_id=world.new_id)
        world.apply(plan.changes)
        return plan.changes

    assert not any(isinstance(change, Create) for change in decided())
    assert [t.id for t in world.running("web") if t.is_live] == ["moved"]
    stopped = next(t for t in world.tasks("web") if t.id == before.id)
    world.apply([Update(replace(stopped, status=replace(stopped.status, state=TaskState.SHUTDOWN)))])
    assert any(isinstance(change, Create) for change in decided())


def test_a_stop_first_service_never_has_two_tasks_in_a_slot():
    world = settled(a_service_spec(replicas=1))
    assert not starts_first(world.service("web"))

    def check(at: World) -> None:
        assert len(at.running("web")) <= 1

    world.after_round.append(check)
    (task,) = world.running("web")
    world.drain(task.node_id, timeout_seconds=300)
    world.settle()
    assert task.node_id not in where(world)


def test_a_single_replica_that_is_updated_start_first_is_moved_start_first():
    world = settled(a_service_spec(replicas=1, update=UpdateConfig(order=UpdateOrder.START_FIRST)))
    seen: list[int] = []
    world.after_round.append(lowest("web", seen))
    world.drain(world.running("web")[0].node_id, timeout_seconds=300)
    world.settle()
    assert min(seen) == 1


def test_a_task_without_another_place_stays_until_the_timeout_and_then_leaves():
    world = settled(a_service_spec(replicas=2, max_replicas=1), nodes=2)
    world.drain("n1", timeout_seconds=60)
    began = world.clock.now()
    while world.clock.now() < began + 59 and world.round() is not None:
        assert len(world.running("web")) == 2
    world.settle()
    assert where(world) == {"n2": 1}
    assert world.clock.now() >= began + 60


def test_a_replacement_that_cannot_start_leaves_the_old_one_running():
    world = settled(a_service_spec(replicas=2), nodes=2)
    world.broken.add("registry.lab:5000/web:1")
    world.drain("n1", timeout_seconds=100)
    for _ in range(20):
        world.round()
    assert len(world.running("web")) == 2
    # The one that breaks is tried again as the restart policy says, not without end.
    assert sum(t.state is TaskState.FAILED for t in world.tasks("web")) <= 5


def test_a_node_that_is_active_again_keeps_its_tasks_and_loses_what_was_begun_elsewhere():
    world = settled(a_service_spec(replicas=4), nodes=2)
    world.drain("n1", timeout_seconds=300)
    world.round()
    world.drain("n1", Availability.ACTIVE)
    world.settle()
    assert len(world.running("web")) == 4
    assert all(len([t for t in world.tasks("web") if t.is_live and t.slot == slot]) == 1 for slot in range(1, 5))


def test_tasks_of_global_services_and_jobs_leave_a_drained_node_at_once():
    world = settled(a_service_spec(is_global=True), nodes=2)
    world.drain("n1", timeout_seconds=300)
    world.settle()
    assert where(world) == {"n2": 1}


def test_a_drain_says_why_and_where_in_the_history_it_began():
    world = settled(a_service_spec(replicas=2), nodes=2)
    world.drain("n1", timeout_seconds=300)
    index = world.seen.version
    world.settle()
    moved = [t for t in world.tasks("web") if t.node_id == "n1"]
    assert all(t.stop_why == f"node n1 is drained (index {index})" for t in moved)


# -- rebalance


def test_a_new_node_gets_its_share_and_no_task_is_moved_in_vain():
    world = settled(a_service_spec(replicas=6), nodes=2)
    world.join(a_node("n9", version=0))
    seen: list[int] = []
    world.after_round.append(lowest("web", seen))
    assert even_out(world) == 2
    world.settle()
    assert where(world) == {"n1": 2, "n2": 2, "n9": 2}
    assert min(seen) == 6
    assert even_out(world) == 0


def test_services_of_one_task_spread_over_nodes_as_well():
    world = World(nodes=1)
    for number in range(4):
        world.create(a_service_spec(f"s{number}"))
    world.settle()
    world.join(a_node("n9", version=0))
    assert even_out(world) == 2
    world.settle()
    assert Counter(t.node_id for n in range(4) for t in world.running(f"s{n}")) == {"n1": 2, "n9": 2}
    assert even_out(world) == 0


def test_zones_come_before_nodes():
    world = World(nodes=0)
    for node in (a_node("a1", labels={"zone": "a"}, version=0), a_node("a2", labels={"zone": "a"}, version=0)):
        world.join(node)
    world.create(a_service_spec(replicas=4, preferences=("node.labels.zone",)))
    world.settle()
    world.join(a_node("b1", labels={"zone": "b"}, version=0))
    assert even_out(world) == 2
    world.settle()
    assert where(world) == {"a1": 1, "a2": 1, "b1": 2}


def test_a_service_rebalances_by_itself_once_a_new_node_has_settled():
    world = settled(a_service_spec(replicas=4, move=MoveConfig(rebalances=True)), nodes=1)
    world.join(a_node("n9", version=0))
    joined = world.clock.now()
    world.round()
    assert not any(t.move for t in world.tasks("web"))
    world.settle()
    assert where(world) == {"n1": 2, "n9": 2}
    assert world.clock.now() >= joined + SETTLED_SECONDS


def test_without_being_asked_a_service_stays_where_it_is():
    world = settled(a_service_spec(replicas=4), nodes=1)
    world.join(a_node("n9", version=0))
    world.settle()
    assert where(world) == {"n1": 4}


def test_a_move_that_does_not_succeed_is_given_up_and_the_task_stays():
    world = settled(a_service_spec(replicas=4), nodes=1)
    world.join(a_node("n9", version=0))
    world.dead.add("n9")  # its agent does nothing, and nobody notices
    even_out(world)
    began = world.clock.now()
    world.settle()
    assert world.clock.now() >= began + MARKED_SECONDS
    assert where(world) == {"n1": 4}
    assert not any(t.move for t in world.tasks("web") if t.is_live)


def test_nothing_is_moved_in_the_middle_of_an_update():
    world = settled(a_service_spec(replicas=4), nodes=1)
    world.join(a_node("n9", version=0))
    web = world.service("web")
    updating = replace(web, update_status=replace(web.update_status, state=UpdateState.UPDATING))
    assert rebalance(world.seen, [updating], now=1.0)[1] == ()


counts = st.lists(st.integers(0, 7), min_size=1, max_size=6)


@settings(max_examples=200, deadline=None)
@given(counts)
def test_the_number_of_moves_is_the_least_that_makes_a_service_even(there: list[int]):
    world = World(nodes=len(there))
    spec = a_service_spec(replicas=sum(there))
    world.create(spec)
    # Put them where the example wants them, whatever the scheduler would say.
    world._decide(world.service("web").id)
    homes = [f"n{n + 1}" for n, count in enumerate(there) for _ in range(count)]
    for task, home in zip(world.tasks("web"), homes, strict=True):
        running = replace(task.status, state=TaskState.RUNNING)
        world.apply([Update(replace(task, node_id=home, status=running))])
    moves = even_out(world)
    low, extra = divmod(sum(there), len(there))
    target = [low + 1] * extra + [low] * (len(there) - extra)
    needed = sum(max(0, count - goal) for count, goal in zip(sorted(there, reverse=True), target, strict=True))
    assert moves == needed
    world.settle()
    after = where(world)
    assert sorted((after[f"n{n + 1}"] for n in range(len(there))), reverse=True) == target
    assert even_out(world) == 0


# -- the budget holds, whatever happens

events = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["drain", "activate", "kill", "boot"]), st.integers(1, 4)),
        st.tuples(st.sampled_from(["rebalance", "rounds"]), st.integers(1, 6)),
    ),
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(events, st.integers(1, 6), st.integers(0, 3), st.sampled_from([START_FIRST, STOP_FIRST]))
def test_moves_never_disturb_more_slots_than_the_budget(script, replicas, parallelism, move):
    world = settled(a_service_spec(replicas=replicas, move=replace(move, parallelism=parallelism)), nodes=4)
    allowed = budget(world.service("web"), replicas)

    def check(at: World) -> None:
        tasks = at.tasks("web")
        for slot in range(1, replicas + 1):
            here = [t for t in tasks if t.slot == slot and t.state is TaskState.RUNNING and t.node_id not in at.dead]
            # One of them may be one that was told to stop already.
            assert len(here) <= 2
            if move is STOP_FIRST:
                assert len([t for t in here if t.desired_state <= TaskState.RUNNING]) <= 1
        if not at.dead and not any(n.id for n in at.seen.nodes() if _leaves_at_once(at, n.id)):
            moving = [s for s in range(1, replicas + 1) if _is_moving(tasks, s)]
            assert len(moving) <= allowed

    world.after_round.append(check)
    for what, number in script:
        if what == "drain":
            world.drain(f"n{number}", timeout_seconds=10_000)
        elif what == "activate":
            world.drain(f"n{number}", Availability.ACTIVE)
        elif what == "kill":
            world.kill(f"n{number}")
        elif what == "boot":
            world.boot(f"n{number}")
        elif what == "rebalance":
            even_out(world)
        else:
            for _ in range(number):
                world.round()
    for number in range(1, 5):
        world.boot(f"n{number}")
        world.drain(f"n{number}", Availability.ACTIVE)
    world.settle()
    assert len(world.running("web")) == replicas


def _is_moving(tasks, slot: int) -> bool:
    live = [t for t in tasks if t.slot == slot and t.is_live]
    return len(live) > 1


def _leaves_at_once(world: World, node_id: str) -> bool:
    node = world.seen.node(node_id)
    assert node is not None
    return node.spec.availability is Availability.DRAIN and node.spec.drain_timeout_seconds == 0


# -- nodes that have less than they had


def test_swarm_mistake_38_every_kind_of_resource_is_judged_when_a_node_shrinks():
    world = World(nodes=0)
    world.join(a_node("n1", generic=("gpu=g1", "gpu=g2", "tape=t1"), memory_bytes=8 * GIB, version=0))
    for name, kind in (("first", "gpu"), ("second", "gpu"), ("third", "tape")):
        world.create(a_service_spec(name, reserve_generic={kind: 1}))
        world.settle()
    world.create(a_service_spec("fat", reserve_memory_bytes=6 * GIB))
    world.settle()
    node = world.seen.node("n1")
    assert node is not None
    has = replace(node.description.resources, generic=parse_inventory(["gpu=g2"]), memory_bytes=4 * GIB)
    world.apply([Update(replace(node, description=replace(node.description, resources=has)))])
    shrunk = world.seen.node("n1")
    assert shrunk is not None
    marked = {world.seen.task(c.object.id).service_id for c in relieve(world.seen, shrunk, now=1.0).changes}  # type: ignore[union-attr]
    assert marked == {world.service(name).id for name in ("first", "third", "fat")}


@pytest.mark.parametrize("priority", [0, 5])
def test_what_matters_more_stays_on_a_node_that_shrinks(priority: int):
    world = World(nodes=1)
    world.create(a_service_spec("old", reserve_memory_bytes=3 * GIB))
    world.settle()
    world.create(a_service_spec("new", reserve_memory_bytes=3 * GIB, priority=priority))
    world.settle()
    node = world.seen.node("n1")
    assert node is not None
    has = replace(node.description.resources, memory_bytes=4 * GIB)
    shrunk = replace(node, description=replace(node.description, resources=has))
    (change,) = relieve(world.seen, shrunk, now=1.0).changes
    assert change.object.service_id == world.service("old" if priority else "new").id  # type: ignore[union-attr]
