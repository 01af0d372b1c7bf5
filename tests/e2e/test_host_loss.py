"""Hosts that lose power: workers, the leader, and every manager's daemon at once."""

import json
import signal
import time

from lib.cluster import SERVICE, Cluster, by_host, daemon_pid


def test_replicas_of_a_killed_worker_run_elsewhere_within_ten_seconds_and_nothing_is_doubled_on_its_return(
    web: Cluster, record_property
):
    victim = max((h for h in by_host(web.running()) if h.startswith("w")), key=by_host(web.running()).__getitem__)
    before = {replica.id for replica in web.running() if replica.host != victim}

    web.lab.kill(victim)
    seconds = web.until(
        lambda: len([r for r in web.running() if r.host != victim]) == 6, "six replicas on other hosts", 10
    )
    record_property("worker_loss_seconds", round(seconds, 2))
    survivors = web.running()
    assert before <= {replica.id for replica in survivors}, "a replica on a live node was moved"

    web.lab.boot(victim)
    web.recover()
    web.until(lambda: not web.containers(web.lab.host(victim)), f"{victim} to be rid of its old containers", 20)
    assert {r.id for r in web.running()} == {r.id for r in survivors}
    # Nothing of the dead containers is left on its disk or in its kernel.
    web.until(lambda: _leftovers(web, victim) == [], f"{victim}'s leftovers to go", 20)


def _leftovers(cluster: Cluster, name: str) -> list[str]:
    host = cluster.lab.host(name)
    wanted = {r.id for r in cluster.running() if r.host == name}
    namespaces = host.run("ls", str(host.state / "run/pyswarm/netns"), check=False).stdout.split()
    return [n for n in namespaces if n not in wanted]


def test_another_manager_acknowledges_a_write_within_five_seconds_of_the_leaders_death(web: Cluster, record_property):
    leader = web.leader()
    other = next(h.name for h in web.up() if h.plan.is_manager and h.name != leader)
    before = {r.id: r.host for r in web.running()}

    web.lab.kill(leader)
    started = time.monotonic()
    web.until(lambda: bool(web.pyswarm("service", "scale", "-d", f"{SERVICE}=7", on=other)), "an acknowledged write", 5)
    record_property("leader_loss_write_seconds", round(time.monotonic() - started, 2))

    web.until(lambda: len(web.running(on=other)) == 7, "seven replicas", 30)
    after = {r.id: r.host for r in web.running(on=other)}
    moved = {task for task, host in before.items() if host != leader and after.get(task) != host}
    assert not moved, "a task of a live node was moved"

    web.lab.boot(leader)
    web.recover()
    web.until(
        lambda: web.info(leader)["AppliedVersion"] >= web.info(other)["AppliedVersion"] - 5, f"{leader} to catch up", 30
    )


def test_killing_every_manager_at_once_loses_no_object_and_touches_no_container(web: Cluster):
    managers = [h for h in web.up() if h.plan.is_manager]
    objects = _objects(web)
    containers = {host.name: web.containers(host) for host in web.up()}
    assert sum(map(len, containers.values())) == 6

    # One signal to each daemon, from their own hosts, with nothing in between.
    pids = {host.name: daemon_pid(host, "pyswarm-manager") for host in managers}
    for host in managers:
        host.run("kill", f"-{signal.SIGKILL.value}", str(pids[host.name]))

    web.until(lambda: _objects(web) == objects, "every object to be there again", 60)
    web.recover()
    assert {host.name: web.containers(host) for host in web.up()} == containers
    assert all(daemon_pid(host, "pyswarm-manager") != pids[host.name] for host in managers)
    assert len(web.running()) == 6


def _objects(cluster: Cluster) -> dict[str, object]:
    """What a user can see of the store, without what observation alone changes."""
    services = json.loads(cluster.pyswarm("service", "inspect", SERVICE))
    tokens = [cluster.pyswarm("join-token", "-q", role) for role in ("worker", "manager")]
    return {
        "spec": services[0]["Spec"],
        "tasks": sorted((r.id, r.host, r.desired) for r in cluster.replicas()),
        "nodes": sorted(n["ID"] for n in cluster.nodes()),
        "tokens": tokens,
    }


def test_containers_survive_the_death_of_every_daemon_of_their_host(web: Cluster):
    host = web.lab.host(next(r.host for r in web.running() if r.host.startswith("w")))
    containers = web.containers(host)
    tasks = {r.id for r in web.running() if r.host == host.name}
    assert tasks == set(containers)

    script = "for p in $(ps -eo pid,args | awk '/pyswarm/ && !/awk/ && !/init.py/ {print $1}'); do kill -9 $p; done"
    host.run("sh", "-c", script, check=False)

    assert web.containers(host) == containers, "a container died with the daemons"
    web.until(lambda: _daemons_run(web, host.name), "the daemons to be back", 30)
    web.recover()
    assert web.containers(host) == containers
    assert {r.id for r in web.running() if r.host == host.name} == tasks
    # Adopted, not merely alive: stopping them still works.
    web.pyswarm("service", "scale", f"{SERVICE}=0")
    web.until(lambda: not web.containers(host), "the adopted containers to stop", 30)


def _daemons_run(cluster: Cluster, host: str) -> bool:
    return all(d["Running"] for d in cluster.info(host)["Daemons"])
