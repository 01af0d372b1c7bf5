"""The judge of simulated clusters sees each kind of broken promise: a rule that cannot fail would prove nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from lib.builders import a_node, a_revision, a_service, a_task
from lib.cluster_sim.agent import Held
from lib.cluster_sim.judge import InvariantBroken, Judge
from msgspec.structs import replace

from pyswarm.manager.dispatcher.assignments import Assigned
from pyswarm.manager.store.changes import Change, Create, Update
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.manager.store.store import Commit
from pyswarm.proto.model.objects import JobStatus, Move, Node, Service, Task, UpdateStatus
from pyswarm.proto.model.spec import CronSchedule, ReplicatedJob, UpdateConfig
from pyswarm.proto.model.states import (
    Availability,
    Concurrency,
    JobState,
    NodeState,
    TaskState,
    UpdateOrder,
    UpdateState,
)

NOW = 1000.0


def judged(seen: Snapshot, *changes: Change, judge: Judge | None = None) -> None:
    """Have the judge look at a commit of these changes."""
    after, events = seen.step(list(changes), version=seen.version + 1)
    (judge or Judge({})).committed(Commit(after.version, events, after), NOW)


def placed(service: Service, node: Node, *others: Task, on: str = "n1") -> None:
    """Have the judge look at one more task of the service that is put on the node."""
    seen = Snapshot.of(node, service, a_revision(service), *others, version=1)
    judged(seen, Create(a_task("new", service=service, slot=9, node=on, state=TaskState.ASSIGNED, version=0)))


@dataclass
class Containers:
    """An agent as far as the judge looks at it."""

    tasks: dict[str, Held] = field(default_factory=dict)
    outages: Sequence[tuple[float, float | None]] = ()


def started(service: Service, tasks: Sequence[Task], *objects: Node) -> None:
    """Have the judge look at the start of the last of these tasks, while the containers of all run."""
    helds = {t.id: Held(Assigned(t, a_revision(service)), TaskState.RUNNING, is_running=True) for t in tasks}
    judge = Judge({"n1": Containers(helds)})  # type: ignore[dict-item]
    judge.started(helds[tasks[-1].id], Snapshot.of(service, *tasks, *objects, version=1), NOW)


# -- tasks and nodes


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (a_task(state=TaskState.RUNNING), a_task(state=TaskState.STARTING)),
        (a_task(desired=TaskState.SHUTDOWN), a_task(desired=TaskState.RUNNING)),
    ],
)
def test_a_task_that_goes_back(old: Task, new: Task) -> None:
    with pytest.raises(InvariantBroken, match="went back"):
        judged(Snapshot.of(old, version=1), Update(new))


def test_a_node_that_is_declared_down_for_nothing() -> None:
    node = a_node("n1")
    down = replace(node, status=replace(node.status, state=NodeState.DOWN))
    judge = Judge({"n1": Containers()})  # type: ignore[dict-item]
    with pytest.raises(InvariantBroken, match="blip"):
        judged(Snapshot.of(node, version=1), Update(down), judge=judge)
    judge = Judge({"n1": Containers(outages=[(NOW - 10, None)])})  # type: ignore[dict-item]
    judged(Snapshot.of(node, version=1), Update(down), judge=judge)


# -- placements


def test_a_task_on_a_node_that_is_not_there() -> None:
    with pytest.raises(InvariantBroken, match="not there"):
        placed(a_service("web"), a_node("n1"), on="n2")


def test_a_task_on_a_node_that_its_constraint_refuses() -> None:
    service = a_service("web", constraints=("node.labels.zone==a",))
    placed(service, a_node("n1", labels={"zone": "a"}))
    with pytest.raises(InvariantBroken, match="against"):
        placed(service, a_node("n1", labels={"zone": "b"}))


@pytest.mark.parametrize(
    "node", [a_node("n1", availability=Availability.DRAIN), a_node("n1", state=NodeState.DISCONNECTED)]
)
def test_a_task_on_a_node_that_takes_none(node: Node) -> None:
    with pytest.raises(InvariantBroken, match="takes none"):
        placed(a_service("web"), node)


def test_more_reserved_than_a_node_has() -> None:
    service = a_service("web", reserve_cpus=1.5)
    other = a_task("other", service=service, node="n1")
    placed(service, a_node("n1", cpus=3), other)
    with pytest.raises(InvariantBroken, match="more processors"):
        placed(service, a_node("n1", cpus=2), other)


def test_more_replicas_on_a_node_than_may_be() -> None:
    other = a_task("other", node="n1")
    placed(a_service("web", max_replicas=2), a_node("n1"), other)
    with pytest.raises(InvariantBroken, match="2 replicas"):
        placed(a_service("web", max_replicas=1), a_node("n1"), other)


# -- schedules and canaries


def a_cron_job(concurrency: Concurrency, present: JobStatus, *earlier: JobStatus) -> Service:
    schedule = CronSchedule(expression="* * * * *", concurrency=concurrency)
    service = a_service("cron", job=ReplicatedJob(total_completions=1), schedule=schedule)
    return replace(service, job_status=present, runs=earlier)


def a_run(iteration: int, of: float) -> JobStatus:
    return JobStatus(iteration=iteration, state=JobState.RUNNING, started_at=of, scheduled_at=of)


def test_a_moment_of_a_schedule_that_has_two_runs() -> None:
    judge = Judge({})
    first = a_cron_job(Concurrency.ALLOW, a_run(1, of=60.0))
    judged(Snapshot.of(version=1), Create(replace(first, version=0)), judge=judge)
    with pytest.raises(InvariantBroken, match="two runs"):
        judged(Snapshot.of(first, version=1), Update(replace(first, job_status=a_run(2, of=60.0))), judge=judge)


def test_two_active_runs_where_that_is_forbidden() -> None:
    earlier, present = a_run(1, of=60.0), a_run(2, of=120.0)
    judged(Snapshot.of(version=1), Create(replace(a_cron_job(Concurrency.ALLOW, present, earlier), version=0)))
    with pytest.raises(InvariantBroken, match="active at once"):
        judged(Snapshot.of(version=1), Create(replace(a_cron_job(Concurrency.FORBID, present, earlier), version=0)))


@pytest.mark.parametrize(("since", "is_proven"), [(NOW - 60, True), (NOW - 1, False)])
def test_an_update_that_goes_on_before_its_canary_was_watched(since: float, is_proven: bool) -> None:
    update = UpdateConfig(canary=("1",), monitor_seconds=30)
    service = replace(
        a_service("web", replicas=3, update=update, spec_version=2),
        update_status=UpdateStatus(state=UpdateState.UPDATING),
    )
    canary = a_task("canary", service=service, slot=1, since=since)
    second = replace(a_task("second", service=service, slot=2, state=TaskState.NEW, version=0), why="updating to 2")
    seen = Snapshot.of(service, a_revision(service), canary, version=1)
    if is_proven:
        judged(seen, Create(second))
    else:
        with pytest.raises(InvariantBroken, match="goes on"):
            judged(seen, Create(second))


# -- containers


def tasks_of_a_slot(service: Service, count: int) -> list[Task]:
    return [a_task(f"t{n}", service=service, slot=1, node="n1") for n in range(count)]


@pytest.mark.parametrize(("order", "allowed"), [(UpdateOrder.STOP_FIRST, 1), (UpdateOrder.START_FIRST, 2)])
def test_more_containers_of_a_slot_than_the_order_of_its_update_allows(order: UpdateOrder, allowed: int) -> None:
    service = a_service("web", update=UpdateConfig(order=order))
    started(service, tasks_of_a_slot(service, allowed), a_node("n1"))
    with pytest.raises(InvariantBroken, match="slot"):
        started(service, tasks_of_a_slot(service, allowed + 1), a_node("n1"))


def test_more_than_two_containers_of_a_slot_that_is_moved() -> None:
    service = a_service("web", update=UpdateConfig(order=UpdateOrder.STOP_FIRST))
    old, new = tasks_of_a_slot(service, 2)
    moved = replace(new, move=Move("drained"))
    started(service, [old, moved], a_node("n1"))
    with pytest.raises(InvariantBroken, match="slot"):
        started(service, [*tasks_of_a_slot(service, 3), replace(moved, id="t4")], a_node("n1"))


def test_more_tasks_of_a_job_at_work_than_may_be() -> None:
    service = a_service("job", job=ReplicatedJob(total_completions=4, max_concurrent=2))
    at_work = [a_task(f"t{n}", service=service, slot=n) for n in range(3)]
    started(service, at_work[:2])
    with pytest.raises(InvariantBroken, match="work at once"):
        started(service, at_work)


def test_a_slot_of_a_job_that_is_worked_on_twice() -> None:
    service = a_service("job", job=ReplicatedJob(total_completions=4, max_concurrent=4))
    with pytest.raises(InvariantBroken, match="worked on twice"):
        started(service, tasks_of_a_slot(service, 2))
