"""`why`, `stack plan` and `stack rollback` against a whole manager in memory."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lib.builders import a_node
from lib.live_manager import LiveManager, live_manager

SHOP = """services:
  web: {{image: "r/web:{version}", deploy: {{replicas: {replicas}, update_config: {{monitor: 0s, parallelism: 0}}}}}}
  db: {{image: "r/db:1"}}
"""


@pytest.fixture
def manager(pyswarm: Any) -> Iterator[LiveManager]:
    with live_manager(pyswarm.paths.manager_socket) as live:
        live.add(a_node("n1"), a_node("n2", labels={"disk": "ssd"}))
        yield live


def stack_file(tmp_path: Path, version: int = 1, replicas: int = 2) -> str:
    path = tmp_path / "shop.yaml"
    path.write_text(SHOP.format(version=version, replicas=replicas))
    return str(path)


def test_why_explains_a_task_a_service_and_a_node(pyswarm: Any, manager: LiveManager):
    pyswarm.ok("service", "create", "-d", "--name", "web", "--replicas", "2", "r/web:1")
    manager.until(lambda: len(manager.running("web")) == 2)
    pyswarm.ok("service", "create", "-d", "--name", "far", "--constraint", "node.labels.disk==tape", "r/far:1")
    manager.until(lambda: any(t.status.err for t in manager.seen.tasks()))
    task = pyswarm.ok("why", "web.1")
    assert "running on n" in task
    assert "2 replicas are wanted (index " in task
    assert "assigned to node n" in task
    service = pyswarm.ok("why", "far")
    assert service.startswith("Service far (")
    assert "node.labels.disk==tape" in service
    assert "pyswarm node update --label-add disk=tape n1" in service
    node = pyswarm.ok("why", "n2")
    assert "Node n2 (n2): ready, availability active" in node
    assert "far.1 waits for a node; refused here by constraints" in node
    told = json.loads(pyswarm.ok("why", "--format", "json", "far"))
    assert told["groups"][0]["nodes"] == ["n1", "n2"]
    assert "no task, service or node is called nobody" in pyswarm.fails("why", "nobody")


def test_a_plan_tells_what_a_deploy_would_do_and_does_nothing(pyswarm: Any, manager: LiveManager, tmp_path: Path):
    text = pyswarm.ok("stack", "plan", "-c", stack_file(tmp_path), "shop")
    assert "Service shop_web: create" in text
    assert "shop_web.2  -> n" in text
    assert text.rstrip().endswith("3 tasks would start; 0 would stop. Nothing has been done.")
    assert not list(manager.seen.services())
    pyswarm.ok("stack", "deploy", "-d", "-c", stack_file(tmp_path), "shop")
    manager.until(lambda: len(manager.running("shop_web")) == 2 and len(manager.running("shop_db")) == 1)
    assert "Nothing would change." in pyswarm.ok("stack", "plan", "-c", stack_file(tmp_path), "shop")
    changed = pyswarm.ok("stack", "plan", "-c", stack_file(tmp_path, version=2, replicas=3), "shop")
    assert "task_template.container_spec.image: r/web:1 -> r/web:2" in changed
    assert "Service shop_db is" not in changed
    assert "3 tasks would start; 2 would stop" in changed
    told = json.loads(pyswarm.ok("stack", "plan", "--format", "json", "-c", stack_file(tmp_path, 2), "shop"))
    assert told["services"][0]["change"]["action"] == "updated"


def test_a_rollback_brings_the_stack_back_and_follows_it(pyswarm: Any, manager: LiveManager, tmp_path: Path):
    deploy = ("stack", "deploy", "-d", "-c")
    pyswarm.ok(*deploy, stack_file(tmp_path), "shop")
    assert "was deployed once" in pyswarm.fails("stack", "rollback", "shop")
    pyswarm.ok(*deploy, stack_file(tmp_path, version=2, replicas=3), "shop")
    manager.until(lambda: len(manager.running("shop_web")) == 3)
    out = pyswarm.ok("stack", "rollback", "shop")
    assert "Updating service shop_web" in out
    assert len(manager.running("shop_web")) == 2
    service = manager.seen.service_by_name("shop_web")
    assert service is not None
    assert service.spec.task_template.container_spec.image == "r/web:1"
