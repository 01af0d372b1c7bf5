"""What `pyswarm why` says of tasks, services and nodes: verdicts by group of nodes, causes, remedies."""

import pytest
from lib.builders import GIB, a_node, a_port, a_revision, a_service, a_service_spec, a_task
from lib.world import World
from msgspec.structs import replace

from pyswarm.manager.api.explain import explain, explanation_message
from pyswarm.manager.cli.view.why import explanation_text
from pyswarm.manager.explain.explanation import Explanation
from pyswarm.manager.explain.verdicts import node_groups, remedies
from pyswarm.manager.scheduler.schedule import schedule
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.proto.errors import InvalidArgument, NotFound
from pyswarm.proto.model.objects import CronStatus
from pyswarm.proto.model.spec import CronSchedule, ReplicatedJob
from pyswarm.proto.model.states import Availability, NodeState, TaskState, UpdateState


def cluster() -> Snapshot:
    web = a_service("web", constraints=("node.labels.zone==a",), reserve_memory_bytes=6 * GIB, max_replicas=1)
    task = a_task("t1", service=web, slot=1, state=TaskState.PENDING)
    small = a_node("small", labels={"zone": "a"}, memory_bytes=2 * GIB)
    paused = a_node("paused", labels={"zone": "a"}, availability=Availability.PAUSE)
    down = a_node("down", labels={"zone": "a"}, state=NodeState.DOWN)
    return Snapshot.of(web, a_revision(web), task, small, paused, down, a_node("n1"), a_node("n2"), version=7)


def test_nodes_with_the_same_verdicts_are_one_group_and_the_nearest_come_first():
    seen = cluster()
    groups = node_groups(seen, seen.revision("web.1"))  # type: ignore[arg-type]
    told = {g.nodes: {v.filter: v.refusal for v in g.verdicts if v.refusal} for g in groups}
    assert told == {
        ("n1", "n2"): {"constraints": "node.labels.zone==a"},
        ("down",): {"ready": "down"},
        ("paused",): {"ready": "pause"},
        ("small",): {"resources": "too little memory"},
    }
    assert groups[0].nodes == ("n1", "n2")


def test_remedies_are_commands_that_help():
    seen = cluster()
    revision = seen.revision("web.1")
    assert revision is not None
    told = " ".join(remedies(seen, revision, node_groups(seen, revision)))
    assert "`pyswarm node update --label-add zone=a n1`" in told
    assert "`pyswarm node update --availability active paused`" in told
    assert "Bring node down back" in told
    assert "Free what is missing on small" in told


def test_the_groups_agree_with_what_the_scheduler_decides():
    seen = cluster()
    assert all(group.refusals for group in node_groups(seen, seen.revision("web.1")))  # type: ignore[arg-type]
    assert all(c.object.state is TaskState.PENDING for c in schedule(seen, seen.tasks(), now=1.0).changes)  # type: ignore[union-attr]


def test_a_cluster_without_nodes_asks_for_one():
    web = a_service("web")
    seen = Snapshot.of(web, a_revision(web), version=1)
    assert "Join a node" in remedies(seen, a_revision(web), node_groups(seen, a_revision(web)))[0]


def test_a_port_and_a_full_node_are_told():
    web = a_service("web", ports=(a_port(8080),), max_replicas=1)
    seen = Snapshot.of(web, a_revision(web), a_task("t1", service=web, node="n1"), a_node("n1"), version=1)
    (group,) = node_groups(seen, a_revision(web))
    assert {v.filter: v.refusal for v in group.verdicts if v.refusal} == {
        "host port": "8080/tcp is taken",
        "max replicas": "has 1 already",
    }


class Told(World):
    """A world whose commits are remembered, as a manager's store does."""

    def __init__(self, nodes: int = 3) -> None:
        self.commits: list[tuple[int, tuple]] = []  # type: ignore[type-arg]
        super().__init__(nodes)

    def apply(self, changes):  # type: ignore[no-untyped-def]
        before = self.seen
        changed = super().apply(changes)
        if changed:
            _, events = before.step(list(changes), version=self.seen.version)
            self.commits.append((self.seen.version, events))
        return changed

    def why(self, name: str) -> Explanation:
        return explain(self.seen, name, self.commits)


def test_a_moved_task_names_the_node_that_was_lost_and_the_index_where():
    world = Told()
    world.create(a_service_spec(replicas=3))
    world.settle()
    victim = next(t for t in world.tasks("web") if t.node_id == "n2")
    world.kill("n2")
    lost_at = world.seen.version
    world.settle()
    replacement = next(t for t in world.running("web") if t.slot == victim.slot)
    told = world.why(replacement.id)
    assert f"created because: node n2 is down (index {lost_at})" in told.facts
    old = world.why(victim.id)
    assert any(f"node n2 is down (index {lost_at})" in step.cause for step in old.steps)
    states = [step.what for step in told.steps]
    assert states[0].startswith("created")
    assert any(what.startswith("assigned to node") for what in states)
    assert states[-1] == "running"
    assert [step.index for step in told.steps] == sorted(step.index for step in told.steps)


def test_what_is_not_remembered_any_more_is_told_from_the_task():
    world = Told()
    world.create(a_service_spec(replicas=2))
    world.settle()
    world.scale("web", 1)
    world.settle()
    world.commits.clear()
    told = world.why("web.1")
    assert [step.what for step in told.steps] == ["created", "running"]
    assert "2 replicas are wanted" in told.steps[0].cause


def test_a_task_that_ended_says_how_and_where_to_read_more():
    world = Told()
    world.create(a_service_spec(image="r/bad:1"))
    world.broken.add("r/bad:1")
    world.round()
    world.round()
    world.round()
    world.round()
    failed = next(t for t in world.tasks("web") if t.state is TaskState.FAILED)
    told = world.why(failed.id)
    assert "non-zero exit (1)" in told.state
    assert told.remedies == ("Read its output: `pyswarm service logs web`.",)


def test_a_service_counts_what_waits_and_what_failed_by_reason():
    seen = cluster()
    told = explain(seen, "web", [])
    assert told.state == "0 of 1 tasks run"
    assert told.facts == ("1 waiting: no reason yet",)
    assert told.remedies
    web = seen.service("web")
    assert web is not None
    paused = replace(web, update_status=replace(web.update_status, state=UpdateState.PAUSED, message="two failed"))
    told = explain(Snapshot.of(paused, a_revision(paused), version=1), "web", [])
    assert "update paused: two failed" in told.facts
    assert "pyswarm service rollback web" in told.remedies[0]


def test_a_node_tells_which_waiting_tasks_it_refuses():
    told = explain(cluster(), "small", [])
    assert told.kind == "node"
    assert told.state == "ready, availability active"
    assert "web.1 waits for a node; refused here by resources (too little memory)" in told.facts


def test_names_that_mean_nothing_or_too_much_are_refused():
    web = a_service("web")
    tasks = [a_task(f"task{n}", service=web, slot=n) for n in (1, 2)]
    seen = Snapshot.of(web, a_revision(web), *tasks, version=1)
    for name, error in (("nothing", NotFound), ("", InvalidArgument), ("task", InvalidArgument)):
        with pytest.raises(error) as raised:
            explain(seen, name, [])
        assert raised.value.remedy  # type: ignore[attr-defined]


def test_the_text_has_the_filters_that_refuse_and_what_would_help():
    text = explanation_text(explanation_message(explain(cluster(), "t1", []), 7), now=10.0)
    assert text.startswith("Task web.1 (t1): pending, to be running")
    head = next(line for line in text.splitlines() if line.startswith("NODES"))
    assert head.split() == ["NODES", "FITS", "READY", "RESOURCES", "CONSTRAINTS"]
    assert "n1, n2" in text
    assert "What would help:" in text


def test_what_is_to_be_moved_and_the_budget_for_it_are_told():
    world = World(nodes=2)
    world.create(a_service_spec(replicas=4, max_replicas=2))
    world.settle()
    world.drain("n1", timeout_seconds=300)
    world.round()
    service = explain(world.seen, "web", [])
    (told,) = [fact for fact in service.facts if "to be moved" in fact]
    assert told.startswith("2 tasks are to be moved, the new one first; at most 1 slots may be disturbed at once")
    assert any(fact.startswith("drained: tasks may stay until 1970-") for fact in explain(world.seen, "n1", []).facts)


def test_a_schedule_tells_when_it_runs_and_why_it_did_not():
    schedule = CronSchedule("0 3 * * *", "Europe/Berlin")
    job = a_service("backup", job=ReplicatedJob(1, 1), schedule=schedule)
    job = replace(job, cron=CronStatus(since=1.0, last_at=3600.0, message="run 1 was still active"))
    told = explain(Snapshot.of(job, a_revision(job), version=1), "backup", [])
    assert "runs at 0 3 * * * (Europe/Berlin)" in told.facts
    assert "no run at 1970-01-01T01:00:00Z: run 1 was still active" in told.facts
    suspended = replace(job, spec=replace(job.spec, schedule=replace(schedule, suspended=True)))
    told = explain(Snapshot.of(suspended, a_revision(suspended), version=1), "backup", [])
    assert "its schedule is suspended" in told.facts
