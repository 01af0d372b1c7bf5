"""Services converge: whatever happens, the wanted tasks run, each slot once, and all comes to rest."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lib.builders import a_service_spec
from lib.world import World
from msgspec.structs import replace

from pyswarm.manager.orchestrator.nodes import remove_node
from pyswarm.proto.model.spec import RestartPolicy, ServiceSpec, UpdateConfig
from pyswarm.proto.model.states import Availability, FailureAction, TaskState, UpdateOrder, UpdateState


def web(replicas: int = 3, **of_spec: object) -> ServiceSpec:
    return a_service_spec("web", replicas=replicas, **of_spec)  # type: ignore[arg-type]


def with_image(spec: ServiceSpec, image: str) -> ServiceSpec:
    container = replace(spec.task_template.container_spec, image=image)
    return replace(spec, task_template=replace(spec.task_template, container_spec=container))


def slots(world: World) -> list[int]:
    return sorted(t.slot for t in world.running("web"))


def test_a_new_service_fills_its_slots_spread_over_the_nodes():
    world = World(nodes=3)
    world.create(web(6))
    world.settle()
    assert slots(world) == [1, 2, 3, 4, 5, 6]
    assert Counter(t.node_id for t in world.running("web")) == {"n1": 2, "n2": 2, "n3": 2}


def test_a_removed_nodes_tasks_run_elsewhere_at_once():
    world = World(nodes=3)
    world.create(web(6, restart=RestartPolicy(delay_seconds=60)))
    world.settle()
    before = world.clock.now()
    world.dead.add("n2")
    world.apply(remove_node(world.seen, "n2", force=True, now=before).changes)
    while slots(world) != [1, 2, 3, 4, 5, 6]:
        assert world.round() is not None, "slots of the removed node stayed empty"
        assert world.clock.now() - before < 2


def test_scaling_down_leaves_the_wanted_number_and_no_history_of_the_rest():
    world = World(nodes=3)
    world.create(web(6))
    world.settle()
    world.scale("web", 2)
    world.settle()
    assert len(world.running("web")) == 2
    assert len(world.tasks("web")) == 2, "tasks that were scaled away leave nothing behind"


def test_a_lost_nodes_tasks_run_elsewhere_at_once_and_nothing_is_doubled_on_its_return():
    world = World(nodes=3)
    world.create(web(6, restart=RestartPolicy(delay_seconds=60)))
    world.settle()
    kept = {t.id for t in world.running("web") if t.node_id != "n2"}
    before = world.clock.now()
    world.kill("n2")
    while slots(world) != [1, 2, 3, 4, 5, 6]:
        world.round()
        assert world.clock.now() - before < 2, "the restart delay is for crash loops, not for lost nodes"
    assert kept <= {t.id for t in world.running("web")}, "a task of a live node was moved"
    world.boot("n2")
    world.settle()
    assert slots(world) == [1, 2, 3, 4, 5, 6]
    assert kept <= {t.id for t in world.running("web")}


def test_a_slot_whose_two_tasks_are_lost_at_once_in_the_middle_of_an_update_is_filled_again():
    world = World(nodes=3)
    spec = web(1, update=UpdateConfig(order=UpdateOrder.START_FIRST, monitor_seconds=1))
    world.create(spec)
    world.settle()
    world.update(with_image(spec, "registry.lab:5000/web:2"))
    while len(world.running("web")) < 2:
        assert world.round() is not None, "the new task never ran beside the old one"
    for node_id in {t.node_id for t in world.running("web")}:
        world.kill(node_id)
    world.settle()
    assert slots(world) == [1]


def test_an_overtaken_start_first_update_never_runs_three_tasks_in_a_slot():
    world = World(nodes=3)
    spec = web(1, update=UpdateConfig(order=UpdateOrder.START_FIRST, monitor_seconds=1))
    world.create(spec)
    world.settle()
    world.after_round.append(lambda now: most.append(len(now.running("web"))))
    most: list[int] = []
    world.update(with_image(spec, "registry.lab:5000/web:2"))
    while not any(t.spec_version == 2 and t.state is TaskState.READY for t in world.tasks("web")):
        world.round()
    world.update(with_image(spec, "registry.lab:5000/web:3"))
    world.settle()
    assert max(most) == 2
    assert [t.spec_version for t in world.running("web")] == [3]


def test_a_drained_node_is_left_and_not_used_until_it_is_active_again():
    world = World(nodes=2)
    world.create(web(4))
    world.settle()
    world.drain("n1")
    world.settle()
    assert {t.node_id for t in world.running("web")} == {"n2"}
    assert len(slots(world)) == 4
    world.drain("n1", Availability.ACTIVE)
    world.scale("web", 8)
    world.settle()
    assert Counter(t.node_id for t in world.running("web")) == {"n1": 4, "n2": 4}


def test_a_global_service_runs_once_on_every_eligible_node():
    world = World(nodes=3)
    world.create(a_service_spec("web", is_global=True))
    world.settle()
    assert sorted(t.node_id for t in world.running("web")) == ["n1", "n2", "n3"]
    world.kill("n3")
    world.drain("n1")
    world.settle()
    assert sorted(t.node_id for t in world.running("web")) == ["n2"]
    world.boot("n3")
    world.drain("n1", Availability.ACTIVE)
    world.settle()
    assert sorted(t.node_id for t in world.running("web")) == ["n1", "n2", "n3"]


@pytest.mark.parametrize("order", [UpdateOrder.STOP_FIRST, UpdateOrder.START_FIRST])
@pytest.mark.parametrize(("replicas", "parallelism"), [(6, 2), (3, 1), (5, 0), (1, 1)])
def test_an_update_replaces_every_slot_in_order_and_keeps_enough_running(order, replicas, parallelism):
    world = World(nodes=4)
    config = UpdateConfig(parallelism=parallelism, order=order, monitor_seconds=1)
    spec = web(replicas, update=config)
    world.create(spec)
    world.settle()
    least = [replicas]
    order_taken: list[int] = []

    def look(now: World) -> None:
        least.append(len({t.slot for t in now.running("web")}))
        for task in now.tasks("web"):
            if task.spec_version == 2 and task.slot not in order_taken:
                order_taken.append(task.slot)

    world.after_round.append(look)
    world.update(with_image(spec, "registry.lab:5000/web:2"))
    world.settle()
    together = parallelism or replicas
    assert {t.spec_version for t in world.running("web")} == {2}
    assert slots(world) == list(range(1, replicas + 1))
    assert min(least) >= (replicas if order is UpdateOrder.START_FIRST else replicas - together)
    assert order_taken == sorted(order_taken)
    assert world.service("web").update_status.state is UpdateState.COMPLETED


def test_an_update_to_a_broken_image_pauses_with_most_replicas_untouched():
    world = World(nodes=3)
    spec = web(4, update=UpdateConfig(parallelism=1, monitor_seconds=1), restart=RestartPolicy(delay_seconds=1))
    world.create(spec)
    world.settle()
    world.broken.add("broken:1")
    world.update(with_image(spec, "broken:1"))
    for _ in range(50):
        world.round()
    service = world.service("web")
    assert service.update_status.state is UpdateState.PAUSED
    assert "non-zero exit" in service.update_status.message
    assert len(world.running("web")) >= 3


def test_a_failing_update_rolls_back_by_itself_once():
    world = World(nodes=3)
    action = UpdateConfig(parallelism=1, monitor_seconds=1, failure_action=FailureAction.ROLLBACK)
    spec = web(3, update=action, restart=RestartPolicy(delay_seconds=1))
    world.create(spec)
    world.settle()
    world.broken.add("broken:1")
    world.update(with_image(spec, "broken:1"))
    world.settle()
    service = world.service("web")
    assert service.update_status.state is UpdateState.ROLLBACK_COMPLETED
    assert service.spec.task_template.container_spec.image == spec.task_template.container_spec.image
    assert len(world.running("web")) == 3


def test_a_change_of_placement_restarts_nothing_that_still_fits():
    world = World(nodes=3)
    spec = web(3)
    world.create(spec)
    world.settle()
    before = {t.id for t in world.running("web")}
    placement = replace(spec.task_template.placement, constraints=("node.role==worker",))
    world.update(replace(spec, task_template=replace(spec.task_template, placement=placement)))
    world.settle()
    assert {t.id for t in world.running("web")} == before


def test_a_crash_loop_waits_for_its_delay_and_keeps_a_bounded_history():
    world = World(nodes=1)
    world.broken.add("broken:1")
    world.create(with_image(web(1, restart=RestartPolicy(delay_seconds=5)), "broken:1"))
    begun = world.clock.now()
    for _ in range(150):
        world.round()
    dead = [t for t in world.tasks("web") if t.state.is_terminal]
    attempts = (world.clock.now() - begun) / 5
    assert attempts > 5
    assert len(dead) <= 5 + 1
    starts = sorted(t.status.timestamp for t in dead)
    assert all(later - earlier >= 5 for earlier, later in pairwise(starts))


def test_a_service_with_limited_attempts_gives_up_and_comes_to_rest():
    world = World(nodes=1)
    world.broken.add("broken:1")
    world.create(with_image(web(1, restart=RestartPolicy(delay_seconds=1, max_attempts=2)), "broken:1"))
    world.settle()
    assert len([t for t in world.tasks("web") if t.state is TaskState.FAILED]) == 3, "the first and two restarts"


def test_a_removed_service_leaves_neither_tasks_nor_revisions():
    from pyswarm.manager.orchestrator.services import remove_service

    world = World(nodes=2)
    service = world.create(web(3))
    world.settle()
    world.apply(remove_service(world.seen, service.id).changes)
    world.settle()
    assert list(world.seen.tasks()) == []
    assert list(world.seen.revisions()) == []


ACTIONS = st.sampled_from(["kill", "boot", "drain", "undrain", "scale", "image", "round", "rounds"])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(ACTIONS, st.integers(0, 100)), max_size=25))
def test_whatever_happens_each_slot_runs_once_in_the_end(story):
    world = World(nodes=4)
    spec = web(3, update=UpdateConfig(parallelism=2, monitor_seconds=1), restart=RestartPolicy(delay_seconds=2))
    world.create(spec)
    nodes = [n.id for n in world.seen.nodes()]
    drained: set[str] = set()

    def never_more_than_wanted_live(now: World) -> None:
        per_slot = Counter(t.slot for t in now.tasks("web") if t.is_live)
        assert all(number <= 1 for number in per_slot.values()), per_slot

    world.after_round.append(never_more_than_wanted_live)
    for action, number in story:
        node = nodes[number % len(nodes)]
        # One node is left alone, so that there is always somewhere to run.
        if action == "kill" and node != "n1" and node not in world.dead:
            world.kill(node)
        elif action == "boot" and node in world.dead:
            world.boot(node)
        elif action == "drain" and node != "n1":
            drained.add(node)
            world.drain(node)
        elif action == "undrain" and node in drained:
            drained.discard(node)
            world.drain(node, Availability.ACTIVE)
        elif action == "scale":
            world.scale("web", number % 7)
        elif action == "image":
            world.update(with_image(world.service("web").spec, f"registry.lab:5000/web:{number}"))
        else:
            for _ in range(1 if action == "round" else number % 10):
                world.round()
    world.settle()
    mode = world.service("web").spec.mode.replicated
    assert mode is not None
    assert len(slots(world)) == len(set(slots(world))) == mode.replicas
    assert all(t.node_id not in drained for t in world.running("web"))
    # By image, not by version: a spec that says again what a task runs already restarts nothing.
    images = {world.seen.revision_of(t).task_template.container_spec.image for t in world.running("web")}
    assert images <= {world.service("web").spec.task_template.container_spec.image}
