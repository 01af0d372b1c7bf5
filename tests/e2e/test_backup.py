"""A backup of the running cluster, restored on a machine that has nothing."""

import pytest
from lib.cluster import SERVICE, Cluster


@pytest.fixture
def machine(web: Cluster):
    """The name of a machine that belongs to no cluster, until the test is over."""
    web.lab.host("w2").run("pyswarm", "leave", timeout_seconds=60)
    yield "w2"
    web.lab.host("w2").run("pyswarm", "leave", "--force", check=False, timeout_seconds=60)
    token = web.pyswarm("join-token", "-q", "worker", on="m1").strip()
    web.lab.host("w2").run("pyswarm", "join", "--token", token, f"{web.lab.host('m1').address}:2377")
    for node in web.nodes(on="m1"):
        if node["Hostname"] == "w2" and node["Status"] != "Ready":
            web.pyswarm("node", "rm", "--force", node["ID"], on="m1")


def test_a_backup_is_restored_with_everything_in_it_and_nothing_else_opens_it(web: Cluster, machine: str):
    m1, w2 = web.lab.host("m1"), web.lab.host(machine)
    m1.run("sh", "-c", "echo hunter2 | pyswarm secret create key -")
    file, key_file = (str(m1.state.parent / name) for name in ("backup", "backup.key"))
    tokens = web.pyswarm("join-token", "-q", "worker", on="m1")
    assert "Wrote" in web.pyswarm("backup", "--key-file", key_file, file, on="m1")

    m1.run("sh", "-c", f"head -c 1000 {file} > {file}.cut; pyswarm backup --key-file {key_file}.other {file}.other")
    assert "cut short" in web.refused("restore", "--key-file", key_file, f"{file}.cut", on=machine)
    assert "another key" in web.refused("restore", "--key-file", f"{key_file}.other", file, on=machine)
    assert "already part of a cluster" in web.refused("restore", "--key-file", key_file, file, on="m2")
    assert "not a swarm manager" in web.refused("node", "ls", on=machine)

    said = w2.run("pyswarm", "restore", "--key-file", key_file, file, timeout_seconds=90).stdout
    assert "Removed: m1, m2, m3." in said
    assert web.managers_of(machine) == [machine]
    assert web.pyswarm("join-token", "-q", "worker", on=machine) == tokens
    assert web.pyswarm("secret", "ls", "--format", "{{.Name}}", on=machine).strip() == "key"
    assert SERVICE in web.pyswarm("service", "ls", "--format", "{{.Name}}", on=machine)
    # It decides: what ran on managers that are gone is placed here.
    web.until(lambda: len([r for r in web.running(on=machine) if r.host == machine]) >= 1, "tasks to run here", 30)
    # The cluster the backup is of has noticed nothing.
    assert len(web.managers()) == 3
    web.pyswarm("secret", "rm", "key", on="m1")
