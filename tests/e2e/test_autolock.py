"""An autolocked cluster of two managers: whose machine was started needs the unlock key, and a rotation is followed."""

import json
from collections.abc import Iterator

import pytest
from lib.cluster import Cluster, daemon_pid

FIRST, SECOND = "w2", "w1"


@pytest.fixture
def locked(cluster: Cluster) -> Iterator[Cluster]:
    """Two of the lab's machines apart from the others, in no cluster; workers of the lab's cluster again afterwards."""
    left = [node["ID"] for node in cluster.nodes() if node["Hostname"] in (FIRST, SECOND)]
    for name in (FIRST, SECOND):
        cluster.lab.host(name).run("pyswarm", "leave", timeout_seconds=60)
    yield cluster
    token = cluster.pyswarm("join-token", "-q", "worker", on="m1").strip()
    for name in (FIRST, SECOND):
        host = cluster.lab.host(name)
        host.run("pyswarm", "leave", "--force", check=False, timeout_seconds=60)
        host.run("pyswarm", "join", "--token", token, f"{cluster.lab.host('m1').address}:2377", timeout_seconds=60)
    # By id, whatever the managers think of them by now: their names are those of the new nodes, too.
    for node_id in left:
        cluster.pyswarm("node", "rm", "--force", node_id, on="m1")


def restarted(cluster: Cluster, name: str) -> None:
    """Pull the plug, boot, and wait until the manager there says that it is locked."""
    cluster.lab.kill(name)
    cluster.lab.boot(name)
    cluster.until(lambda: cluster.info(on=name)["LocalNodeState"] == "locked", f"{name} to be locked", 20)


def unlocked(cluster: Cluster, name: str, key: str) -> bool:
    done = cluster.lab.host(name).run("sh", "-c", f"echo {key} | pyswarm unlock", check=False, timeout_seconds=60)
    assert done.returncode == 0 or (done.returncode == 1 and "does not open this manager's state" in done.stderr)
    return done.returncode == 0


def test_managers_need_the_unlock_key_when_they_are_started_and_follow_its_rotation(locked: Cluster):
    first, second = locked.lab.host(FIRST), locked.lab.host(SECOND)
    said = locked.pyswarm("init", "--autolock", "--advertise-addr", first.address, on=FIRST)
    old = locked.pyswarm("unlock-key", "-q", on=FIRST).strip()
    assert f"\n    {old}\n" in said
    token = locked.pyswarm("join-token", "-q", "manager", on=FIRST).strip()
    locked.pyswarm("join", "--token", token, f"{first.address}:2377", on=SECOND)
    assert sorted(locked.managers_of(SECOND)) == sorted([FIRST, SECOND])

    # The daemon alone is started again by pyswarmd, which holds the key.
    before = daemon_pid(second, "pyswarm-manager")
    second.run("kill", "-9", str(before))
    locked.until(lambda: daemon_pid(second, "pyswarm-manager") != before, "another manager daemon", 20)
    locked.until(lambda: len(locked.managers_of(SECOND)) == 2, "the manager to answer", 20)

    # A manager that joined was wrapped from the beginning; one that is locked says so, and takes no part.
    restarted(locked, SECOND)
    assert "`pyswarm unlock`" in locked.refused("node", "ls", on=SECOND)
    wrong = f"{old[:-2]}{'A' if old[-2] != 'A' else 'B'}{old[-1]}"
    assert not unlocked(locked, SECOND, wrong)
    assert locked.info(on=SECOND)["LocalNodeState"] == "locked"
    assert unlocked(locked, SECOND, old)
    locked.until(lambda: len(locked.managers_of(SECOND)) == 2, "the unlocked manager to answer", 20)

    new = locked.pyswarm("unlock-key", "--rotate", "-q", on=SECOND).strip()
    assert new != old
    for name in (FIRST, SECOND):
        locked.until(lambda name=name: "wrapped anew" in locked.log(name, "pyswarm-manager"), f"{name} to rewrap", 10)
    restarted(locked, FIRST)
    assert not unlocked(locked, FIRST, old)
    assert unlocked(locked, FIRST, new)
    locked.until(lambda: len(locked.managers_of(FIRST)) == 2, "the first manager to answer", 20)

    for host in (first, second):
        written = [f.read_bytes() for f in host.state.rglob("*") if f.is_file() and "pyswarm" in str(f)]
        assert not [content for content in written if old.encode() in content or new.encode() in content]
    assert json.loads(locked.pyswarm("info", "--format", "json", on=FIRST))["LocalNodeState"] == "active"
