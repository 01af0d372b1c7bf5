"""Who is refused at the cluster's ports, and what bad input is told. Every refusal leaves a line in a log."""

import json
import re
import sys

import pytest
from lib.cluster import SERVICE, Cluster

from pyswarm.deploy.lab.lab import records

CALL = """
import asyncio, sys
from pathlib import Path
from pyswarm.proto.rpc.client import open_channel
from pyswarm.proto.rpc.tls import channel_credentials
from pyswarm.proto.v1 import control_pb2, control_pb2_grpc
async def main():
    async with open_channel(sys.argv[1], channel_credentials(Path(sys.argv[2]))) as channel:
        await control_pb2_grpc.ControlStub(channel).ListNodes(control_pb2.ListNodesRequest(), timeout=10)
try:
    asyncio.run(main())
except Exception as error:
    print(type(error).__name__, error)
    sys.exit(1)
"""


STALE_UPDATE = """
import asyncio, sys
from pyswarm.proto.errors import OutOfSequence
from pyswarm.proto.rpc.client import open_unix_channel
from pyswarm.proto.v1 import control_pb2 as pb, control_pb2_grpc
async def main(socket, name):
    async with open_unix_channel(socket) as channel:
        control = control_pb2_grpc.ControlStub(channel)
        seen = (await control.ListServices(pb.ListServicesRequest(ids=[name]))).services[0]
        for replicas in (5, 9):
            seen.spec.mode.replicated.replicas = replicas
            await control.UpdateService(pb.UpdateServiceRequest(id=seen.id, version=seen.version, spec=seen.spec))
try:
    asyncio.run(main(*sys.argv[1:]))
except OutOfSequence as error:
    print(error)
"""
"""Two writes that were both decided on one reading of a service, as by two operators."""


def _call(cluster: Cluster, certificates: str, *, on: str = "w1", to: str = "m1") -> tuple[int, str]:
    host = cluster.lab.host(on)
    done = host.run(sys.executable, "-c", CALL, f"{cluster.lab.host(to).address}:2377", certificates, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_workers_certificate_cannot_call_what_only_managers_may(cluster: Cluster):
    worker = cluster.lab.host("w1")
    status, text = _call(cluster, str(worker.state / "var/lib/pyswarm/certificates"))
    assert status != 0
    assert "ListNodes" in text or "manager" in text
    cluster.until(lambda: "ListNodes" in cluster.log("m1", "pyswarm-manager"), "the refusal in the log", 10)


def test_a_managers_certificate_can(cluster: Cluster):
    manager = cluster.lab.host("m2")
    status, text = _call(cluster, str(manager.state / "var/lib/pyswarm/certificates"), on="m2")
    assert status == 0, text


def test_a_certificate_of_another_cluster_is_refused_and_logged(cluster: Cluster, tmp_path):
    make = [sys.executable, "-m", "pyswarm.manager.bootstrap", "--root", str(tmp_path)]
    host = cluster.lab.host("w1")
    host.run(*make, input='{"advertise_addr": "10.77.2.1"}')
    lines = len(cluster.log("m1", "pyswarm-manager").splitlines())
    certificates = tmp_path / "var/lib/pyswarm/certificates"
    assert _call(cluster, str(certificates))[0] != 0
    # A client that does not mind who serves: it is the server that must refuse.
    script = (
        "import socket, ssl; c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT); c.check_hostname = False; "
        "c.verify_mode = ssl.CERT_NONE; c.set_alpn_protocols(['h2']); "
        f"c.load_cert_chain('{certificates}/node.crt', '{certificates}/node.key'); "
        "s = c.wrap_socket(socket.create_connection(('10.77.1.1', 2377), 5)); s.settimeout(5); "
        "print(s.recv(100) or 'closed')"
    )
    done = host.run(sys.executable, "-c", script, check=False)
    assert done.returncode != 0 or "closed" in done.stdout, done.stdout
    _handshake_refusal_is_logged(cluster, lines)


def test_tls_without_a_certificate_is_refused_and_logged(cluster: Cluster):
    lines = len(cluster.log("m1", "pyswarm-manager").splitlines())
    script = (
        "import socket, ssl; c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT); c.check_hostname = False; "
        "c.verify_mode = ssl.CERT_NONE; "
        "c.set_alpn_protocols(['h2']); s = c.wrap_socket(socket.create_connection(('10.77.1.1', 2377), 5)); "
        "s.settimeout(5); s.sendall(b'PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n'); print(s.recv(100) or 'closed')"
    )
    done = cluster.lab.host("w1").run(sys.executable, "-c", script, check=False)
    assert done.returncode != 0 or "closed" in done.stdout, done.stdout
    _handshake_refusal_is_logged(cluster, lines)


def test_plain_tcp_is_refused_and_logged(cluster: Cluster):
    lines = len(cluster.log("m1", "pyswarm-manager").splitlines())
    script = (
        "import socket; s = socket.create_connection(('10.77.1.1', 2377), 5); s.settimeout(30); "
        "s.sendall(b'GET / HTTP/1.1\\r\\n\\r\\n'); print(s.recv(100))"
    )
    done = cluster.lab.host("w1").run(sys.executable, "-c", script, check=False)
    assert "HTTP" not in done.stdout
    _handshake_refusal_is_logged(cluster, lines)


def test_the_raft_port_takes_only_managers_of_this_cluster(cluster: Cluster):
    lines = len(cluster.log("m1", "pyswarm-manager").splitlines())
    certificates = cluster.lab.host("w1").state / "var/lib/pyswarm/certificates"
    script = (
        "import socket, ssl; c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT); c.check_hostname = False; "
        f"c.verify_mode = ssl.CERT_NONE; c.load_cert_chain('{certificates}/node.crt', '{certificates}/node.key'); "
        "s = c.wrap_socket(socket.create_connection(('10.77.1.1', 7946), 5)); s.settimeout(10); "
        "s.sendall(b'x' * 64); print(s.recv(100) or 'closed')"
    )
    done = cluster.lab.host("w1").run(sys.executable, "-c", script, check=False)
    assert done.returncode != 0 or "closed" in done.stdout, done.stdout
    _handshake_refusal_is_logged(cluster, lines)


def _handshake_refusal_is_logged(cluster: Cluster, lines_before: int) -> None:
    def logged() -> bool:
        fresh = cluster.log("m1", "pyswarm-manager").splitlines()[lines_before:]
        return any(re.search(r"refused|handshake", line, re.IGNORECASE) for line in fresh)

    cluster.until(logged, "the refusal in the log", 15)


def test_a_wrong_token_and_a_rotated_token_are_told_apart_from_an_unreachable_manager(cluster: Cluster):
    token = cluster.pyswarm("join-token", "-q", "worker").strip()
    cluster.pyswarm("leave", "--force", on="w2")
    node = next(n for n in cluster.nodes() if n["Hostname"] == "w2")
    try:
        other = token[:-1] + ("a" if token[-1] != "a" else "b")
        assert "token" in cluster.refused("join", "--token", other, "10.77.1.1:2377", on="w2")
        leader = cluster.leader()
        cluster.until(lambda: "join refused" in cluster.log(leader, "pyswarm-manager"), "the refusal in the log", 10)
        digest = token.split("-")
        foreign = "-".join([*digest[:2], digest[2][::-1], digest[3]])
        assert "cluster" in cluster.refused("join", "--token", foreign, "10.77.1.1:2377", on="w2")
        assert "10.77.9.9" in cluster.refused("join", "--token", token, "10.77.9.9:2377", on="w2")
        cluster.pyswarm("join-token", "--rotate", "worker")
        complaint = cluster.refused("join", "--token", token, "10.77.1.1:2377", on="w2")
        assert "token" in complaint
        assert "join-token" in complaint, "the remedy is missing"
        # Nothing half-made: the node still belongs to no cluster.
        assert not (cluster.lab.host("w2").state / "var/lib/pyswarm/node.json").exists()
    finally:
        fresh = cluster.pyswarm("join-token", "-q", "worker").strip()
        cluster.pyswarm("join", "--token", fresh, "--advertise-addr", "10.77.2.2", "10.77.1.1:2377", on="w2")
        cluster.until(
            lambda: next(n for n in cluster.nodes() if n["ID"] == node["ID"])["Status"] != "Ready",
            "the old w2 gone",
            30,
        )
        cluster.pyswarm("node", "rm", node["ID"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("services:\n  web:\n   image: [\n", ["bad.yaml:4", "line 4"], id="malformed YAML names its line"),
        pytest.param(
            "services:\n  web:\n    image: a\n    imagee: b\n", ["imagee", "image"], id="an unknown key is named"
        ),
        pytest.param("services:\n  web:\n    image: 'A B'\n", ["reference"], id="a bad image reference"),
        pytest.param(
            "services:\n  web:\n    image: registry:5000/web:1\n    ports: ['8080:80']\n", ["8080"], id="a port in use"
        ),
    ],
)
def test_a_bad_stack_file_is_refused_and_leaves_nothing(web: Cluster, tmp_path, text, words):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    complaint = web.refused("stack", "deploy", "-c", str(file), "bad", on="m1")
    for word in words:
        assert word in complaint, complaint
    assert "bad" not in [stack["Name"] for stack in records(web.pyswarm("stack", "ls", "--format", "json"))]


def test_a_missing_image_and_a_name_clash_are_explained(web: Cluster):
    complaint = web.refused("service", "create", "--name", SERVICE, "registry:5000/web:1", on="m1")
    assert SERVICE in complaint
    assert "exists" in complaint or "taken" in complaint

    complaint = web.refused(
        "service", "create", "--name", "ghost", "--restart-condition", "none", "registry:5000/none:1", on="m1"
    )
    assert "registry:5000/none:1" in complaint
    web.pyswarm("service", "rm", "ghost")


def test_the_second_of_two_updates_decided_on_one_reading_is_refused_and_changes_nothing(web: Cluster):
    host = web.lab.host("m2")
    socket = str(host.state / "run/pyswarm/manager.sock")
    complaint = host.run(sys.executable, "-c", STALE_UPDATE, socket, SERVICE).stdout
    assert f"service {SERVICE} is at version" in complaint
    assert "read it again" in complaint, "the remedy is missing"
    spec = json.loads(web.pyswarm("service", "inspect", SERVICE))[0]["Spec"]
    assert spec["Mode"]["Replicated"]["Replicas"] == 5
