"""Placing, moving and explaining on real nodes: drain without an outage, rebalance, plan, rollback, why."""

import json
import threading
from collections.abc import Iterator

import pytest
from lib.cluster import REGISTRY, SERVICE, Cluster, by_host


@pytest.fixture
def solo(web: Cluster) -> Iterator[Cluster]:
    """The lab with a service `solo` to be created by the test, and taken away afterwards."""
    yield web
    if "solo" in web.pyswarm("service", "ls", "--format", "{{.Name}}").split():
        web.pyswarm("service", "rm", "solo")
        web.until(lambda: "solo" not in web.pyswarm("service", "ls", "--format", "{{.Name}}"), "solo to be gone", 20)


def test_a_drain_waits_and_never_runs_fewer_than_wanted(web: Cluster):
    fewest, done = [6], threading.Event()

    def watch() -> None:
        while not done.is_set():
            fewest.append(len(web.running()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        web.pyswarm("node", "update", "--availability", "drain", "--wait", "w2", on="m1")
        assert all(r.host != "w2" for r in web.running())
        assert not web.containers(web.lab.host("w2"))
    finally:
        done.set()
        watcher.join()
        web.pyswarm("node", "update", "--availability", "active", "w2")
    assert min(fewest) >= 6
    moved = web.pyswarm("why", f"{SERVICE}.1")
    assert "running" in moved
    # After another test's update the deployment was one, too: its last tasks may still have to prove stable.
    web.until(lambda: '"updating"' not in web.pyswarm("service", "inspect", SERVICE), "the update to end", 30)
    web.pyswarm("service", "rebalance", SERVICE)
    spread = by_host(web.running())
    assert max(spread.values()) - min(spread.get(name, 0) for name in web.lab.hosts) <= 1


def test_affinity_keeps_services_apart_and_why_says_so(solo: Cluster):
    create = ("service", "create", "--name", "solo", "--replicas", "6", "--affinity", "service!=solo", "-d")
    solo.pyswarm(*create, f"{REGISTRY}/web:1")
    solo.until(lambda: len(solo.running("solo")) == 5, "one task on every node", 30)
    assert set(by_host(solo.running("solo")).values()) == {1}
    waiting = next(r for r in solo.replicas("solo") if not r.is_running)
    told = json.loads(solo.pyswarm("why", "--format", "json", waiting.name))
    assert "service affinity not satisfied on 5 nodes" in told["state"]
    assert sorted(told["groups"][0]["nodes"]) == sorted(solo.lab.hosts)
    assert any("affinity-rm" in remedy for remedy in told["remedies"])


def test_bin_packing_fills_one_node(solo: Cluster):
    create = ("service", "create", "--name", "solo", "--replicas", "3", "--strategy", "binpack")
    solo.pyswarm(*create, "--reserve-memory", "8M", f"{REGISTRY}/web:1")
    assert len(by_host(solo.running("solo"))) == 1


STACK = """services:
  web: {{image: "{image}", deploy: {{replicas: {replicas}, update_config: {{monitor: 0s, parallelism: 0}}}}}}
"""


def test_a_stack_is_foreseen_deployed_and_rolled_back(web: Cluster):
    m1 = web.lab.host("m1")

    def write(replicas: int) -> None:
        text = STACK.format(image=f"{REGISTRY}/web:1", replicas=replicas)
        m1.run("sh", "-c", f"cat >/tmp/shop.yaml <<'E'\n{text}\nE")

    write(2)
    plan = web.pyswarm("stack", "plan", "-c", "/tmp/shop.yaml", "shop", on="m1")
    assert "2 tasks would start; 0 would stop. Nothing has been done." in plan
    foreseen = {line.split()[0]: line.split()[-1] for line in plan.splitlines() if line.startswith("    shop_web.")}
    web.pyswarm("stack", "deploy", "-c", "/tmp/shop.yaml", "shop", on="m1")
    assert {r.name: r.host for r in web.running("shop_web")} == foreseen
    write(4)
    web.pyswarm("stack", "deploy", "-c", "/tmp/shop.yaml", "shop", on="m1")
    assert len(web.running("shop_web")) == 4
    web.pyswarm("stack", "rollback", "shop", on="m1")
    assert len(web.running("shop_web")) == 2
    web.pyswarm("stack", "rm", "shop", on="m1")
    m1.run("rm", "/tmp/shop.yaml")
