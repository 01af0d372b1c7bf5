"""Managers that have moved: their nodes say where they are, and nothing else changes."""

from lib.builders import a_node
from msgspec.structs import replace

from pyswarm.manager.orchestrator.nodes import keep_addresses
from pyswarm.manager.store.changes import Update
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.proto.model.objects import ManagerStatus, Node
from pyswarm.proto.model.states import Reachability


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
