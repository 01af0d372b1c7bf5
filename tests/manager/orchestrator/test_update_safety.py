"""What holds in every state a cluster passes through, whatever happens: never too many tasks, nothing going back."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from lib.builders import a_service_spec, counting_ids
from lib.world import World
from msgspec.structs import replace

from pyswarm.manager.orchestrator import services
from pyswarm.manager.orchestrator.reconcile import reconcile
from pyswarm.manager.store.changes import Create
from pyswarm.proto.errors import FailedPrecondition
from pyswarm.proto.model.objects import Task
from pyswarm.proto.model.spec import RestartPolicy, UpdateConfig
from pyswarm.proto.model.states import FailureAction, TaskState, UpdateOrder

FIXPOINT_ROUNDS = 6

CONFIGS = st.builds(
    UpdateConfig,
    parallelism=st.integers(0, 3),
    delay_seconds=st.sampled_from([0.0, 3.0]),
    failure_action=st.sampled_from([FailureAction.PAUSE, FailureAction.CONTINUE, FailureAction.ROLLBACK]),
    monitor_seconds=st.sampled_from([1.0, 4.0]),
    max_failure_ratio=st.sampled_from([0.0, 0.4]),
    order=st.sampled_from([UpdateOrder.STOP_FIRST, UpdateOrder.START_FIRST]),
    progress_deadline_seconds=st.sampled_from([0.0, 20.0]),
    canary=st.sampled_from([(), ("1",), ("1", "50%")]),
)
IMAGES = ("web:1", "web:2", "broken:1", "unwell:1", "crashing:1")
STORY = st.lists(
    st.tuples(
        st.sampled_from(["kill", "boot", "scale", "image", "fail", "pause", "resume", "rounds"]), st.integers(0, 99)
    ),
    max_size=20,
)


class Watched:
    """A world that is looked at after every round."""

    def __init__(self, config: UpdateConfig) -> None:
        self.config = config
        self.world = World(nodes=4)
        self.world.broken.add("broken:1")
        self.world.unwell.add("unwell:1")
        self.world.crash_after["crashing:1"] = 2.0
        rollback = replace(config, failure_action=FailureAction.PAUSE)
        spec = a_service_spec("web", replicas=3, update=config, restart=RestartPolicy(delay_seconds=2))
        self.world.create(replace(spec, rollback_config=rollback))
        self.marks: dict[str, tuple[TaskState, TaskState]] = {}
        self.homes: dict[str, tuple[str, int, int]] = {}
        self.world.after_round.append(self.look)

    def look(self, world: World) -> None:
        self.never_too_many(world)
        self.nothing_goes_back(world)
        self.tasks_are_one_shot(world)
        self.deciding_again_settles(world)

    def never_too_many(self, world: World) -> None:
        """In a slot at most one task is wanted; with start-first two while the one replaces the other."""
        most = 2 if self.config.order is UpdateOrder.START_FIRST else 1
        # A task on a dead node may say RUNNING for ever: nobody can correct it.
        alive = [t for t in world.tasks("web") if t.node_id not in world.dead]
        runs = Counter(t.slot for t in alive if TaskState.STARTING <= t.state <= TaskState.RUNNING)
        wanted = Counter(t.slot for t in world.tasks("web") if t.is_live and t.desired_state is TaskState.RUNNING)
        assert all(count <= most for count in runs.values()), f"{runs} run"
        assert all(count <= most for count in wanted.values()), f"{wanted} are wanted"

    def nothing_goes_back(self, world: World) -> None:
        """Swarm mistake 1."""
        for task in world.tasks("web"):
            state, desired = self.marks.get(task.id, (task.state, task.desired_state))
            assert task.state >= state
            assert task.desired_state >= desired
            self.marks[task.id] = (task.state, task.desired_state)

    def tasks_are_one_shot(self, world: World) -> None:
        """Swarm mistake 20: a restart or an update is another task; one never changes what it runs, or where."""
        for task in world.tasks("web"):
            node_id = self.homes.get(task.id, ("", 0, 0))[0] or task.node_id
            what = (node_id, task.slot, task.spec_version)
            assert (task.node_id, task.slot, task.spec_version) == what
            assert self.homes.get(task.id, what)[1:] == what[1:]
            self.homes[task.id] = what

    def deciding_again_settles(self, world: World) -> None:
        """Swarm mistake 34: a new leader that sees the same decides nothing twice."""
        seen, created = world.seen, Counter[tuple[int, int]]()
        for n in range(FIXPOINT_ROUNDS):
            service = seen.service_by_name("web")
            assert service is not None
            plan = reconcile(seen, service, now=world.clock.now(), new_id=counting_ids(f"again{n}.").__next__)
            if not plan.changes:
                return
            for change in plan.changes:
                if isinstance(change, Create) and change.object.id.startswith("again"):
                    assert isinstance(change.object, Task)
                    created[change.object.spec_version, change.object.slot] += 1
            assert all(count <= 1 for count in created.values()), f"slots {created} were filled twice"
            seen = seen.with_changes(plan.changes, version=seen.version + 1)
        raise AssertionError(f"decisions did not settle: {plan.why}")

    def do(self, action: str, number: int) -> None:
        world, node = self.world, f"n{number % 4 + 1}"
        service = world.service("web")
        if action == "kill" and node != "n1" and node not in world.dead:
            world.kill(node)
        elif action == "boot" and node in world.dead:
            world.boot(node)
        elif action == "scale":
            world.scale("web", number % 6)
        elif action == "image":
            template = service.spec.task_template
            container = replace(template.container_spec, image=IMAGES[number % len(IMAGES)])
            world.update(replace(service.spec, task_template=replace(template, container_spec=container)))
        elif action == "fail" and (running := world.running("web")):
            world.fail(running[number % len(running)])
        elif action in ("pause", "resume"):
            try:
                plan = services.hold_update(world.seen, service.id, 0, resume=action == "resume", now=world.clock.now())
            except FailedPrecondition:
                return
            world.apply(plan.changes)
        for _ in range(number % 8):
            world.round()


@settings(max_examples=200, deadline=None)
@given(CONFIGS, STORY)
def test_whatever_happens_no_slot_runs_more_than_its_order_allows_and_nothing_goes_back(config, story):
    watched = Watched(config)
    for action, number in story:
        watched.do(action, number)
    for _ in range(30):
        watched.world.round()
