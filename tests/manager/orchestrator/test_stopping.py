"""Tasks that shall stop: what waits for them, and for how long, when their node answers and when it does not."""

from lib.builders import a_service_spec
from lib.world import World
from msgspec.structs import replace

from pyswarm.manager.orchestrator.reconcile import STOP_WAIT_SECONDS
from pyswarm.proto.model.spec import RestartPolicy, ServiceSpec, UpdateConfig
from pyswarm.proto.model.states import TaskState

GRACE, DRAIN = 30.0, 15.0


def web(image: str = "web:1") -> ServiceSpec:
    spec = a_service_spec(
        "web", image=image, update=UpdateConfig(monitor_seconds=1), restart=RestartPolicy(delay_seconds=60)
    )
    container = replace(spec.task_template.container_spec, stop_grace_period_seconds=GRACE, drain_delay_seconds=DRAIN)
    return replace(spec, task_template=replace(spec.task_template, container_spec=container))


def hung_world() -> tuple[World, str]:
    """One task runs on a node that is up, as far as anybody can tell, and stops nothing."""
    world = World(nodes=2)
    world.create(web())
    world.settle()
    (task,) = world.running("web")
    world.dead.add(task.node_id)
    return world, task.node_id


def started_after(world: World) -> float:
    """Let time pass until a task runs on the other node; return how long that took."""
    begun = world.clock.now()
    while not world.running("web"):
        assert world.round() is not None, "nothing runs and nothing will"
    return world.clock.now() - begun


def test_a_replacement_waits_for_as_long_as_its_predecessor_was_promised_and_no_longer():
    """Swarm mistake 22: a service of one instance must not run twice while its node lives."""
    world, _ = hung_world()
    world.update(web("web:2"))
    waited = started_after(world)
    assert GRACE + DRAIN + STOP_WAIT_SECONDS <= waited < GRACE + DRAIN + STOP_WAIT_SECONDS + 2


def test_nobody_waits_for_a_task_whose_node_is_lost():
    """Swarm mistakes 22 and 25: neither its stop nor the restart delay."""
    world, node = hung_world()
    world.kill(node)
    assert started_after(world) < 2


def test_a_task_that_was_scaled_away_is_forgotten_only_when_it_has_stopped():
    """Swarm mistake 21: deleting it earlier would leak its container and free its ports too early."""
    world, node = hung_world()
    world.scale("web", 0)
    for _ in range(50):
        world.round()
    (task,) = world.tasks("web")
    assert (task.desired_state, task.state) == (TaskState.REMOVE, TaskState.RUNNING)
    world.dead.discard(node)
    world.settle()
    assert world.tasks("web") == ()
