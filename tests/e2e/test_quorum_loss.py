"""The quorum is gone for good: one manager goes on alone with everything, and the others join it anew."""

import json

from lib.cluster import SERVICE, Cluster


def _rejoin(cluster: Cluster, host: str, first: str) -> None:
    """Have a machine whose node was removed leave, and join again as a manager."""
    machine = cluster.lab.host(host)
    machine.run("pyswarm", "leave", "--force", timeout_seconds=90)
    token = cluster.pyswarm("join-token", "-q", "manager", on=first).strip()
    machine.run("pyswarm", "join", "--token", token, f"{cluster.lab.host(first).address}:2377", timeout_seconds=90)


def _says_that_it_was_removed(cluster: Cluster, name: str) -> bool:
    done = cluster.lab.host(name).run("pyswarm", "node", "ls", check=False, timeout_seconds=60)
    return done.returncode == 1 and "was removed from the cluster" in done.stderr and "pyswarm leave" in done.stderr


def test_a_manager_that_is_left_makes_a_cluster_of_its_own_and_tasks_run_on(web: Cluster):
    survivor = web.leader()
    lost = [name for name in web.managers() if name != survivor]
    web.pyswarm("node", "update", "--label-add", "zone=a", "w1")
    tokens = {role: web.pyswarm("join-token", "-q", role) for role in ("worker", "manager")}
    assert "have a quorum" in web.refused("init", "--force-new-cluster", on=survivor)
    assert "not a manager" in web.refused("init", "--force-new-cluster", on="w1")
    kept = {r.id for r in web.running() if r.host not in lost}

    status = json.loads(web.pyswarm("raft", "status", "--format", "json", on=lost[0]))
    assert (status["Quorum"], status["FaultTolerance"], status["LeaderHostname"]) == ("held", 1, survivor)
    assert {m["Hostname"]: m["Voter"] for m in status["Members"]} == dict.fromkeys(web.managers(), True)

    for name in lost:
        web.lab.kill(name)

    said = web.refused("raft", "status", on=survivor)
    assert "1 of 3 managers answer and 2 are needed" in said
    assert all(name in said for name in lost)

    def is_refused() -> bool:
        return "majority" in web.refused("service", "scale", "-d", f"{SERVICE}=7", on=survivor)

    web.until(is_refused, "writes to be refused", 10)

    said = web.pyswarm("init", "--force-new-cluster", on=survivor, timeout_seconds=90)
    assert f"Removed: {', '.join(sorted(lost))}." in said
    assert web.managers() == [survivor]
    assert {role: web.pyswarm("join-token", "-q", role, on=survivor) for role in tokens} == tokens
    web.until(lambda: len(web.running(on=survivor)) == 6, "six replicas on what is left", 30)
    assert kept <= {r.id for r in web.running(on=survivor)}, "a task of a live node was touched"
    assert '"zone": "a"' in web.pyswarm("node", "inspect", "w1", on=survivor)
    web.pyswarm("service", "scale", f"{SERVICE}=7", on=survivor)

    # The others come back as if nothing had happened. They are a majority of what they know, and may lead each other
    # for a moment; the manager that is left tells them that they were removed.
    for name in lost:
        web.lab.boot(name)
    for name in lost:
        web.until(lambda name=name: _says_that_it_was_removed(web, name), f"{name} to know that it was removed", 30)
        assert "removed from the cluster" in web.refused("raft", "status", on=name)
    assert {n["Hostname"] for n in web.nodes(on=survivor)} == {survivor, "w1", "w2"}
    assert len(web.running(on=survivor)) == 7

    for name in lost:
        _rejoin(web, name, survivor)
    web.until(lambda: sorted(web.managers()) == sorted([survivor, *lost]), "three managers again", 60)
    web.pyswarm("service", "scale", f"{SERVICE}=6")
