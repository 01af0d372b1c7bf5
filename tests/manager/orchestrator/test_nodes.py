"""Nodes that come, move and go: what their tasks, their certificates and their addresses become."""

import pytest
from lib.builders import a_cluster, a_node, a_revision, a_service, a_task
from msgspec.structs import replace

from pyswarm.manager.orchestrator.nodes import keep_addresses, remove_node
from pyswarm.manager.orchestrator.reaper import NODE_GONE_SECONDS, reap
from pyswarm.manager.orchestrator.reconcile import reconcile
from pyswarm.manager.store.changes import Update
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.proto.errors import FailedPrecondition
from pyswarm.proto.model.objects import ManagerStatus, Node, Task
from pyswarm.proto.model.spec import RestartPolicy
from pyswarm.proto.model.states import NodeState, Reachability, RestartCondition, TaskState

NOW = 1_000_000.0


def manager(name: str, addr: str) -> Node:
    return replace(a_node(name), manager_status=ManagerStatus(f"raft-{name}", addr, Reachability.REACHABLE))


def test_the_nodes_of_managers_that_moved_say_where_they_are():
    first, second, worker = manager("m1", "10.0.0.1:2377"), manager("m2", "10.0.0.2:2377"), a_node("w1")
    said = {"raft-m1": "10.0.0.1:2377", "raft-m2": "10.0.0.33:2377", "raft-nobody": "10.0.0.9:2377"}
    (change,) = keep_addresses(Snapshot.of(first, second, worker, version=1), said).changes
    assert isinstance(change, Update)
    moved = manager("m2", "10.0.0.33:2377")
    assert (change.object.id, change.object.manager_status) == (moved.id, moved.manager_status)
    assert keep_addresses(Snapshot.of(first, moved, worker, version=2), said).changes == ()


def test_a_removed_nodes_tasks_and_certificate_go_in_the_plan_that_removes_it():  # swarm mistake 49
    cluster = a_cluster()
    running, ended = a_task("t1", node="n1"), a_task("t2", node="n1", slot=2, state=TaskState.COMPLETE)
    elsewhere = a_task("t3", node="n2", slot=3)
    nodes = [a_node("n1", state=NodeState.DOWN), a_node("n2")]
    before = Snapshot.of(cluster, *nodes, running, ended, elsewhere, version=1)
    after = before.with_changes(remove_node(before, "n1", force=False, now=NOW).changes, version=2)
    assert [n.id for n in after.nodes()] == ["n2"]
    assert {t.id: t.state for t in after.tasks()} == {
        "t1": TaskState.ORPHANED, "t2": TaskState.COMPLETE, "t3": TaskState.RUNNING,
    }  # fmt: skip
    assert after.cluster is not None
    # A certificate issued a moment ago must not get in on its last day either.
    assert after.cluster.blacklist["n1"] > NOW + cluster.spec.node_cert_expiry_seconds


def test_a_node_that_is_up_is_not_removed_without_force():
    seen = Snapshot.of(a_cluster(), a_node("n1"), version=1)
    with pytest.raises(FailedPrecondition, match="is not down"):
        remove_node(seen, "n1", force=False, now=NOW)
    assert remove_node(seen, "n1", force=True, now=NOW).changes


@pytest.mark.parametrize(
    ("state", "is_moved"),
    [
        pytest.param(NodeState.READY, False, id="it is there"),
        pytest.param(NodeState.UNKNOWN, False, id="a new leader has not heard of it yet"),  # swarm mistake 46
        pytest.param(NodeState.DOWN, True, id="it is down"),
        pytest.param(NodeState.DISCONNECTED, True, id="it said goodbye"),
    ],
)
def test_only_a_node_that_is_known_to_be_lost_loses_its_tasks(state: NodeState, is_moved: bool):
    web = a_service("web")
    task = a_task("t1", service=web, node="n1")
    seen = Snapshot.of(a_cluster(), a_node("n1", state=state), a_node("n2"), web, a_revision(web), task, version=1)
    assert bool(reconcile(seen, web, now=NOW, new_id=lambda: "new").changes) is is_moved


def test_how_long_a_node_has_been_gone_is_counted_from_when_it_went_whoever_leads():  # swarm mistake 59
    web = a_service("web", restart=RestartPolicy(condition=RestartCondition.NONE))
    node = a_node("n1", state=NodeState.DOWN)
    node = replace(node, status=replace(node.status, changed_at=NOW))
    lost = a_task("t1", service=web, node="n1", desired=TaskState.SHUTDOWN)
    seen = Snapshot.of(a_cluster(), node, web, a_revision(web), lost, version=1)
    assert reap(seen, "web", now=NOW + NODE_GONE_SECONDS - 1).changes == ()
    (change,) = reap(seen, "web", now=NOW + NODE_GONE_SECONDS + 1).changes
    assert isinstance(change, Update)
    assert isinstance(change.object, Task)
    assert change.object.state is TaskState.ORPHANED
