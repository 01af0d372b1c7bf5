"""Rolling updates on a virtual clock: paced, watched, held, given up and rolled back, whatever the new tasks do."""

from collections.abc import Callable

import pytest
from lib.builders import a_service_spec
from lib.world import World
from msgspec.structs import replace

from pyswarm.manager.orchestrator import services
from pyswarm.manager.orchestrator.update_progress import slots_of_step
from pyswarm.proto.errors import FailedPrecondition
from pyswarm.proto.model.resources import Resources
from pyswarm.proto.model.spec import (
    EndpointSpec,
    Placement,
    PortConfig,
    RestartPolicy,
    ServiceSpec,
    UpdateConfig,
)
from pyswarm.proto.model.states import FailureAction, PublishMode, RestartCondition, TaskState, UpdateOrder, UpdateState

NEW = "registry.lab:5000/web:2"
QUICK = UpdateConfig(monitor_seconds=5)


def web(replicas: int = 3, update: UpdateConfig = QUICK, **of_spec: object) -> ServiceSpec:
    spec = a_service_spec("web", replicas=replicas, update=update, **of_spec)  # type: ignore[arg-type]
    return replace(spec, rollback_config=update) if update.failure_action is not FailureAction.ROLLBACK else spec


def with_image(spec: ServiceSpec, image: str = NEW) -> ServiceSpec:
    template = spec.task_template
    return replace(spec, task_template=replace(template, container_spec=replace(template.container_spec, image=image)))


def with_placement(spec: ServiceSpec, **changes: object) -> ServiceSpec:
    placement = replace(spec.task_template.placement, **changes)  # type: ignore[arg-type]
    return replace(spec, task_template=replace(spec.task_template, placement=placement))


def running_world(spec: ServiceSpec, nodes: int = 3) -> World:
    world = World(nodes=nodes)
    world.create(spec)
    world.settle()
    return world


def state(world: World) -> UpdateState:
    return world.service("web").update_status.state


def message(world: World) -> str:
    return world.service("web").update_status.message


def until(world: World, holds: Callable[[], bool], rounds: int = 300) -> None:
    for _ in range(rounds):
        if holds():
            return
        world.round()
    raise AssertionError("it never came to that")


def updated(world: World) -> list[int]:
    """The slots that have, or had, a task of the newest version."""
    version = world.service("web").spec_version
    return sorted({t.slot for t in world.tasks("web") if t.spec_version == version})


# -- the end of an update


def test_a_task_that_never_gets_well_fails_the_update_at_its_deadline_instead_of_hanging_it():
    """Swarm mistake 36."""
    spec = web(update=replace(QUICK, progress_deadline_seconds=30))
    world = running_world(spec)
    world.unwell.add(NEW)
    world.update(with_image(spec))
    begun = world.clock.now()
    until(world, lambda: state(world) is UpdateState.PAUSED)
    assert 30 <= world.clock.now() - begun < 32
    assert "did not run within 30 s" in message(world)
    assert len(world.running("web")) == 2


def test_a_task_that_no_node_can_take_fails_the_update_with_the_schedulers_words():
    spec = web(update=replace(QUICK, progress_deadline_seconds=30))
    world = running_world(spec)
    world.update(with_placement(spec, constraints=("node.labels.zone==nowhere",)))
    until(world, lambda: state(world) is UpdateState.PAUSED)
    assert "no suitable node" in message(world)


def test_a_deadline_of_nothing_waits_for_ever():
    spec = web(update=replace(QUICK, progress_deadline_seconds=0))
    world = running_world(spec)
    world.unwell.add(NEW)
    world.update(with_image(spec))
    world.settle()
    assert state(world) is UpdateState.UPDATING


@pytest.mark.parametrize(
    ("crashes_after", "ends"),
    [
        pytest.param(3, UpdateState.PAUSED, id="within its monitor time it counts"),
        pytest.param(8, UpdateState.COMPLETED, id="after it no more"),
    ],
)
def test_only_what_fails_within_its_monitor_time_is_held_against_an_update(crashes_after, ends):
    """Swarm mistake 31."""
    spec = web(1)
    world = running_world(spec)
    world.crash_after[NEW] = crashes_after
    world.update(with_image(spec))
    until(world, lambda: state(world) in (UpdateState.PAUSED, UpdateState.COMPLETED))
    assert state(world) is ends


def test_tasks_that_failed_before_the_update_are_not_held_against_it():
    """Swarm mistake 31."""
    spec = web(1, restart=RestartPolicy(delay_seconds=1))
    world = running_world(spec)
    world.fail(world.running("web")[0])
    world.settle()
    world.update(with_image(spec))
    world.settle()
    assert state(world) is UpdateState.COMPLETED


@pytest.mark.parametrize(
    ("ratio", "ends"), [(0.5, UpdateState.COMPLETED), (0.49, UpdateState.PAUSED), (0.0, UpdateState.PAUSED)]
)
def test_failures_are_counted_against_the_slots_that_the_update_touches(ratio, ends):
    """Swarm mistake 32: of four slots two are touched, and one of these fails."""
    spec = web(4, update=replace(QUICK, max_failure_ratio=ratio), restart=RestartPolicy(delay_seconds=1))
    world = running_world(with_placement(spec, constraints=("node.hostname!=x",)), nodes=2)
    for name in ("n1", "n2"):
        node = world.seen.node(name)
        world.apply([services.Update(replace(node, spec=replace(node.spec, labels={"zone": name})))])
    # A change of placement touches only what does not fit any more.
    world.update(with_placement(spec, constraints=("node.labels.zone==n1",)))
    until(world, lambda: any(t.state is TaskState.RUNNING for t in world.fresh("web")))
    world.fail(next(t for t in world.fresh("web") if t.state is TaskState.RUNNING))
    until(world, lambda: state(world) in (UpdateState.PAUSED, UpdateState.COMPLETED))
    assert state(world) is ends
    assert len(updated(world)) == (2 if ends is UpdateState.COMPLETED else 1)


def test_an_update_that_shall_continue_comes_to_its_end_though_every_task_fails():
    action = replace(QUICK, failure_action=FailureAction.CONTINUE, max_failure_ratio=1.0)
    spec = web(3, update=action, restart=RestartPolicy(delay_seconds=1))
    world = running_world(spec)
    world.broken.add(NEW)
    world.update(with_image(spec))
    until(world, lambda: state(world) is UpdateState.COMPLETED)
    assert updated(world) == [1, 2, 3]
    assert "3 of 3 tasks failed" in message(world)


def test_an_update_goes_on_past_a_failure_that_it_tolerates():
    spec = web(4, update=replace(QUICK, max_failure_ratio=0.25), restart=RestartPolicy(delay_seconds=3600))
    world = running_world(spec)
    world.update(with_image(spec))
    until(world, lambda: len(world.fresh("web")) == 1 and world.fresh("web")[0].state is TaskState.RUNNING)
    world.fail(world.fresh("web")[0])
    until(world, lambda: state(world) is UpdateState.COMPLETED)
    assert updated(world) == [1, 2, 3, 4]


def test_an_update_completes_when_its_tasks_end_well_for_good():
    policy = RestartPolicy(condition=RestartCondition.ON_FAILURE)
    spec = web(2, restart=policy)
    world = running_world(spec)
    world.update(with_image(spec))
    until(world, lambda: bool(world.fresh("web")) and world.fresh("web")[0].state is TaskState.RUNNING)
    world.end(world.fresh("web")[0])
    world.settle()
    assert state(world) is UpdateState.COMPLETED


def test_a_slot_that_was_given_up_gets_another_chance_with_another_spec():
    spec = web(2, restart=RestartPolicy(delay_seconds=1, max_attempts=1))
    world = World(nodes=2)
    world.broken.add("broken:1")
    world.create(with_image(spec, "broken:1"))
    world.settle()
    assert world.running("web") == []
    world.update(with_image(spec))
    world.settle()
    assert len(world.running("web")) == 2
    assert state(world) is UpdateState.COMPLETED


def test_what_does_not_run_is_updated_first_and_holds_nothing_up():
    spec = web(4)
    world = running_world(spec, nodes=4)
    lost = next(t for t in world.running("web") if t.slot == 4)
    world.unwell.add(spec.task_template.container_spec.image)
    world.fail(lost)
    until(world, lambda: any(t.slot == 4 and t.state is TaskState.STARTING for t in world.tasks("web")))
    order: list[int] = []
    world.after_round.append(lambda now: order.extend(s for s in updated(now) if s not in order))
    world.update(with_image(spec))
    world.settle()
    assert order == [4, 1, 2, 3]
    assert state(world) is UpdateState.COMPLETED


# -- rolling back


def broken_update(spec: ServiceSpec) -> World:
    world = running_world(spec)
    world.broken.add("broken:1")
    world.update(with_image(spec, "broken:1"))
    return world


def test_a_failing_rollback_is_paused_and_stays_so():
    """Swarm mistake 33."""
    rolls_back = replace(QUICK, failure_action=FailureAction.ROLLBACK)
    spec = web(3, update=rolls_back, restart=RestartPolicy(delay_seconds=1))
    world = running_world(replace(spec, rollback_config=QUICK))
    world.broken |= {"broken:1", spec.task_template.container_spec.image}
    world.update(with_image(replace(spec, rollback_config=QUICK), "broken:1"))
    until(world, lambda: state(world) is UpdateState.ROLLBACK_PAUSED)
    for _ in range(100):
        world.round()
    assert state(world) is UpdateState.ROLLBACK_PAUSED


def test_a_rollback_gives_the_service_its_ports_back():
    spec = web(2, update=replace(QUICK, failure_action=FailureAction.ROLLBACK), restart=RestartPolicy(delay_seconds=1))
    spec = replace(spec, endpoint_spec=EndpointSpec(ports=(PortConfig(target_port=80, published_port=8080),)))
    world = running_world(spec)
    world.broken.add("broken:1")
    other = EndpointSpec(ports=(PortConfig(target_port=80, published_port=9090),))
    world.update(replace(with_image(spec, "broken:1"), endpoint_spec=other))
    world.settle()
    assert state(world) is UpdateState.ROLLBACK_COMPLETED
    assert [p.published_port for p in world.service("web").ports] == [8080]


def test_a_rollback_keeps_what_start_first_has_not_stopped_yet():
    rolls_back = replace(QUICK, order=UpdateOrder.START_FIRST, failure_action=FailureAction.ROLLBACK)
    spec = replace(web(3, update=replace(rolls_back, progress_deadline_seconds=10)), rollback_config=QUICK)
    world = running_world(spec)
    before = {t.id for t in world.running("web")}
    world.unwell.add(NEW)
    world.update(with_image(spec))
    world.settle()
    assert state(world) is UpdateState.ROLLBACK_COMPLETED
    assert {t.id for t in world.running("web")} == before


def test_a_rollback_that_cannot_be_is_told_and_the_update_paused():
    spec = web(2, update=replace(QUICK, failure_action=FailureAction.ROLLBACK), restart=RestartPolicy(delay_seconds=1))
    spec = replace(spec, endpoint_spec=EndpointSpec(ports=(PortConfig(target_port=80, published_port=8080),)))
    world = running_world(spec)
    world.broken.add("broken:1")
    world.update(replace(with_image(spec, "broken:1"), endpoint_spec=EndpointSpec()))
    thief = a_service_spec("thief", replicas=1)
    world.create(replace(thief, endpoint_spec=spec.endpoint_spec))
    until(world, lambda: state(world) is UpdateState.PAUSED)
    assert "it cannot be rolled back: port 8080/tcp is already published by service thief" in message(world)


def test_a_manual_rollback_goes_back_and_forth():
    spec = web(2)
    world = running_world(spec)
    world.update(with_image(spec))
    world.settle()
    for image in (spec.task_template.container_spec.image, NEW):
        service = world.service("web")
        world.apply(services.update_service(world.seen, service.id, service.version, spec, rollback=True).changes)
        world.settle()
        assert state(world) is UpdateState.ROLLBACK_COMPLETED
        assert world.service("web").spec.task_template.container_spec.image == image
        assert len(world.running("web")) == 2


# -- start-first without room


def crowded(**of_spec: object) -> ServiceSpec:
    return web(2, update=replace(QUICK, order=UpdateOrder.START_FIRST, progress_deadline_seconds=60), **of_spec)


HOST_PORT = EndpointSpec(ports=(PortConfig(target_port=80, published_port=8080, publish_mode=PublishMode.HOST),))


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(with_placement(crowded(), max_replicas=1), id="as many replicas as nodes may have"),
        pytest.param(replace(crowded(), endpoint_spec=HOST_PORT), id="a host port on every node"),
        pytest.param(crowded(reserve_memory_bytes=6 * 1024**3), id="full nodes"),
    ],
)
def test_start_first_does_not_wait_for_room_that_only_the_old_task_can_give(spec: ServiceSpec):
    """Swarm mistake 35."""
    world = running_world(spec, nodes=2)
    least: list[int] = []
    world.after_round.append(lambda now: least.append(len(now.running("web"))))
    world.update(with_image(spec))
    begun = world.clock.now()
    until(world, lambda: state(world) is UpdateState.COMPLETED)
    assert {t.spec_version for t in world.running("web")} == {2}
    assert min(least) == 1, "one slot at a time"
    assert world.clock.now() - begun < 30


def test_start_first_stops_nothing_for_a_task_that_would_not_fit_either_way():
    spec = crowded()
    world = running_world(spec, nodes=2)
    resources = replace(spec.task_template.resources, reservations=Resources(memory_bytes=1024**5))
    world.update(replace(spec, task_template=replace(with_image(spec).task_template, resources=resources)))
    until(world, lambda: state(world) is UpdateState.PAUSED)
    assert "insufficient resources" in message(world)
    assert len(world.running("web")) == 2


# -- canaries


def test_a_canary_is_watched_before_more_is_updated():
    canary = UpdateConfig(parallelism=4, monitor_seconds=10, canary=("1", "25%"))
    spec = web(8, update=canary)
    world = running_world(spec)
    taken: dict[int, float] = {}
    begun = world.clock.now()
    world.after_round.append(lambda now: taken.setdefault(len(updated(now)), now.clock.now() - begun) and None)
    world.update(with_image(spec))
    world.settle()
    assert state(world) is UpdateState.COMPLETED
    assert sorted(taken)[:4] == [0, 1, 2, 6] or sorted(taken)[:3] == [1, 2, 6], "one, a quarter, then four at once"
    assert taken[2] >= 10
    assert taken[6] >= 20


def test_a_canary_that_fails_is_the_only_one():
    canary = UpdateConfig(parallelism=4, monitor_seconds=10, canary=("1",), max_failure_ratio=0.3)
    spec = web(8, update=canary, restart=RestartPolicy(delay_seconds=1))
    world = running_world(spec)
    world.crash_after[NEW] = 5
    world.update(with_image(spec))
    until(world, lambda: state(world) is UpdateState.PAUSED)
    assert updated(world) == [1], "one failure of one is more than three of ten"


@pytest.mark.parametrize(("step", "slots"), [("1", 1), ("25%", 3), ("1%", 1), ("100%", 10), ("50", 10)])
def test_what_a_canary_step_of_ten_means(step: str, slots: int):
    assert slots_of_step(step, 10) == slots


# -- held by people


def hold(world: World, *, resume: bool) -> None:
    service = world.service("web")
    plan = services.hold_update(world.seen, service.id, service.version, resume=resume, now=world.clock.now())
    world.apply(plan.changes)


def test_a_paused_update_rests_and_a_resumed_one_goes_on():
    spec = web(4)
    world = running_world(spec)
    world.update(with_image(spec))
    until(world, lambda: len(updated(world)) == 2)
    hold(world, resume=False)
    world.settle()
    assert state(world) is UpdateState.PAUSED
    assert updated(world) == [1, 2]
    assert len(world.running("web")) == 4
    hold(world, resume=True)
    world.settle()
    assert state(world) is UpdateState.COMPLETED
    assert updated(world) == [1, 2, 3, 4]


def test_resuming_forgives_what_failed_before():
    spec = web(3, restart=RestartPolicy(delay_seconds=1))
    world = broken_update(spec)
    until(world, lambda: state(world) is UpdateState.PAUSED)
    world.broken.clear()
    hold(world, resume=True)
    world.settle()
    assert state(world) is UpdateState.COMPLETED


@pytest.mark.parametrize("resume", [True, False])
def test_there_must_be_something_to_hold(resume: bool):
    world = running_world(web(1))
    with pytest.raises(FailedPrecondition, match="no update of service web is"):
        hold(world, resume=resume)


# -- pacing


def test_the_next_slot_waits_for_the_delay():
    spec = web(3, update=UpdateConfig(delay_seconds=20, monitor_seconds=1))
    world = running_world(spec)
    first: dict[int, float] = {}

    def look(now: World) -> None:
        for slot in updated(now):
            first.setdefault(slot, now.clock.now())

    world.after_round.append(look)
    world.update(with_image(spec))
    world.settle()
    assert first[2] - first[1] >= 20
    assert first[3] - first[2] >= 20


def test_a_placement_that_still_fits_restarts_nothing_and_is_complete_at_once():
    """Swarm mistake 37."""
    spec = web(3)
    world = running_world(spec)
    before = {t.id for t in world.running("web")}
    world.update(replace(spec, task_template=replace(spec.task_template, placement=Placement(max_replicas=5))))
    world.settle()
    assert {t.id for t in world.running("web")} == before
    assert state(world) is UpdateState.COMPLETED, "or whoever waits for it would wait for ever"


def test_a_canary_whose_node_is_lost_proves_nothing_and_another_takes_its_place():
    canary = UpdateConfig(parallelism=4, monitor_seconds=30, canary=("1",))
    world = running_world(web(update=canary, is_global=True), nodes=4)
    world.update(with_image(web(update=canary, is_global=True)))
    until(world, lambda: len(world.fresh("web")) == 1)
    (first,) = world.fresh("web")
    world.kill(first.node_id)
    began = world.clock.now()
    until(world, lambda: world.clock.now() > began + 25)
    (second,) = world.fresh("web")
    assert second.node_id != first.node_id
    world.settle()
    assert (state(world), len(world.fresh("web"))) == (UpdateState.COMPLETED, 3)
