"""What `stack plan` foresees is what then happens, and foreseeing changes nothing."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from lib.builders import GIB, a_service_spec
from lib.world import World
from msgspec.structs import replace

from pyswarm.manager.explain.differences import differences
from pyswarm.manager.explain.preview import Forecast, Placed, forecast
from pyswarm.manager.orchestrator.stacks import apply_stack
from pyswarm.manager.store.changes import Plan
from pyswarm.proto.model.objects import STACK_LABEL
from pyswarm.proto.model.spec import ContainerSpec, ServiceSpec, UpdateConfig
from pyswarm.proto.model.states import TaskState, UpdateOrder


def of_shop(name: str, **more: object) -> ServiceSpec:
    return a_service_spec(f"shop_{name}", labels={STACK_LABEL: "shop"}, **more)  # type: ignore[arg-type]


def foreseen(world: World, *specs: ServiceSpec, prune: bool = False) -> tuple[Plan, dict[str, Forecast]]:
    plan, outcome = apply_stack(world.seen, "shop", specs, prune=prune, new_id=world.new_id)
    ids = {c.id: c.name for c in outcome if c.kind == "service" and c.action != "unchanged"}
    found = forecast(world.seen, plan.changes, ids, now=world.clock.now())
    return plan, {ids[f.service_id]: f for f in found}


def test_a_new_stack_says_where_its_tasks_would_go_and_writes_nothing():
    world = World(nodes=3)
    before = world.seen
    _, told = foreseen(world, of_shop("web", replicas=3), of_shop("db"))
    assert Counter(p.node for p in told["shop_web"].starts) == {"n1": 1, "n2": 1, "n3": 1}
    assert [p.slot for p in told["shop_web"].starts] == [1, 2, 3]
    assert len(told["shop_db"].starts) == 1
    assert world.seen is before


def test_an_update_says_which_tasks_stop_and_where_they_are_today():
    world = World(nodes=2)
    plan, _ = foreseen(world, of_shop("web", replicas=2))
    world.apply(plan.changes)
    world.settle()
    _, told = foreseen(world, of_shop("web", replicas=2, image="r/web:2"))
    (web,) = told.values()
    assert (web.kept, web.stopped) == (0, 2)
    assert {p.instead_of for p in web.starts} == {"n1", "n2"}


def test_scaling_keeps_what_there_is():
    world = World(nodes=2)
    plan, _ = foreseen(world, of_shop("web", replicas=2))
    world.apply(plan.changes)
    world.settle()
    _, told = foreseen(world, of_shop("web", replicas=5))
    (web,) = told.values()
    assert (web.kept, web.stopped, len(web.starts)) == (2, 0, 3)


def test_what_fits_nowhere_says_why():
    world = World(nodes=1)
    _, told = foreseen(world, of_shop("web", replicas=2, reserve_memory_bytes=6 * GIB))
    (web,) = told.values()
    assert [bool(p.why_not) for p in web.starts] == [False, True]
    assert "insufficient resources" in web.starts[1].why_not


def test_a_service_that_is_taken_out_stops():
    world = World(nodes=1)
    plan, _ = foreseen(world, of_shop("web", replicas=2), of_shop("db"))
    world.apply(plan.changes)
    world.settle()
    _, told = foreseen(world, of_shop("db"), prune=True)
    assert told["shop_web"].stopped == 2
    assert not told["shop_web"].starts


def test_a_large_update_is_foreseen_in_time():
    world = World(nodes=5)
    plan, _ = foreseen(world, of_shop("web", replicas=60))
    world.apply(plan.changes)
    world.settle()
    _, told = foreseen(world, of_shop("web", replicas=60, image="r/web:2"))
    (web,) = told.values()
    assert len(web.starts) == 60
    assert not any(p.why_not for p in web.starts)


specs = st.builds(
    lambda replicas, memory, max_replicas, order, image, parallelism: of_shop(
        "web",
        replicas=replicas,
        reserve_memory_bytes=memory,
        max_replicas=max_replicas,
        image=image,
        update=UpdateConfig(parallelism=parallelism, order=order, monitor_seconds=0),
    ),
    st.integers(0, 6),
    st.sampled_from([0, 3 * GIB]),
    st.sampled_from([0, 2]),
    st.sampled_from([UpdateOrder.STOP_FIRST, UpdateOrder.START_FIRST]),
    st.sampled_from(["r/web:1", "r/web:2"]),
    st.integers(0, 2),
)


@settings(max_examples=60, deadline=None)
@given(specs, specs, st.integers(1, 4))
def test_what_is_foreseen_is_what_happens(first: ServiceSpec, second: ServiceSpec, nodes: int):
    """Of an update the slots: on which of several nodes a task comes depends on when the old ones have ended."""
    world = World(nodes=nodes)
    plan, told = foreseen(world, first)
    began, _ = _happened(world, plan, told)
    assert {name: Counter((p.slot, p.node) for p in _starts(found)) for name, found in told.items()} == began
    plan, told = foreseen(world, second)
    began, kept = _happened(world, plan, told)
    slots = {name: Counter(slot for slot, _ in tasks.elements()) for name, tasks in began.items()}
    assert {name: Counter(p.slot for p in _starts(found)) for name, found in told.items()} == slots
    assert {name: found.kept for name, found in told.items()} == kept


def _starts(found: Forecast) -> list[Placed]:
    return [p for p in found.starts if not p.why_not]


def _happened(
    world: World, plan: Plan, told: dict[str, Forecast]
) -> tuple[dict[str, Counter[tuple[int, str]]], dict[str, int]]:
    """Carry the plan out; return (slot, node) of what runs anew, and how many run on, of each service foreseen."""
    before = {t.id for t in world.seen.tasks() if t.is_live}
    world.apply(plan.changes)
    world.settle()
    runs = {name: [t for t in world.tasks(name) if t.is_live and t.state is TaskState.RUNNING] for name in told}
    fresh = {name: Counter((t.slot, t.node_id) for t in tasks if t.id not in before) for name, tasks in runs.items()}
    return fresh, {name: sum(t.id in before for t in tasks) for name, tasks in runs.items()}


def test_differences_name_fields_and_hide_what_variables_hold():
    old = a_service_spec(image="r/web:1", container=ContainerSpec("r/web:1", env=("KEY=secret", "A=1")))
    new = a_service_spec(image="r/web:2", container=ContainerSpec("r/web:2", env=("KEY=other", "B=1")), replicas=3)
    told = differences(old, replace(new, labels={"a": "1"}))
    assert "task_template.container_spec.image: r/web:1 -> r/web:2" in told
    assert "mode.replicated.replicas: 1 -> 3" in told
    assert "labels: a added" in told
    assert [line for line in told if ".env" in line] == [
        "task_template.container_spec.env: A removed",
        "task_template.container_spec.env: B added",
        "task_template.container_spec.env: KEY changed",
    ]
    assert not any("secret" in line or "other" in line for line in told)
    assert differences(old, old) == ()
