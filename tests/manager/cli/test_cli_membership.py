"""`init`, `join`, `join-token`, `leave`, `info`, `version`: through pyswarmd, and what they say when it fails."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from lib.builders import a_node
from lib.fake_supervisor import FakeSupervisor, serving_supervisor
from msgspec.structs import replace

from pyswarm.manager.cli.client.addresses import InterfaceAddress, advertise_address, machine_addresses, with_port
from pyswarm.proto.errors import FailedPrecondition, InvalidArgument
from pyswarm.proto.model.objects import ManagerStatus
from pyswarm.proto.model.states import Role

STATUS = {
    "ok": True,
    "node_id": "n1",
    "cluster_id": "cluster1",
    "role": "manager",
    "advertise_addr": "10.0.0.1",
    "managers": [{"node_id": "n1", "addr": "10.0.0.1:2377"}],
    "daemons": [{"name": "pyswarm-manager", "pid": 7, "running": True, "restarts": 2}],
}


@pytest.fixture
def pyswarmd(pyswarm: Any) -> Iterator[FakeSupervisor]:
    fake = FakeSupervisor(
        {
            "status": [STATUS],
            "init": [{"progress": "making the root CA"}, {"ok": True, "node_id": "n1", "cluster_id": "cluster1"}],
            "join": [{"ok": True, "node_id": "n2", "role": "worker"}],
            "leave": [{"ok": True}],
        }
    )
    with serving_supervisor(pyswarm.paths.supervisor_socket, fake):
        yield fake


def test_init_prints_dockers_text(pyswarm: Any, pyswarmd: FakeSupervisor, control: Any) -> None:
    said = pyswarm.run("init", "--advertise-addr", "10.0.0.1", "--cert-expiry", "48h", "--dispatcher-heartbeat", "2s")
    assert said.status == 0
    assert said.out == (
        "Swarm initialized: current node (n1) is now a manager.\n\n"
        "To add a worker to this swarm, run the following command:\n\n"
        "    pyswarm join --token SWMTKN-1-d-worker 10.0.0.1:2377\n\n"
        "To add a manager to this swarm, run 'pyswarm join-token manager' and follow the instructions.\n"
    )
    assert said.err == "making the root CA\n"
    assert pyswarmd.asked[-1] == {
        "op": "init",
        "advertise_addr": "10.0.0.1",
        "listen_addr": "0.0.0.0",
        "autolock": False,
        "availability": "active",
        "heartbeat_seconds": 2.0,
        "cert_expiry_seconds": 172800.0,
        "task_history_limit": 5,
    }


def test_docker_swarm_hands_work(pyswarm: Any, pyswarmd: FakeSupervisor, control: Any) -> None:
    assert "Swarm initialized" in pyswarm.ok("swarm", "init", "--advertise-addr", "10.0.0.1")
    assert pyswarm.ok("swarm", "join-token", "-q", "worker") == "SWMTKN-1-d-worker\n"


def test_a_refusal_of_pyswarmd_is_told_with_its_remedy(pyswarm: Any, pyswarmd: FakeSupervisor) -> None:
    refusal = {"ok": False, "code": "failed-precondition", "message": "already part of a cluster", "remedy": "Leave."}
    pyswarmd.answers["init"] = [refusal]
    assert pyswarm.fails("init", "--advertise-addr", "10.0.0.1") == "Error: already part of a cluster\nLeave.\n"


def test_a_pyswarmd_that_hangs_up_is_told(pyswarm: Any, pyswarmd: FakeSupervisor) -> None:
    pyswarmd.answers["leave"] = [{"progress": "stopping"}]
    assert pyswarm.fails("leave") == (
        "stopping\nError: pyswarmd closed the connection without an answer\nSee its log, then try again.\n"
    )


def test_join_asks_with_the_whole_address(pyswarm: Any, pyswarmd: FakeSupervisor) -> None:
    words = ["join", "--token", " SWMTKN-1-x ", "--advertise-addr", "10.0.0.2", "--availability", "drain", "10.0.0.1"]
    assert pyswarm.ok(*words) == "This node joined a swarm as a worker.\n"
    assert pyswarmd.asked[-1] == {
        "op": "join",
        "token": "SWMTKN-1-x",
        "remote": "10.0.0.1:2377",
        "advertise_addr": "10.0.0.2",
        "listen_addr": "0.0.0.0",
        "availability": "drain",
    }


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["join", "10.0.0.1"], 1, "Missing option '--token'"),
        (["join", "--token", "x"], 1, "Missing argument"),
        (["join", "--token", "x", "10.0.0.1:port"], 1, '"10.0.0.1:port" is not an address'),
        (["join", "--token", "x", "--advertise-addr", "nope", "h"], 1, "neither an IP address nor an interface"),
        (["init", "--advertise-addr", "10.0.0.1:99"], 1, "port 99 cannot be chosen"),
        (["init", "--listen-addr", "x", "--advertise-addr", "10.0.0.1"], 1, '"x" is neither'),
        (["init", "--cert-expiry", "soon"], 125, '"soon" is not a length of time'),
    ],
)
def test_what_cannot_work_is_refused_before_pyswarmd_is_started(
    pyswarm: Any, words: list[str], status: int, message: str
) -> None:
    said = pyswarm.run(*words)
    assert said.status == status
    assert message in said.err
    assert not pyswarm.paths.logs.exists()


def test_join_token_tells_how_to_join(pyswarm: Any, control: Any) -> None:
    manager = replace(a_node("n1", role=Role.MANAGER), manager_status=ManagerStatus("r", "10.0.0.1:2377"))
    control.add(manager)
    assert pyswarm.ok("join-token", "manager") == (
        "To add a manager to this swarm, run the following command:\n\n"
        "    pyswarm join --token SWMTKN-1-d-manager 10.0.0.1:2377\n"
    )
    assert pyswarm.ok("join-token", "--rotate", "worker").startswith(
        "Successfully rotated worker join token.\n\nTo add a worker"
    )
    assert pyswarm.ok("join-token", "--rotate", "-q", "worker") == "SWMTKN-1-d-fresh\n"


def test_leave_passes_force_on(pyswarm: Any, pyswarmd: FakeSupervisor) -> None:
    assert pyswarm.ok("leave", "--force") == "Node left the swarm.\n"
    assert pyswarmd.asked[-1] == {"op": "leave", "force": True}


def test_info_of_a_manager(pyswarm: Any, pyswarmd: FakeSupervisor, control: Any) -> None:
    assert pyswarm.ok("info") == (
        "Server Version:     9.9\n"
        "Swarm:              active\n"
        "Cluster:\n"
        " NodeID:            n1\n"
        " Is Manager:        true\n"
        " ClusterID:         cluster1\n"
        " Managers:          1\n"
        " Nodes:             0\n"
        " Leader:            this node\n"
        " Term:              3\n"
        " Applied Version:   100\n"
        " Node Address:      10.0.0.1\n"
        "Manager Addresses:\n"
        " 10.0.0.1:2377\n"
        "Daemons:\n"
        " pyswarm-manager:   running, pid 7, restarted 2 times\n"
    )
    found = json.loads(pyswarm.ok("info", "--format", "json"))
    assert (found["Term"], found["AppliedVersion"], found["ControlAvailable"]) == (3, 100, True)
    assert found["Daemons"] == [{"Name": "pyswarm-manager", "Pid": 7, "Running": True, "Restarts": 2}]


def test_info_of_a_node_without_a_cluster(pyswarm: Any, pyswarmd: FakeSupervisor) -> None:
    pyswarmd.answers["status"] = [{"ok": True, "node_id": "", "role": "", "managers": [], "daemons": []}]
    assert pyswarm.ok("info") == "Swarm:              inactive\n"


def test_info_tells_that_the_manager_does_not_answer(pyswarm: Any, pyswarmd: FakeSupervisor) -> None:
    pyswarm.paths.node_file.parent.mkdir(parents=True)
    pyswarm.paths.node_file.write_text(json.dumps({"role": "manager"}))
    assert "Error:              this node's manager does not run" in pyswarm.ok("info")


def test_info_needs_pyswarmd(pyswarm: Any) -> None:
    assert pyswarm.fails("info").startswith("Error: pyswarmd does not answer at ")


def test_version_tells_both_sides(pyswarm: Any, control: Any) -> None:
    found = json.loads(pyswarm.ok("version", "--format", "json"))
    assert found["Server"] == {"Version": "9.9"}
    assert pyswarm.ok("version", "--format", "{{.Server.Version}}") == "9.9\n"


@pytest.mark.parametrize(
    ("role", "message"),
    [
        ("", 'This node is not a swarm manager.\nUse "pyswarm init" or "pyswarm join"'),
        ("worker", "This node is a worker: worker nodes cannot be used to view or change the cluster."),
        ("manager", "pyswarmd does not answer at "),
    ],
)
def test_a_node_without_a_manager_says_why_and_what_to_do(pyswarm: Any, role: str, message: str) -> None:
    if role:
        pyswarm.paths.node_file.parent.mkdir(parents=True)
        pyswarm.paths.node_file.write_text(json.dumps({"role": role}))
    assert pyswarm.fails("node", "ls").startswith(f"Error: {message}")


def test_a_socket_that_nobody_serves_is_told(pyswarm: Any) -> None:
    pyswarm.paths.manager_socket.parent.mkdir(parents=True)
    pyswarm.paths.manager_socket.touch()
    said = pyswarm.fails("node", "ls")
    assert said.startswith(f"Error: cannot reach {pyswarm.paths.manager_socket}: ")


def test_another_host_needs_this_nodes_certificate(pyswarm: Any) -> None:
    assert "this node has no certificate" in pyswarm.fails("--host", "127.0.0.1:1", "node", "ls")
    assert '"a:b:c" is not an address' in pyswarm.fails("node", "ls", PYSWARM_HOST="a:b:c")


ETH0 = InterfaceAddress("eth0", "10.0.0.1")
LOOPBACK = InterfaceAddress("lo", "127.0.0.1")
BRIDGE = InterfaceAddress("pyswarm0", "172.30.0.1")
ETH1 = InterfaceAddress("eth1", "192.168.0.1")


def test_the_only_address_is_advertised() -> None:
    assert advertise_address("", [LOOPBACK, ETH0, BRIDGE]) == "10.0.0.1"


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [("eth1", "192.168.0.1"), ("10.9.9.9", "10.9.9.9"), ("10.9.9.9:2377", "10.9.9.9"), ("fd00::1", "fd00::1")],
)
def test_an_address_or_an_interface_may_be_named(wanted: str, expected: str) -> None:
    assert advertise_address(wanted, [LOOPBACK, ETH0, ETH1]) == expected


def test_several_addresses_are_listed() -> None:
    with pytest.raises(FailedPrecondition) as caught:
        advertise_address("", [ETH0, ETH1])
    assert str(caught.value) == (
        "could not choose an IP address to advertise since this machine has several: "
        "10.0.0.1 (eth0), 192.168.0.1 (eth1)\nSpecify one with --advertise-addr."
    )


def test_no_address_is_told() -> None:
    with pytest.raises(FailedPrecondition, match="no address that other nodes could reach"):
        advertise_address("", [LOOPBACK])
    with pytest.raises(InvalidArgument, match="interface eth0 has 2 addresses"):
        advertise_address("eth0", [ETH0, InterfaceAddress("eth0", "10.0.0.9")])


@pytest.mark.parametrize(
    ("text", "expected"),
    [("h", "h:2377"), ("h:1", "h:1"), ("fd00::1", "[fd00::1]:2377"), ("[fd00::1]:9", "[fd00::1]:9")],
)
def test_an_address_without_a_port_gets_the_clusters(text: str, expected: str) -> None:
    assert with_port(text) == expected


def test_this_machine_has_a_loopback_address() -> None:
    assert "127.0.0.1" in [a.address for a in machine_addresses()]


def test_help_comes_without_loading_what_only_commands_need() -> None:
    script = (
        "import sys; from pyswarm.manager.cli.main import cli\n"
        "try: cli(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'grpc', 'google', 'cryptography', 'msgspec', 'yaml', 'asyncio'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert "Make this node the first manager" in done.stdout


def test_an_unknown_command_gets_a_suggestion(pyswarm: Any) -> None:
    assert pyswarm.fails("servce", "ls") == "Error: `pyswarm` has no command servce\nDid you mean `pyswarm service`?\n"
    assert pyswarm.fails("node", "lss").startswith("Error: No such command 'lss'")
