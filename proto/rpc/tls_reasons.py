"""Say in plain words why a TLS handshake failed, from what gRPC's core reports (pure).

The core nests OpenSSL's error names in long status texts. What matters to an operator is which of a handful of things
went wrong, and whether it is the clock.
"""

from typing import Final

from msgspec import Struct

CLOCKS: Final = (
    "Compare the clocks of both machines (chrony or systemd-timesyncd keep them right); "
    "if they agree, the certificate was not renewed in time: leave the cluster and join again."
)
OTHER_CLUSTER: Final = "Do both machines belong to the same cluster? `pyswarm info` shows it on each."


class Reason(Struct, frozen=True):
    """`text` completes "the handshake failed: …" about the other side; `remedy` may be empty."""

    text: str
    remedy: str = ""


HUNG_UP: Final = Reason("it hung up during the TLS handshake")
"""Nothing was refused: the other side ended the connection. Probes of load balancers and port scans look so."""

_REASONS: Final[tuple[tuple[str, Reason], ...]] = (
    ("PEER_DID_NOT_RETURN_A_CERTIFICATE", Reason("it showed no certificate")),
    ("certificate has expired", Reason("its certificate has expired", CLOCKS)),
    ("certificate is not yet valid", Reason("its certificate is not valid yet", CLOCKS)),
    ("Hostname Verification Check failed", Reason("its certificate is not a manager's")),
    ("Peer name swarm-manager is not in peer certificate", Reason("its certificate is not a manager's")),
    ("CERTIFICATE_VERIFY_FAILED", Reason("its certificate is not of this cluster", OTHER_CLUSTER)),
    ("ALERT_UNKNOWN_CA", Reason("it does not accept this cluster's certificate", OTHER_CLUSTER)),
    ("ALERT_CERTIFICATE_EXPIRED", Reason("it finds this node's certificate expired", CLOCKS)),
    ("ALERT_CERTIFICATE_REQUIRED", Reason("it requires a certificate")),
    ("ALERT_BAD_CERTIFICATE", Reason("it does not accept this node's certificate")),
    ("ALERT_CERTIFICATE_UNKNOWN", Reason("it does not accept this node's certificate")),
    ("NO_SHARED_CIPHER", Reason("it does not offer TLS 1.3")),
    ("UNSUPPORTED_PROTOCOL", Reason("it does not offer TLS 1.3")),
    ("ALERT_HANDSHAKE_FAILURE", Reason("it and this machine have no version of TLS in common")),
    ("ALERT_PROTOCOL_VERSION", Reason("it does not speak TLS 1.3")),
    ("HTTP_REQUEST", Reason("it speaks HTTP without TLS")),
    ("HTTPS_PROXY_REQUEST", Reason("it speaks HTTP without TLS")),
    ("WRONG_VERSION_NUMBER", Reason("it does not speak TLS")),
    ("Cannot check peer: missing selected ALPN property", Reason("it speaks TLS, but not gRPC")),
    ("Handshake timed out", Reason("it did not finish the TLS handshake in time")),
    ("Socket closed", HUNG_UP),
    ("FD Shutdown", HUNG_UP),
    ("Endpoint closing", HUNG_UP),
    ("Connection reset", HUNG_UP),
    ("Broken pipe", HUNG_UP),
)


def tls_reason(report: str) -> Reason | None:
    """Return the reason in a report of the core, or None when it is not about a handshake or not a known one."""
    about_tls = ("handshake", "ssl", "peer", "verification check")
    if not any(word in report.lower() for word in about_tls):
        return None
    return next((reason for mark, reason in _REASONS if mark in report), None)
