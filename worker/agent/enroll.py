"""Make this machine a node: download the root, check it against the token's digest, have a key signed.

    echo '{"token": "SWMTKN-1-…", "remote": "10.0.0.1:2377"}' | python -m pyswarm.worker.agent.enroll --root ROOT

A one-shot that pyswarmd runs for `pyswarm join` (docs/reference/seams.md). Writes `certificates.new/` only, and only
when all has gone well; prints one JSON object with the node's ids and role, or the error with its remedy.
"""

import asyncio
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from cryptography import x509

from pyswarm.proto import one_shot
from pyswarm.proto.backoff import Backoff
from pyswarm.proto.certificate_files import write_certificates
from pyswarm.proto.clock import SYSTEM_CLOCK, Clock
from pyswarm.proto.csr import check_issued, make_csr
from pyswarm.proto.entropy import SYSTEM_ENTROPY
from pyswarm.proto.errors import FailedPrecondition, InvalidArgument, JoinTokenInvalid, Unavailable, Unreachable
from pyswarm.proto.join_token import JoinToken, parse_join_token, root_digest, same_token
from pyswarm.proto.model.states import Availability, Role
from pyswarm.proto.paths import API_PORT, NodePaths
from pyswarm.proto.roles import MANAGER_NAME
from pyswarm.proto.rpc.client import open_channel
from pyswarm.proto.rpc.tls import pinned_root_credentials
from pyswarm.proto.v1 import ca_pb2, ca_pb2_grpc, types_pb2

T = TypeVar("T")

CONNECT_SECONDS = 10.0

ATTEMPTS: Final = 3
"""Connections tried for each step of joining: a manager whose processors are taken may not finish a handshake."""

_BETWEEN_ATTEMPTS: Final = Backoff(first_seconds=0.2, cap_seconds=1.0)

_REACH = (
    "Check the address, that a manager runs there, and that TCP {api}, {bootstrap} (and 7946 for managers) are open "
    "from this machine."
)


async def enroll(paths: NodePaths, options: dict[str, Any], clock: Clock) -> dict[str, Any]:
    """Obtain this machine's certificate and return its ids, role and the managers' addresses."""
    token = parse_join_token(str(options.get("token", "")))
    host, port = split_address(str(options.get("remote", "")))
    bootstrap = f"{host}:{port + 1}" if ":" not in host else f"[{host}]:{port + 1}"
    root_pem = await _pinned_root(host, port + 1, bootstrap, token, clock)
    key, csr = make_csr()
    request = ca_pb2.IssueNodeCertificateRequest(
        token=str(token),
        csr_pem=csr,
        availability=_availability(options).value,  # type: ignore[arg-type]
        description=types_pb2.NodeDescription(hostname=socket.gethostname()),
        addr=str(options.get("addr", "")),
        client_time=clock.now(),
    )
    async with open_channel(bootstrap, pinned_root_credentials(root_pem.encode())) as channel:
        stub = ca_pb2_grpc.BootstrapStub(channel)
        issued = await _patiently(lambda: stub.IssueNodeCertificate(request, timeout=30))
    check_issued(issued.certificate_pem, key_pem=key, root_pem=issued.root_ca_pem)
    write_certificates(
        paths.certificates.with_name("certificates.new"),
        root_pem=issued.root_ca_pem,
        certificate_pem=issued.certificate_pem,
        key_pem=key,
    )
    return {
        "node_id": issued.node_id,
        "cluster_id": issued.cluster_id,
        "role": "manager" if Role(issued.role) is Role.MANAGER else "worker",
        "managers": [{"node_id": "", "addr": addr} for addr in issued.manager_addrs or [f"{host}:{port}"]],
    }


def split_address(remote: str) -> tuple[str, int]:
    """Return (host, port) of `host[:port]`, `[v6]:port`; the port defaults to 2377. Raises InvalidArgument."""
    remedy = "Give a manager's address as HOST:2377, as `pyswarm join-token` prints it."
    host, _, port = (
        remote.rpartition(":") if ":" in remote and not remote.endswith("]") else (remote, "", str(API_PORT))
    )
    if not host or not port.isdigit() or not 0 < int(port) < 65535:
        raise InvalidArgument(f"{remote!r} is not a manager's address", remedy=remedy)
    return host.strip("[]"), int(port)


def _availability(options: dict[str, Any]) -> Availability:
    name = str(options.get("availability") or "active").upper()
    if name not in ("ACTIVE", "PAUSE", "DRAIN"):
        raise InvalidArgument(f"no such availability: {name.lower()}", remedy="Use active, pause or drain.")
    return Availability[name]


async def _pinned_root(host: str, port: int, address: str, token: JoinToken, clock: Clock) -> str:
    """Download the root certificate and return it once the token's digest vouches for it.

    The connection is not authenticated yet: the digest in the token is what makes the answer trustworthy.
    """
    presented = await _patiently(lambda: asyncio.to_thread(_presented_certificate, host, port, address))
    _check_clock(presented, clock)
    root = await _patiently(lambda: _download(address, presented))
    if not same_token(root_digest(root), token.digest):
        raise JoinTokenInvalid(
            f"the join token belongs to another cluster than the one at {host}",
            remedy="Take token and address from the same cluster: `pyswarm join-token worker` there prints both.",
        )
    return root


async def _patiently(step: Callable[[], Awaitable[T]]) -> T:
    """Return what `step` does; it is tried again when its connection was not made and nothing can have been asked.

    Raises Unavailable, which tells the attempts, after `ATTEMPTS` of them; all else at once.
    """
    attempts = 0
    while True:
        try:
            return await step()
        except Unreachable as error:
            if error.was_sent:
                raise
            attempts += 1
            if attempts == ATTEMPTS:
                raise Unavailable(f"{error.message} (tried {ATTEMPTS} times)", remedy=error.remedy) from error
        await asyncio.sleep(_BETWEEN_ATTEMPTS.delay_seconds(attempts - 1, SYSTEM_ENTROPY.uniform(0, 1)))


def _unfinished(address: str, reason: str, remedy: str) -> Unreachable:
    error = Unreachable(f"{address} did not finish the TLS handshake: {reason}", remedy=remedy)
    error.was_sent = False
    return error


def _presented_certificate(host: str, port: int, address: str) -> bytes:
    """Return the server's certificate (PEM) without trusting it.

    Raises Unavailable with the cause; Unreachable, of which nothing was sent, when the handshake was not finished.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    remedy = _REACH.format(api=port - 1, bootstrap=port)
    try:
        with socket.create_connection((host, port), timeout=CONNECT_SECONDS) as plain:
            try:
                with context.wrap_socket(plain, server_hostname=MANAGER_NAME) as secure:
                    presented = secure.getpeercert(binary_form=True)
            except (ssl.SSLEOFError, ConnectionError) as error:
                raise _unfinished(address, "the connection was closed", remedy) from error
            except TimeoutError as error:
                raise _unfinished(address, f"nothing came for {CONNECT_SECONDS:g} s", remedy) from error
    except ssl.SSLError as error:
        raise Unavailable(
            f"{address} does not speak the cluster's TLS: {error.reason or error}", remedy=remedy
        ) from error
    except OSError as error:
        reason = "no answer in time" if isinstance(error, TimeoutError) else error.strerror or str(error)
        raise Unavailable(f"cannot reach the manager at {address}: {reason}", remedy=remedy) from error
    if presented is None:
        raise Unavailable(f"{address} shows no certificate", remedy=remedy)
    return ssl.DER_cert_to_PEM_cert(presented).encode()


def _check_clock(presented: bytes, clock: Clock) -> None:
    certificate = x509.load_pem_x509_certificate(presented)
    begin, end = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
    if not begin <= clock.now() <= end:
        shown = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(clock.now()))
        raise FailedPrecondition(
            f"this machine's clock says {shown} UTC, but the manager's certificate is valid "
            f"from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M:%S} "
            f"to {certificate.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC",
            remedy="Set this machine's clock right (for example with chrony or systemd-timesyncd) and join again.",
        )


async def _download(address: str, presented: bytes) -> str:
    """Ask for the root over a connection whose certificate chain cannot be judged yet.

    gRPC verifies chains always, so the presented certificate itself is the anchor of this one call.
    """
    async with open_channel(address, pinned_root_credentials(presented)) as channel:
        stub = ca_pb2_grpc.BootstrapStub(channel)
        answer = await stub.GetRootCertificate(ca_pb2.GetRootCertificateRequest(), timeout=CONNECT_SECONDS)
    return answer.certificate_pem


def main() -> None:
    """Entry point: JSON options on standard input, JSON answer on standard output."""
    one_shot.run(
        lambda paths, options: asyncio.run(enroll(paths, options, SYSTEM_CLOCK)),
        description="obtain this machine's certificate with a join token",
    )


if __name__ == "__main__":
    main()
