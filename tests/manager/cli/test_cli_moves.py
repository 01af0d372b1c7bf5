"""`node update --availability drain --wait` and `service rebalance` against a whole manager in memory."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from lib.builders import a_node
from lib.live_manager import LiveManager, live_manager

from pyswarm.proto.model.spec import MoveConfig
from pyswarm.proto.model.states import UpdateOrder


@pytest.fixture
def manager(pyswarm: Any) -> Iterator[LiveManager]:
    with live_manager(pyswarm.paths.manager_socket) as live:
        live.add(a_node("n1"), a_node("n2"))
        yield live


def create(pyswarm: Any, manager: LiveManager, replicas: int, *flags: str) -> None:
    pyswarm.ok("service", "create", "-d", "--name", "web", "--replicas", str(replicas), *flags, "r/web:1")
    manager.until(lambda: bool(manager.seen.service_by_name("web")) and len(manager.running("web")) == replicas)


def where(manager: LiveManager) -> Counter[str]:
    return Counter(t.node_id for t in manager.running("web"))


def test_a_drain_waits_until_nothing_is_left(pyswarm: Any, manager: LiveManager):
    create(pyswarm, manager, 4)
    said = pyswarm.run("node", "update", "--availability", "drain", "--wait", "n1")
    assert (said.status, said.out) == (0, "n1\n")
    assert said.err.endswith("n1: no task is left\n")
    assert where(manager) == {"n2": 4}


def test_a_drain_tells_what_the_tasks_wait_for_and_ends_with_its_timeout(pyswarm: Any, manager: LiveManager):
    create(pyswarm, manager, 2, "--replicas-max-per-node", "1")
    said = pyswarm.run("node", "update", "--availability", "drain", "--drain-timeout", "1s", "--wait", "n1")
    assert said.status == 0
    assert "web." in said.err
    assert "waits: no suitable node (" in said.err
    assert where(manager) == {"n2": 1}


def test_waiting_goes_with_draining_only(pyswarm: Any, manager: LiveManager):
    said = pyswarm.run("node", "update", "--wait", "--label-add", "a=b", "n1")
    assert said.status != 0
    assert "--availability drain" in said.err


def test_a_rebalance_moves_what_a_new_node_lacks_and_waits_for_it(pyswarm: Any, manager: LiveManager):
    create(pyswarm, manager, 6)
    assert pyswarm.ok("service", "rebalance") == "Nothing to move: the tasks are spread evenly.\n"
    manager.add(a_node("n3"))
    planned = pyswarm.ok("service", "rebalance", "--dry-run", "web").splitlines()
    assert [line.split("-> ")[1] for line in planned] == ["n3", "n3"]
    assert where(manager) == {"n1": 3, "n2": 3}
    out = pyswarm.ok("service", "rebalance", "web")
    assert out.splitlines()[-1] == "2 of 2 tasks moved"
    assert where(manager) == {"n1": 2, "n2": 2, "n3": 2}


def test_only_what_is_spread_can_be_rebalanced(pyswarm: Any, manager: LiveManager):
    pyswarm.ok("service", "create", "-d", "--name", "all", "--mode", "global", "r/web:1")
    assert "its tasks are not spread" in pyswarm.fails("service", "rebalance", "all")
    pyswarm.ok("service", "create", "-d", "--name", "tight", "--strategy", "binpack", "r/web:1")
    assert "packs its tasks" in pyswarm.fails("service", "rebalance", "tight")


def test_the_budget_is_given_and_shown(pyswarm: Any, manager: LiveManager):
    create(pyswarm, manager, 2, "--move-parallelism", "3", "--move-order", "stop-first", "--rebalance", "auto")
    service = manager.seen.service_by_name("web")
    assert service is not None
    assert service.spec.move_config == MoveConfig(3, UpdateOrder.STOP_FIRST, True)
    shown = pyswarm.ok("service", "inspect", "--pretty", "web")
    assert "MoveConfig:" in shown
    assert "stop-first" in shown
    pyswarm.ok("service", "update", "-d", "--rebalance", "manual", "web")
    changed = manager.seen.service_by_name("web")
    assert changed is not None
    assert changed.spec.move_config == MoveConfig(3, UpdateOrder.STOP_FIRST)
    assert "only replicated services" in pyswarm.fails(
        "service", "create", "-d", "--mode", "global", "--move-parallelism", "1", "r/web:1"
    )
