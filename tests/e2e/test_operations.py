"""What operators do every day: promote and demote, drain, read logs, look at images, and take a manager out."""

import json

from lib.cluster import REGISTRY, SERVICE, Cluster

from pyswarm.deploy.lab.lab import records
from pyswarm.deploy.lab.topology import PREFIX_LENGTH


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


def test_one_command_demotes_every_manager_but_the_last(web: Cluster):
    *others, last = web.managers()
    try:
        # Leadership moves on under the command.
        assert "last manager" in web.refused("node", "demote", *others, last, on=last)
        web.until(lambda: web.managers_of(last) == [last], "one manager to be left", 30)
    finally:
        web.pyswarm("node", "promote", *others, on=last)
        for name in others:
            web.until(lambda name=name: _status(web, name) == "Reachable", f"{name} to be a manager again", 30)
    assert len(web.running()) == 6


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


def test_a_task_has_the_terminal_and_the_log_that_its_service_asks_for(web: Cluster):
    shell = ("--entrypoint", "/bin/sh", f"{REGISTRY}/web:1", "-c", "test -t 1 && echo on a terminal; sleep 600")
    log = ("--log-driver", "local", "--log-opt", "max-size=1m")
    web.pyswarm("service", "create", "--name", "terminal", "-t", *log, *shell)
    web.pyswarm("service", "create", "--name", "mute", "--log-driver", "none", *shell)
    try:
        assert web.pyswarm("service", "logs", "--raw", "terminal").splitlines() == ["on a terminal"]
        said = web.refused("service", "logs", "mute", on=web.leader())
        assert "configured logging driver does not support reading: none" in said
        (replica,) = web.running("terminal")
        events = web.pyswarm("container", "events", "--since", "10m", "--until", "0s", on=replica.host)
        assert f"container start {replica.id}" in events
    finally:
        web.pyswarm("service", "rm", "terminal", "mute")


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


STACK_WITH_FILES = f"""
services:
  reader:
    image: {REGISTRY}/web:1
    entrypoint: [/bin/sh, -c, "stat -c '%n %u %a' /run/secrets/key; cat /run/secrets/key /etc/site.conf; sleep 600"]
    user: "7"
    secrets: [{{source: key, uid: "7", mode: 0400}}]
    configs: [{{source: site, target: /etc/site.conf}}]
secrets:
  key: {{file: ./key.txt}}
configs:
  site: {{content: "site content\\n"}}
"""


def test_tasks_see_the_secrets_and_configs_of_their_stack_and_no_disk_does(web: Cluster):
    m1 = web.lab.host("m1")
    m1.run("sh", "-c", f"mkdir -p /tmp/files && cat >/tmp/files/stack.yaml <<'E'\n{STACK_WITH_FILES}\nE")
    m1.run("sh", "-c", "echo hunter2-is-my-secret >/tmp/files/key.txt")
    web.pyswarm("stack", "deploy", "-c", "/tmp/files/stack.yaml", "files", on="m1")
    web.until(lambda: "site content" in web.pyswarm("service", "logs", "files_reader"), "the files to be read", 20)
    said = web.pyswarm("service", "logs", "--raw", "files_reader").splitlines()
    assert said == ["/run/secrets/key 7 400", "hunter2-is-my-secret", "site content"]
    (replica,) = web.running("files_reader")
    m1.run("rm", "-r", "/tmp/files")
    for host in web.lab.hosts:
        where = web.lab.host(host).state
        found = m1.run("grep", "-rl", "hunter2-is-my-secret", f"{where}/var", check=False).stdout.splitlines()
        # Its output is in the task's log, which is where the container wrote it, and nowhere else.
        assert len(found) == (1 if host == replica.host else 0), (host, found)
    assert "in use by the following services: files_reader" in web.refused("secret", "rm", "files_key", on="m1")
    web.pyswarm("stack", "rm", "files")
    assert web.pyswarm("secret", "ls", "-q") == ""


def test_a_stack_is_listed_and_removed_whole(web: Cluster):
    (stack,) = records(web.pyswarm("stack", "ls", "--format", "json"))
    assert stack["Name"] == "web"
    assert SERVICE in web.pyswarm("stack", "services", "web", "--format", "{{.Name}}")
    assert len(web.pyswarm("stack", "ps", "web", "-q").split()) >= 6
    web.remove_web()
    assert web.pyswarm("service", "ls", "-q").strip() == ""


def test_the_leaders_machine_gets_another_address_and_is_found_there(web: Cluster):
    name = web.leader()
    machine = web.lab.host(name)
    old, new = machine.address, machine.address.rpartition(".")[0] + ".200"
    containers = web.containers(machine)
    other = next(manager for manager in web.managers() if manager != name)
    assert "not this machine's node" in web.refused("node", "update", "--advertise-addr", new, other, on=name)
    try:
        _move(web, name, old, new)
        web.until(lambda: _addresses(web, name, on=other) == (f"{new}:7946", f"{new}:2377"), "others to know", 30)
        web.pyswarm("raft", "rotate-key", on=name)
        assert web.containers(machine) == containers
        # It is needed for a majority now, and the workers and the others find it when it leads.
        third = next(manager for manager in web.managers() if manager not in (name, other))
        web.lab.kill(third)
        # The third may have been the leader.
        update = ("service", "update", "-d", "--label-add", "moved=yes", SERVICE)
        web.until(lambda: web.pyswarm(*update, on=name) is not None, "a write by the two", 30)
        web.until(lambda: len(web.running()) == 6, "six replicas on what is left", 60)
        web.lab.boot(third)
        # Who was away when it moved is told.
        web.until(lambda: _addresses(web, name, on=third) == (f"{new}:7946", f"{new}:2377"), f"{third} to know", 30)
    finally:
        _move(web, name, new, old)
    web.until(lambda: _addresses(web, name, on=other) == (f"{old}:7946", f"{old}:2377"), "it to be back", 30)


def _move(cluster: Cluster, name: str, old: str, new: str) -> None:
    machine = cluster.lab.host(name)
    machine.run("sysctl", "-q", "-w", "net.ipv4.conf.eth0.promote_secondaries=1")
    machine.run("ip", "address", "add", f"{new}/{PREFIX_LENGTH}", "dev", "eth0")
    machine.run("ip", "address", "del", f"{old}/{PREFIX_LENGTH}", "dev", "eth0")
    machine.run("pyswarm", "node", "update", "--advertise-addr", new, "self", timeout_seconds=180)


def _addresses(cluster: Cluster, name: str, *, on: str) -> tuple[str, str]:
    """Return where one manager looks for another one: raft, and the API."""
    status = json.loads(cluster.pyswarm("raft", "status", "--format", "json", on=on))
    member = next(m for m in status["Members"] if m["Hostname"] == name)
    (node,) = json.loads(cluster.pyswarm("node", "inspect", name, on=on))
    return member["RaftAddr"], node["ManagerStatus"]["Addr"]
