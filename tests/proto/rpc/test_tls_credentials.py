"""Credentials: TLS 1.3 only, managers by name, renewals taken up without a restart and never mixed."""

import asyncio
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from lib.certificates import insecure_client_context
from lib.cluster_ca import ClusterCA
from lib.doors import Greeter, connect, renew, serving

from pyswarm.proto.certificate_files import recover, replace_certificates
from pyswarm.proto.errors import FailedPrecondition, Unreachable
from pyswarm.proto.model.states import Role
from pyswarm.proto.rpc.tls import raft_ssl_contexts, read_certificates


@pytest.fixture
def ca() -> ClusterCA:
    return ClusterCA()


@contextmanager
def tls_server(certificates: Path, *, at_most: ssl.TLSVersion) -> Iterator[tuple[str, list[str | None]]]:
    """A server that is not ours, with a certificate that is; yields its address and the versions it came to speak."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = at_most
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(str(certificates / "node.crt"), str(certificates / "node.key"))
    spoken: list[str | None] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    plain, _ = listener.accept()
                except OSError:
                    return
                try:
                    with context.wrap_socket(plain, server_side=True) as stream:
                        spoken.append(stream.version())
                except (ssl.SSLError, OSError):
                    spoken.append(None)

        thread = threading.Thread(target=serve)
        thread.start()
        yield "127.0.0.1:{}".format(*listener.getsockname()[1:]), spoken
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


async def test_a_client_of_ours_does_not_speak_tls_1_2(ca: ClusterCA, tmp_path: Path):
    server = ca.issue(tmp_path / "m1", "m1", Role.MANAGER)
    client = ca.issue(tmp_path / "w1", "w1")
    with tls_server(server, at_most=ssl.TLSVersion.TLSv1_2) as (address, spoken):
        async with connect(address, client) as channel:
            with pytest.raises(Unreachable, match="TLS"):
                await renew(channel, timeout=5)
    assert set(spoken) == {None}


async def test_a_workers_certificate_cannot_serve(ca: ClusterCA, tmp_path: Path):
    """The server's name is the role: whoever may join as a worker must not be able to pose as a manager."""
    impostor = ca.issue(tmp_path / "w1", "w1", Role.WORKER)
    async with serving(impostor, Greeter()) as address, connect(address, impostor) as channel:
        with pytest.raises(Unreachable, match="not a manager's"):
            await renew(channel)


async def test_a_renewed_certificate_is_taken_up_by_the_next_connection(ca: ClusterCA, tmp_path: Path):
    served = ca.issue(tmp_path / "certificates", "m1", Role.MANAGER)

    def presented(address: str) -> int:
        host, _, port = address.rpartition(":")
        context = insecure_client_context()
        context.set_alpn_protocols(["h2"])
        with socket.create_connection((host, int(port)), 10) as plain, context.wrap_socket(plain) as stream:
            der = stream.getpeercert(binary_form=True)
        assert der is not None
        return x509.load_der_x509_certificate(der).serial_number

    async with serving(served, Greeter()) as address:
        before = await asyncio.to_thread(presented, address)
        replace_certificates(served, ca.issue(tmp_path / "certificates.new", "m1", Role.MANAGER))
        assert await asyncio.to_thread(presented, address) != before
        # A renewal that cannot be read leaves the old one in use.
        (served / "node.key").unlink()
        assert await asyncio.to_thread(presented, address) != before


def _pair_fits(certificates: tuple[bytes, bytes, bytes]) -> bool:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    _, certificate, key = certificates
    return (
        x509.load_pem_x509_certificate(certificate).public_key()
        == load_pem_private_key(key, password=None).public_key()
    )


def test_whoever_reads_during_renewals_gets_a_key_and_its_own_certificate(ca: ClusterCA, tmp_path: Path):
    directory = ca.issue(tmp_path / "certificates", "m1", Role.MANAGER)
    done = threading.Event()

    def renew_for_ever() -> None:
        while not done.is_set():
            replace_certificates(directory, ca.issue(tmp_path / "certificates.new", "m1", Role.MANAGER))

    renewer = threading.Thread(target=renew_for_ever)
    renewer.start()
    try:
        seen = [read_certificates(directory) for _ in range(300)]
        # On a busy machine the renewer may not have had its turn yet.
        while len(set(seen)) == 1 and renewer.is_alive():
            seen.append(read_certificates(directory))
        for _ in range(30):
            raft_ssl_contexts(directory)
    finally:
        done.set()
        renewer.join()
    assert all(map(_pair_fits, seen))
    assert len(set(seen)) > 1


def test_between_the_two_renames_the_former_certificate_is_read(ca: ClusterCA, tmp_path: Path):
    directory = ca.issue(tmp_path / "certificates", "m1", Role.MANAGER)
    before = read_certificates(directory)
    directory.rename(tmp_path / "certificates.old")
    assert read_certificates(directory) == before
    recover(directory)
    assert directory.is_dir()
    assert read_certificates(directory) == before
    recover(directory)


def test_a_node_without_certificates_is_told_how_to_get_some(tmp_path: Path):
    with pytest.raises(FailedPrecondition, match="no certificate") as refused:
        read_certificates(tmp_path / "certificates")
    assert "pyswarm join" in refused.value.remedy


def test_certificates_and_key_are_for_their_owner_only(ca: ClusterCA, tmp_path: Path):
    directory = ca.issue(tmp_path / "certificates", "m1", Role.MANAGER)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {p.name: p.stat().st_mode & 0o777 for p in directory.iterdir()} == {
        "root-ca.crt": 0o600,
        "node.crt": 0o600,
        "node.key": 0o600,
    }
    shutil.rmtree(directory)


def test_no_credentials_are_made_when_grpc_was_imported_too_early(tmp_path: Path):
    script = "import grpc; from pyswarm.proto.rpc.tls import pinned_root_credentials; pinned_root_credentials(b'')"
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_SSL_CIPHER_SUITES"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert "imported before pyswarm.proto" in done.stderr


def test_streams_between_managers_need_both_certificates_and_tls_1_3(ca: ClusterCA, tmp_path: Path):
    server, client = raft_ssl_contexts(ca.issue(tmp_path / "m1", "m1", Role.MANAGER))
    for context in (server, client):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_3
        assert context.verify_mode is ssl.CERT_REQUIRED
    assert len(client.get_ca_certs()) == 1
