"""Jobs run to completion: each slot once, no more at a time than allowed, whatever happens to nodes and containers."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from lib.builders import a_service_spec
from lib.world import WORK_SECONDS, World
from msgspec.structs import replace

from pyswarm.manager.orchestrator.reconcile import reconcile
from pyswarm.manager.orchestrator.services import service_counts
from pyswarm.proto.model.objects import Task
from pyswarm.proto.model.spec import GlobalJob, ReplicatedJob, RestartPolicy, ServiceSpec
from pyswarm.proto.model.states import JobState, RestartCondition, TaskState


def sums(total: int = 4, at_once: int = 2, **of_spec: object) -> ServiceSpec:
    return a_service_spec("sums", job=ReplicatedJob(at_once, total), **of_spec)  # type: ignore[arg-type]


def everywhere(**of_spec: object) -> ServiceSpec:
    return a_service_spec("sums", job=GlobalJob(), **of_spec)  # type: ignore[arg-type]


def completed(world: World) -> list[Task]:
    run = world.service("sums").job_status.iteration
    return [t for t in world.tasks("sums") if t.state is TaskState.COMPLETE and t.job_iteration == run]


def state(world: World) -> JobState:
    return world.service("sums").job_status.state


def broken(spec: ServiceSpec, world: World) -> ServiceSpec:
    world.broken.add(spec.task_template.container_spec.image)
    return spec


def start(spec: ServiceSpec, nodes: int = 3) -> World:
    """Create the job and go on until something runs."""
    world = World(nodes=nodes)
    world.create(spec)
    while not world.running("sums"):
        world.round()
    return world


def test_a_job_completes_each_slot_once_with_no_more_at_a_time_than_allowed():
    world = World(nodes=3)
    most = [0]

    def note(world: World) -> None:
        most[0] = max(most[0], sum(t.is_live for t in world.tasks("sums")))
        assert state(world) is not JobState.COMPLETE or len(completed(world)) == 7

    world.after_round.append(note)
    world.create(sums(7, 2))
    world.settle()
    assert sorted(t.slot for t in completed(world)) == [1, 2, 3, 4, 5, 6, 7]
    assert len(world.tasks("sums")) == 7
    assert most == [2]
    assert state(world) is JobState.COMPLETE
    assert world.clock.now() - 1_000_000 < 4 * WORK_SECONDS + 10


def test_max_concurrent_0_runs_all_at_once():
    world = start(sums(5, 0))
    assert service_counts(world.seen, world.service("sums")).desired == 5
    world.settle()
    assert len(completed(world)) == 5


def test_what_is_counted_tells_how_far_a_job_is():
    world = start(sums(3, 2))
    counts = service_counts(world.seen, world.service("sums"))
    assert (counts.running, counts.desired, counts.completed) == (2, 2, 0)
    world.settle()
    counts = service_counts(world.seen, world.service("sums"))
    assert (counts.running, counts.desired, counts.completed) == (0, 0, 3)


def test_a_failed_task_is_run_again_after_its_delay_until_its_attempts_are_used_up():
    world = World(nodes=2)
    policy = RestartPolicy(delay_seconds=30, max_attempts=2)
    world.create(broken(sums(1, 1, restart=policy), world))
    world.settle()
    assert [t.state for t in world.tasks("sums")] == [TaskState.FAILED] * 3
    made = sorted(t.created_at for t in world.tasks("sums"))
    assert all(later - earlier >= 30 for earlier, later in pairwise(made))
    assert state(world) is JobState.FAILED
    assert "2 restarts were tried, which is the limit" in world.service("sums").job_status.message


def test_a_condition_of_any_does_not_run_a_completed_task_again():
    world = World()
    world.create(sums(1, 1, restart=RestartPolicy(RestartCondition.ANY)))
    world.settle()
    assert len(world.tasks("sums")) == 1


def test_a_task_of_a_lost_node_is_run_elsewhere_at_once_and_that_is_no_attempt():  # swarm mistake 29
    world = start(sums(2, 2, restart=RestartPolicy(delay_seconds=60, max_attempts=1)))
    lost = world.running("sums")[0]
    before = world.clock.now()
    world.kill(lost.node_id)
    while not any(t.slot == lost.slot for t in world.running("sums")):
        world.round()
        assert world.clock.now() - before < 2
    world.settle()
    assert state(world) is JobState.COMPLETE
    assert lost.node_id not in {t.node_id for t in completed(world)}


def test_the_work_of_a_drained_node_is_not_done_twice_at_once():
    world = start(sums(1, 1))
    world.after_round.append(lambda w: _at_most_one_at_work(w))
    world.drain(world.running("sums")[0].node_id)
    world.settle()
    assert len(completed(world)) == 1


def test_a_task_that_is_being_stopped_counts_as_one_at_work_until_it_has_stopped():
    world = start(sums(3, 1))
    (first,) = world.running("sums")
    world.drain(first.node_id)
    plan = reconcile(world.seen, world.service("sums"), now=world.clock.now(), new_id=world.new_id)
    world.apply(plan.changes)
    (stopping,) = world.tasks("sums")
    assert (stopping.id, stopping.is_wanted, stopping.state) == (first.id, False, TaskState.RUNNING)
    world.settle()
    assert len(completed(world)) == 3


def _at_most_one_at_work(world: World) -> None:
    assert len([t for t in world.running("sums") if t.slot == 1]) <= 1


def test_each_change_is_a_new_run_whose_earlier_tasks_do_not_count():  # swarm mistake 26
    world = World()
    world.create(sums(2, 2))
    world.settle()
    spec = world.service("sums").spec
    world.update(replace(spec, labels={"why": "again"}))
    assert world.service("sums").job_status.iteration == 2
    assert service_counts(world.seen, world.service("sums")).completed == 0
    world.settle()
    assert (len(completed(world)), len(world.tasks("sums"))) == (2, 4)


def test_a_run_that_is_replaced_while_it_works_is_stopped():
    world = start(sums(2, 2))
    first = {t.id for t in world.running("sums")}
    world.update(replace(world.service("sums").spec, labels={"why": "again"}))
    world.settle()
    ended = {t.id: t.state for t in world.tasks("sums")}
    assert all(ended[id] is TaskState.SHUTDOWN for id in first)
    assert len(completed(world)) == 2


def test_the_history_of_a_job_is_trimmed():  # swarm mistake 30
    world = World()
    world.create(sums(2, 2))
    for run in range(9):
        world.settle()
        world.update(replace(world.service("sums").spec, labels={"run": str(run)}))
    world.settle()
    limit = world.seen.cluster.spec.task_history_retention_limit
    assert len(world.tasks("sums")) == 2 * (limit + 1), "the present run, and the history of each slot"
    assert len(completed(world)) == 2


def test_a_failing_global_job_stops_trying_on_each_node():  # swarm mistake 27
    world = World(nodes=2)
    world.create(broken(everywhere(restart=RestartPolicy(max_attempts=1, delay_seconds=1)), world))
    world.settle()
    assert len(world.tasks("sums")) == 4
    assert state(world) is JobState.FAILED


def test_a_global_job_completes_once_on_each_node_that_is_there_and_on_those_that_come():
    world = World(nodes=3)
    world.kill("n3")
    world.create(everywhere())
    world.settle()
    assert sorted(t.node_id for t in completed(world)) == ["n1", "n2"]
    world.boot("n3")
    world.settle()
    assert sorted(t.node_id for t in completed(world)) == ["n1", "n2", "n3"]


@settings(max_examples=60, deadline=None)
@given(
    total=st.integers(1, 6),
    at_once=st.integers(0, 4),
    blows=st.lists(st.tuples(st.sampled_from(["kill", "boot", "drain", "run"]), st.integers(1, 4)), max_size=12),
)
def test_whatever_happens_to_nodes_each_slot_completes_and_concurrency_is_kept(
    total: int, at_once: int, blows: list[tuple[str, int]]
):
    world = World(nodes=4)
    world.create(sums(total, at_once))
    world.after_round.append(lambda w: _no_more_than(w, at_once or total))
    for blow, number in blows:
        if blow == "run" or number == 4:
            for _ in range(number):
                world.round()
        else:
            getattr(world, blow)(f"n{number}")
    world.settle()
    assert {t.slot for t in completed(world)} == set(range(1, total + 1))
    assert state(world) is JobState.COMPLETE


def _no_more_than(world: World, at_once: int) -> None:
    assert sum(t.is_live for t in world.tasks("sums")) <= at_once
