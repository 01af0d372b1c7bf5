"""A machine joins a real manager over real TLS, or is told why it cannot; then nothing is left behind."""

import asyncio
import json
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from lib.builders import FakeClock
from lib.ca_manager import CAManager
from lib.cluster_ca import DAY, ClusterCA
from msgspec.structs import replace

from pyswarm.manager.ca.tokens import rotate_join_token
from pyswarm.manager.store.changes import Plan, Update
from pyswarm.proto.clock import SYSTEM_CLOCK
from pyswarm.proto.errors import FailedPrecondition, InvalidArgument, JoinTokenInvalid, SwarmError, Unavailable
from pyswarm.proto.identity import identity_of
from pyswarm.proto.model.states import Availability, Role
from pyswarm.proto.paths import NodePaths
from pyswarm.proto.rpc.tls import read_certificates
from pyswarm.worker.agent.enroll import ATTEMPTS, enroll, split_address


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[CAManager]:
    async with CAManager(tmp_path).serving() as serving:
        yield serving


@pytest.fixture
def paths(tmp_path: Path) -> NodePaths:
    return NodePaths(tmp_path / "node")


def _options(manager: CAManager, **more: Any) -> dict[str, Any]:
    return {"token": manager.ca.root.join_tokens.worker, "remote": manager.remote, **more}


def _nothing_is_left(manager: CAManager, paths: NodePaths) -> None:
    assert list(manager.store.view.nodes()) == []
    assert not paths.state.exists() or list(paths.state.iterdir()) == []


@pytest.mark.parametrize("role", [Role.WORKER, Role.MANAGER])
async def test_the_token_decides_the_role(manager: CAManager, paths: NodePaths, role: Role):
    tokens = manager.ca.root.join_tokens
    token = tokens.manager if role is Role.MANAGER else tokens.worker
    made = await enroll(paths, _options(manager, token=token, addr="10.0.0.9", availability="drain"), SYSTEM_CLOCK)
    assert made["role"] == role.name.lower()
    assert made["cluster_id"] == "ours"
    fresh = paths.certificates.with_name("certificates.new")
    identity = identity_of(read_certificates(fresh)[1])
    assert (identity.node_id, identity.role, identity.cluster_id) == (made["node_id"], role, "ours")
    assert (fresh / "node.key").stat().st_mode & 0o777 == 0o600
    assert [p.name for p in paths.state.iterdir()] == ["certificates.new"]
    node = manager.store.view.node(made["node_id"])
    assert node is not None
    assert (node.role, node.spec.role, node.spec.availability) == (role, role, Availability.DRAIN)
    assert node.status.addr == "10.0.0.9"


async def test_swarm_mistake_55_a_changed_lifetime_of_certificates_holds_from_the_next_one_on(
    manager: CAManager, paths: NodePaths
):
    cluster = manager.store.view.cluster
    assert cluster is not None
    changed = replace(cluster, spec=replace(cluster.spec, node_cert_expiry_seconds=7200.0))
    await manager.writer.update(lambda seen: Plan((Update(changed),)))
    await enroll(paths, _options(manager), SYSTEM_CLOCK)
    _, certificate, _ = read_certificates(paths.certificates.with_name("certificates.new"))
    lasts = x509.load_pem_x509_certificate(certificate).not_valid_after_utc.timestamp() - SYSTEM_CLOCK.now()
    assert 7000 < lasts <= 7200


async def test_a_rotated_token_is_refused_and_logged_with_the_peer(
    manager: CAManager, paths: NodePaths, caplog: pytest.LogCaptureFixture
):
    cluster = manager.store.view.cluster
    assert cluster is not None
    rotated = replace(cluster, root_ca=rotate_join_token(cluster.root_ca, Role.WORKER, b"n" * 16))
    await manager.writer.update(lambda seen: Plan((Update(rotated),)))
    with pytest.raises(JoinTokenInvalid, match="rotated") as refused:
        await enroll(paths, _options(manager), SYSTEM_CLOCK)
    assert "join-token" in refused.value.remedy
    (line,) = [m for m in caplog.messages if "join refused" in m]
    assert "peer=ipv4:127.0.0.1:" in line
    assert manager.ca.root.join_tokens.worker not in caplog.text
    _nothing_is_left(manager, paths)


async def test_a_token_of_another_cluster_is_found_out_before_it_is_shown(
    manager: CAManager, paths: NodePaths, caplog: pytest.LogCaptureFixture
):
    other = ClusterCA("theirs").root.join_tokens.worker
    with pytest.raises(JoinTokenInvalid, match=r"another cluster than the one at 127\.0\.0\.1"):
        await enroll(paths, _options(manager, token=other), SYSTEM_CLOCK)
    assert "join refused" not in caplog.text, "the manager never saw the token"
    _nothing_is_left(manager, paths)


async def test_a_damaged_token_is_not_sent_anywhere(manager: CAManager, paths: NodePaths):
    with pytest.raises(JoinTokenInvalid, match="not copied whole"):
        await enroll(paths, _options(manager, token=manager.ca.root.join_tokens.worker[:-3]), SYSTEM_CLOCK)
    _nothing_is_left(manager, paths)


@pytest.mark.parametrize("offset", [-2 * DAY, 40 * 365 * DAY], ids=["behind", "ahead"])
async def test_a_clock_outside_the_managers_certificate_is_explained(
    manager: CAManager, paths: NodePaths, offset: float
):
    clock = FakeClock(SYSTEM_CLOCK.now() + offset)
    with pytest.raises(FailedPrecondition, match="this machine's clock says") as refused:
        await enroll(paths, _options(manager), clock)
    assert "chrony" in refused.value.remedy
    _nothing_is_left(manager, paths)


async def test_a_clock_on_which_the_new_certificate_would_not_hold_is_refused_by_the_ca(
    tmp_path: Path, paths: NodePaths
):
    ca = ClusterCA()
    async with CAManager(tmp_path, ca=ca, clock=FakeClock(ca.now + 6 * 3600)).serving() as manager:
        with pytest.raises(FailedPrecondition, match="the joining machine's clock"):
            await enroll(paths, _options(manager), FakeClock(ca.now))
        _nothing_is_left(manager, paths)


async def test_an_unreachable_manager_is_named_with_the_ports_to_open(paths: NodePaths):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    token = ClusterCA().root.join_tokens.worker
    with pytest.raises(Unavailable, match=rf"127\.0\.0\.1:{port}: Connection refused") as refused:
        await enroll(paths, {"token": token, "remote": f"127.0.0.1:{port - 1}"}, SYSTEM_CLOCK)
    assert f"{port - 1}, {port}" in refused.value.remedy
    assert not paths.state.exists()


async def test_something_that_is_not_a_manager_is_told_from_one_that_is_down(paths: NodePaths):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def talk() -> None:
            plain, _ = listener.accept()
            with plain:
                plain.recv(4096)
                plain.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=talk)
        thread.start()
        options = {"token": ClusterCA().root.join_tokens.worker, "remote": f"127.0.0.1:{port - 1}"}
        with pytest.raises(Unavailable, match="does not speak the cluster's TLS"):
            await enroll(paths, options, SYSTEM_CLOCK)
        thread.join()


class BusyManager:
    """Stands before a manager's bootstrap port and hangs up, in the middle of the handshake, on the first `hang_up`."""

    def __init__(self, bootstrap_port: int, *, hang_up: int) -> None:
        self.bootstrap_port = bootstrap_port
        self.hang_up = hang_up
        self.connections = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            if self.connections <= self.hang_up:
                await reader.read(1)
                return
            from_manager, to_manager = await asyncio.open_connection("127.0.0.1", self.bootstrap_port)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass_on(reader, to_manager))
                group.create_task(self._pass_on(from_manager, writer))
        finally:
            writer.transport.abort()

    @staticmethod
    async def _pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await source.read(65536):
                target.write(data)
                await target.drain()
        target.close()

    async def serving(self) -> tuple[asyncio.Server, str]:
        server = await asyncio.start_server(self.answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        return server, f"127.0.0.1:{port - 1}"


async def test_a_manager_too_busy_to_finish_a_handshake_is_asked_again(manager: CAManager, paths: NodePaths):
    _, port = split_address(manager.remote)
    busy = BusyManager(port + 1, hang_up=ATTEMPTS - 1)
    server, remote = await busy.serving()
    async with server:
        made = await enroll(paths, _options(manager, remote=remote), SYSTEM_CLOCK)
    assert [node.id for node in manager.store.view.nodes()] == [made["node_id"]]


async def test_a_manager_that_never_finishes_a_handshake_is_given_up_after_attempts_that_are_told(paths: NodePaths):
    busy = BusyManager(0, hang_up=1000)
    server, remote = await busy.serving()
    async with server:
        options = {"token": ClusterCA().root.join_tokens.worker, "remote": remote}
        with pytest.raises(Unavailable, match=rf"did not finish the TLS handshake.*tried {ATTEMPTS} times"):
            await enroll(paths, options, SYSTEM_CLOCK)
    assert busy.connections == ATTEMPTS
    assert not paths.state.exists()


async def test_an_impostor_that_shows_the_right_root_gets_no_token(
    manager: CAManager, tmp_path: Path, paths: NodePaths, caplog: pytest.LogCaptureFixture
):
    """The root is public: who hands it out must still prove to be a manager before the token is shown."""
    impostor = CAManager(tmp_path / "impostor", ca=ClusterCA("theirs"))
    async with impostor.serving():
        cluster = impostor.store.view.cluster
        assert cluster is not None
        posing = replace(cluster, root_ca=replace(cluster.root_ca, certificate_pem=manager.ca.root.certificate_pem))
        await impostor.writer.update(lambda seen: Plan((Update(posing),)))
        with pytest.raises(Unavailable, match="not of this cluster"):
            await enroll(paths, _options(manager, remote=impostor.remote), SYSTEM_CLOCK)
    assert "join refused" not in caplog.text
    assert list(impostor.store.view.nodes()) == []


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.1:2377", ("10.0.0.1", 2377)),
        ("10.0.0.1", ("10.0.0.1", 2377)),
        ("m1.lan:99", ("m1.lan", 99)),
        ("[::1]:2377", ("::1", 2377)),
        ("[::1]", ("::1", 2377)),
    ],
)
def test_an_address_is_read_with_its_default_port(text: str, address: tuple[str, int]):
    assert split_address(text) == address


@pytest.mark.parametrize("text", ["", ":2377", "host:", "host:http", "host:0", "host:65535", "host:99999"])
def test_what_is_no_address_is_refused(text: str):
    with pytest.raises(InvalidArgument, match="not a manager's address"):
        split_address(text)


# -- the one-shot, as pyswarmd runs it


def _one_shot(root: Path, options: str) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-m", "pyswarm.worker.agent.enroll", "--root", str(root)]
    done = subprocess.run(command, input=options, capture_output=True, text=True, check=False)
    return done.returncode, json.loads(done.stdout)


async def test_the_one_shot_answers_in_json_whatever_happens(manager: CAManager, tmp_path: Path):
    status, answer = await asyncio.to_thread(_one_shot, tmp_path / "a", json.dumps(_options(manager)))
    assert (status, answer["ok"], answer["role"]) == (0, True, "worker")
    status, answer = await asyncio.to_thread(_one_shot, tmp_path / "b", json.dumps(_options(manager, token="x")))
    assert (status, answer["ok"], answer["code"]) == (1, False, JoinTokenInvalid.code)
    assert answer["message"]
    assert answer["remedy"]
    for options in ("not json", "[]"):
        status, answer = await asyncio.to_thread(_one_shot, tmp_path / "c", options)
        assert (status, answer["ok"], answer["code"]) == (1, False, InvalidArgument.code)


def test_errors_of_enrolment_are_the_protocols():
    assert issubclass(JoinTokenInvalid, SwarmError)
    assert ssl.HAS_TLSv1_3
