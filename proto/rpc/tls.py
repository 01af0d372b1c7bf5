"""Credentials from a node's certificate directory: `root-ca.crt`, `node.crt`, `node.key`.

Every use reads the files anew, so a renewed certificate is taken up by the next connection without a restart.
"""

import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import grpc

from pyswarm.proto import IS_TLS_1_3_ONLY
from pyswarm.proto.errors import FailedPrecondition

T = TypeVar("T")

EXCHANGES_SURVIVED = 10
"""Renewals in a row that may overtake one reader before it gives up."""

ROOT_CA = "root-ca.crt"
CERTIFICATE = "node.crt"
KEY = "node.key"


def read_certificates(directory: Path) -> tuple[bytes, bytes, bytes]:
    """Return (root, certificate, key) as PEM, all of one renewal. Raises FailedPrecondition when the node has none."""
    return _of_one_renewal(directory, _read)


def _read(opened: Path) -> tuple[bytes, bytes, bytes]:
    return (opened / ROOT_CA).read_bytes(), (opened / CERTIFICATE).read_bytes(), (opened / KEY).read_bytes()


def _of_one_renewal(directory: Path, read: Callable[[Path], T]) -> T:
    """Return `read(directory)` although a renewal may exchange the directory meanwhile (certificate_files.py).

    The open directory stays the same one under whatever name. While its successor is being put in its place it is
    called `.old`, and after that its files vanish: then the successor is read.
    """
    missing: FileNotFoundError | None = None
    for name in (directory, directory.with_name(directory.name + ".old")) * EXCHANGES_SURVIVED:
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError as error:
            missing = missing or error
            continue
        try:
            return read(Path(f"/proc/self/fd/{descriptor}"))
        except FileNotFoundError as error:
            missing = missing or error
        finally:
            os.close(descriptor)
    raise FailedPrecondition(
        f"this node has no certificate in {directory}",
        remedy='Make it part of a cluster with "pyswarm init" or "pyswarm join".',
    ) from missing


def channel_credentials(directory: Path) -> grpc.ChannelCredentials:
    """Credentials of a client that shows the node's certificate and trusts the cluster's root alone."""
    _insist_on_tls_1_3()
    root, certificate, key = read_certificates(directory)
    return grpc.ssl_channel_credentials(root, key, certificate)


def pinned_root_credentials(root_pem: bytes) -> grpc.ChannelCredentials:
    """Credentials of a client without a certificate that trusts one root: a machine on its way into the cluster."""
    _insist_on_tls_1_3()
    return grpc.ssl_channel_credentials(root_pem)


def _insist_on_tls_1_3() -> None:
    if not IS_TLS_1_3_ONLY:
        raise RuntimeError("gRPC was imported before pyswarm.proto, so it would speak TLS 1.2: import it after")


def server_credentials(directory: Path) -> grpc.ServerCredentials:
    """Mutual TLS: the client must show a certificate of our root. Follows renewals."""
    return _following(directory, require_client=True)


def bootstrap_credentials(directory: Path) -> grpc.ServerCredentials:
    """Only the server is authenticated: for machines that have no certificate yet. Follows renewals."""
    return _following(directory, require_client=False)


def _following(directory: Path, *, require_client: bool) -> grpc.ServerCredentials:
    _insist_on_tls_1_3()
    seen = _stamp(directory)

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        # Asked at every handshake; None keeps what is in use.
        nonlocal seen
        now = _stamp(directory)
        if now == seen:
            return None
        fresh = _configuration(directory, require_client=require_client)
        seen = now
        return fresh

    return grpc.dynamic_ssl_server_credentials(
        _configuration(directory, require_client=require_client),
        fetch,  # type: ignore[arg-type] # the stubs do not know that None keeps what is in use
        require_client_authentication=require_client,
    )


def _configuration(directory: Path, *, require_client: bool) -> grpc.ServerCertificateConfiguration:
    root, certificate, key = read_certificates(directory)
    return grpc.ssl_server_certificate_configuration([(key, certificate)], root if require_client else None)


def _stamp(directory: Path) -> tuple[int, int]:
    def stamp(opened: Path) -> tuple[int, int]:
        found = (opened / CERTIFICATE).stat()
        return found.st_mtime_ns, found.st_ino

    return _of_one_renewal(directory, stamp)


def raft_ssl_contexts(directory: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return (server, client) contexts for streams between managers: TLS 1.3, both certificates required.

    Host names are not checked; the transport compares the peer's node id and role instead.
    """
    certificates = read_certificates(directory)
    return _mutual(ssl.PROTOCOL_TLS_SERVER, *certificates), _mutual(ssl.PROTOCOL_TLS_CLIENT, *certificates)


def _mutual(side: int, root: bytes, certificate: bytes, key: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(side)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=root.decode())
    # Python loads a key from a file only: one in memory, so that it is the key of this certificate.
    descriptor = os.memfd_create("node", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, certificate + key)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    return context
