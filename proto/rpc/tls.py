"""Credentials from a node's certificate directory: `root-ca.crt`, `node.crt`, `node.key`.

Every use reads the files anew, so a renewed certificate is taken up by the next connection without a restart.
"""

import ssl
from pathlib import Path

import grpc

from pyswarm.proto.errors import FailedPrecondition

ROOT_CA = "root-ca.crt"
CERTIFICATE = "node.crt"
KEY = "node.key"


def read_certificates(directory: Path) -> tuple[bytes, bytes, bytes]:
    """Return (root, certificate, key) as PEM. Raises FailedPrecondition when the node has none."""
    try:
        return tuple((directory / name).read_bytes() for name in (ROOT_CA, CERTIFICATE, KEY))  # type: ignore[return-value]
    except FileNotFoundError as error:
        raise FailedPrecondition(
            f"this node has no certificate ({error.filename} is missing)",
            remedy='Make it part of a cluster with "pyswarm init" or "pyswarm join".',
        ) from error


def channel_credentials(directory: Path) -> grpc.ChannelCredentials:
    """Credentials of a client that shows the node's certificate and trusts the cluster's root alone."""
    root, certificate, key = read_certificates(directory)
    return grpc.ssl_channel_credentials(root, key, certificate)


def pinned_root_credentials(root_pem: bytes) -> grpc.ChannelCredentials:
    """Credentials of a client without a certificate that trusts one root: a machine on its way into the cluster."""
    return grpc.ssl_channel_credentials(root_pem)


def server_credentials(directory: Path) -> grpc.ServerCredentials:
    """Mutual TLS: the client must show a certificate of our root. Follows renewals."""
    return _following(directory, require_client=True)


def bootstrap_credentials(directory: Path) -> grpc.ServerCredentials:
    """Only the server is authenticated: for machines that have no certificate yet. Follows renewals."""
    return _following(directory, require_client=False)


def _following(directory: Path, *, require_client: bool) -> grpc.ServerCredentials:
    seen = _stamp(directory)

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        # Asked at every handshake; None keeps what is in use.
        nonlocal seen
        now = _stamp(directory)
        if now == seen:
            return None
        seen = now
        return _configuration(directory, require_client=require_client)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(directory, require_client=require_client),
        fetch,  # type: ignore[arg-type] # the stubs do not know that None keeps what is in use
        require_client_authentication=require_client,
    )


def _configuration(directory: Path, *, require_client: bool) -> grpc.ServerCertificateConfiguration:
    root, certificate, key = read_certificates(directory)
    return grpc.ssl_server_certificate_configuration([(key, certificate)], root if require_client else None)


def _stamp(directory: Path) -> tuple[int, int]:
    found = (directory / CERTIFICATE).stat()
    return found.st_mtime_ns, found.st_ino


def raft_ssl_contexts(directory: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return (server, client) contexts for streams between managers: TLS 1.3, both certificates required.

    Host names are not checked; the transport compares the peer's node id and role instead.
    """
    contexts = []
    for purpose in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT):
        context = ssl.SSLContext(purpose)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(str(directory / ROOT_CA))
        context.load_cert_chain(str(directory / CERTIFICATE), str(directory / KEY))
        contexts.append(context)
    return contexts[0], contexts[1]
