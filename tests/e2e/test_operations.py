"""What operators do every day: promote and demote, drain, read logs, look at images, and take a manager out."""

import json

from lib.cluster import REGISTRY, SERVICE, Cluster

from pyswarm.deploy.lab.lab import records


def _status(cluster: Cluster, host: str) -> str:
    return next(node["ManagerStatus"] for node in cluster.nodes() if node["Hostname"] == host)


def test_a_worker_is_promoted_and_demoted_and_its_tasks_stay(web: Cluster):
    before = {r.id for r in web.running()}
    web.pyswarm("node", "promote", "w1")
    web.until(lambda: _status(web, "w1") == "Reachable", "w1 to be a manager", 30)
    # It answers as a manager does, also for what only the leader may do.
    web.until(lambda: bool(web.nodes(on="w1")), "w1 to answer", 20)
    web.pyswarm("node", "demote", "w1")
    web.until(lambda: _status(web, "w1") == "", "w1 to be a worker again", 30)
    web.until(lambda: "manager" in web.refused("node", "ls", on="w1"), "w1 to stop answering", 20)
    assert {r.id for r in web.running()} == before


def test_the_leader_can_be_demoted_and_promoted_again(web: Cluster):
    leader = web.leader()
    web.pyswarm("node", "demote", leader)
    web.until(lambda: _status(web, leader) == "", f"{leader} to be a worker", 30)
    assert web.leader() != leader
    web.pyswarm("node", "promote", leader)
    web.until(lambda: _status(web, leader) == "Reachable", f"{leader} to be a manager again", 30)


def test_a_drained_node_is_left_and_comes_back(web: Cluster):
    web.pyswarm("node", "update", "--availability", "drain", "w2")
    try:
        web.until(lambda: len(web.running()) == 6 and all(r.host != "w2" for r in web.running()), "w2 to be left", 30)
    finally:
        web.pyswarm("node", "update", "--availability", "active", "w2")
    web.until(lambda: not web.containers(web.lab.host("w2")), "its containers to be gone", 30)


def test_logs_come_from_every_node(web: Cluster):
    lines = web.pyswarm("service", "logs", SERVICE).splitlines()
    hosts = {replica.host for replica in web.running()}
    assert all(any(host in line for line in lines) for host in hosts), lines
    assert all("serving on" in line for line in lines if "web 1" in line)


def test_images_info_and_version_tell_what_there_is(web: Cluster):
    host = next(r.host for r in web.running())
    images = records(web.pyswarm("image", "ls", "--format", "json", on=host))
    assert any(image["Repository"] == f"{REGISTRY}/web" for image in images)
    info = json.loads(web.pyswarm("info", "--format", "json", on="m1"))
    assert all(daemon["Running"] for daemon in info["Daemons"])
    assert "0.1.0" in web.pyswarm("version", on="m1")
    assert "used" in web.refused("image", "rm", f"{REGISTRY}/web:1", on=host)


def test_a_service_of_its_own_is_created_scaled_and_removed(web: Cluster):
    web.pyswarm(
        "service",
        "create",
        "--name",
        "solo",
        "--replicas",
        "2",
        "--constraint",
        "node.role==worker",
        f"{REGISTRY}/web:1",
    )
    assert {r.host[0] for r in web.running("solo")} == {"w"}
    web.pyswarm("service", "scale", "solo=3")
    assert len(web.running("solo")) == 3
    taken = web.refused("service", "create", "--name", "thief", "--publish", "8080:80", f"{REGISTRY}/web:1", on="m1")
    assert "8080" in taken
    web.pyswarm("service", "rm", "solo")
    web.until(lambda: "solo" not in web.pyswarm("service", "ls", "--format", "{{.Name}}"), "it to be gone", 10)


def test_a_job_runs_to_completion_and_a_failing_one_says_so(web: Cluster):
    job = ("service", "create", "--mode", "replicated-job", "--replicas", "4", "--max-concurrent", "2")
    done = web.pyswarm(*job, "--name", "sums", "--entrypoint", "/bin/true", f"{REGISTRY}/web:1")
    assert "job complete" in done
    listed = web.pyswarm("service", "ls", "--filter", "name=sums", "--format", "{{.Mode}} {{.Replicas}}")
    assert listed == "replicated job 0/0 (4/4 completed)\n"
    broken = web.refused(
        *("service", "create", "--mode", "global-job", "--name", "broken", "--restart-max-attempts", "1"),
        *("--restart-delay", "100ms", "--entrypoint", "/bin/false", f"{REGISTRY}/web:1"),
        on="m1",
    )
    assert "the job failed" in broken
    assert "non-zero exit (1)" in broken
    web.pyswarm("service", "rm", "sums", "broken")


def test_a_stack_is_listed_and_removed_whole(web: Cluster):
    (stack,) = records(web.pyswarm("stack", "ls", "--format", "json"))
    assert stack["Name"] == "web"
    assert SERVICE in web.pyswarm("stack", "services", "web", "--format", "{{.Name}}")
    assert len(web.pyswarm("stack", "ps", "web", "-q").split()) >= 6
    web.remove_web()
    assert web.pyswarm("service", "ls", "-q").strip() == ""
