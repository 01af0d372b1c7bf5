"""An update of the image under a constant load."""

import json
import signal
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

from lib import http_load, observe
from lib.cluster import REGISTRY, SERVICE, Cluster

from pyswarm.deploy.lab import demo

REPLICAS = 6
PARALLELISM = 2


def test_a_rolling_update_replaces_every_replica_in_order_and_keeps_enough_running(web: Cluster, record_property):
    image = demo.push_web_image(web.lab, "2")
    addresses = [host.address for host in web.up()]
    load = subprocess.Popen(
        web.lab.switch.command(sys.executable, http_load.__file__, str(demo.PORT), *addresses),
        stdout=subprocess.PIPE,
        text=True,
    )
    manager = web.lab.host("m1")
    socket = str(manager.state / "run/pyswarm/manager.sock")
    observer = manager.popen(sys.executable, observe.__file__, socket, SERVICE)
    try:
        assert load.stdout is not None
        assert observer.stdout is not None
        assert load.stdout.readline() == "started\n"
        seen = [json.loads(observer.stdout.readline())]
        web.pyswarm(
            "service", "update", "--image", image, "--update-parallelism", str(PARALLELISM), SERVICE,
            on="m1", timeout_seconds=120,
        )  # fmt: skip
    finally:
        _terminate(observer)
        _terminate(load)
    seen += [json.loads(line) for line in observer.stdout.read().splitlines()]
    report = json.loads(load.stdout.read())
    record_property("http_requests", report["requests"])
    record_property("http_failed", len(report["failed"]))

    assert {r.image for r in web.running()} == {image}
    assert len(web.running()) == REPLICAS
    # Each new task went to one of the emptiest hosts.
    assert sorted(Counter(r.host for r in web.running()).values()) == [1, 1, 1, 1, 2]
    assert min(s["running"] for s in seen) >= REPLICAS - PARALLELISM
    assert _order(seen) == sorted(_order(seen)), "slots were not updated in ascending order"
    assert len(_order(seen)) == REPLICAS
    assert report["failed"] == []
    # It was asked all along, and no request hung: the old version answered, and the new one.
    assert report["requests"] > 50
    assert set(report["pages"]) == {"1", "2"}
    assert image.startswith(REGISTRY)


def _order(seen: list[dict]) -> list[int]:
    """The slots in the order in which a task of the new version was wanted for them."""
    order: list[int] = []
    for before, after in pairwise(seen):
        fresh = [
            int(slot) for slot, version in after["wanted"].items() if version > before["wanted"].get(slot, version)
        ]
        order += sorted(slot for slot in fresh if slot not in order)
    return order


def _terminate(process: subprocess.Popen[str]) -> None:
    """nsenter does not hand signals on to a process in another pid namespace's first child, so address the child."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for pid in children or [str(process.pid)]:
        subprocess.run(["kill", f"-{signal.SIGTERM.value}", pid], check=False)
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
