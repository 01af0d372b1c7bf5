"""New versions of a secret on a cluster, for a service that has them put in place."""

from lib.cluster import Cluster

from pyswarm.deploy.lab import demo

# It says what it holds at first, and again whenever it is told that there is something new.
SCRIPT = 'say() { echo "holds $(cat /run/secrets/key)"; }; trap say HUP; say; while :; do sleep 1; done'


def test_a_new_version_is_put_in_place_and_told_and_no_container_is_restarted(cluster: Cluster):
    image = demo.push_web_image(cluster.lab, "1")
    m1 = cluster.lab.host("m1")
    m1.run("sh", "-c", "printf first >/tmp/key")
    cluster.pyswarm("secret", "create", "key", "/tmp/key", on="m1")
    cluster.pyswarm(
        *("service", "create", "-d", "--name", "steady", "--replicas", "2", "--stop-grace-period", "1s"),
        *("--secret", "source=key,propagation=in-place,signal=SIGHUP", "--entrypoint", "/bin/sh", image, "-c", SCRIPT),
    )

    def said() -> list[str]:
        return sorted(cluster.pyswarm("service", "logs", "--raw", "steady").splitlines())

    cluster.until(lambda: said() == ["holds first"] * 2, "both to hold the first version", 30)
    before = {r.id for r in cluster.running("steady")}
    for content, name in (("second", "key.2"), ("third", "key.3")):
        m1.run("sh", "-c", f"printf {content} >/tmp/key")
        assert name in cluster.pyswarm("secret", "rotate", "-q", "key", "/tmp/key", on="m1")
        cluster.until(lambda c=content: said().count(f"holds {c}") == 2, f"both to be told of the {content}", 20)  # type: ignore[misc]
    assert {r.id for r in cluster.running("steady")} == before
    # The first is needed by nobody: neither by the service before its last change nor by what runs.
    assert cluster.pyswarm("secret", "ls", "--format", "{{.Name}}").split() == ["key.2", "key.3"]
    m1.run("rm", "/tmp/key")
    cluster.pyswarm("service", "rm", "steady")
    # Until then the secrets are in use.
    cluster.until(lambda: not any(before & set(cluster.containers(h)) for h in cluster.up()), "both to be gone", 60)
    cluster.pyswarm("secret", "prune", "-a", "-f")
