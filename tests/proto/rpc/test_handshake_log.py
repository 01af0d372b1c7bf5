"""Who cannot finish a TLS handshake with a daemon is named in its log, with the cause."""

import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from lib.certificates import CertificateMaker, insecure_client_context

from pyswarm.proto.rpc.core_lines import HELD_MOST, CoreLines, HandshakeFailure
from pyswarm.proto.rpc.core_log import LINES_A_SECOND, Refusals
from pyswarm.proto.rpc.tls_reasons import Reason

DAEMON = """
from pyswarm.proto.rpc import core_log
core_log.install()
import asyncio, os, sys
from pathlib import Path
from pyswarm.proto import log
from pyswarm.proto.rpc.server import Door, Gate, add_secure_port, build_server
from pyswarm.proto.rpc.tls import server_credentials
log.configure(component="test")
async def main():
    server = build_server(Gate(Door.MUTUAL, cluster_id="ours"), [])
    port = add_secure_port(server, "127.0.0.1:0", server_credentials(Path(sys.argv[1])))
    await server.start()
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    os.write(2, b"said by a library\\n")
    await server.stop(None)
asyncio.run(main())
"""


class Daemon:
    def __init__(self, certificates: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", DAEMON, str(certificates)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def log_until(self, mark: str) -> list[str]:
        """Return the next lines of standard error up to the one with `mark`."""
        assert self._process.stderr is not None
        lines: list[str] = []
        while not lines or mark not in lines[-1]:
            line = self._process.stderr.readline()
            assert line, f"the daemon ended without {mark!r}: {lines}"
            lines.append(line.strip())
        return lines

    def stop(self) -> str:
        """Stop the daemon and return the rest of standard error."""
        return self._process.communicate("\n", timeout=20)[1]

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return CertificateMaker("ours").issue(tmp_path_factory.mktemp("ours"), "manager-1")


@pytest.fixture
def daemon(ours: Path) -> Iterator[Daemon]:
    running = Daemon(ours)
    yield running
    running.close()


def _attempt(port: int, context: ssl.SSLContext | None, say: bytes) -> tuple[str, bytes]:
    """Connect and say something; return our own address and what came back."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as plain:
        plain.settimeout(20)
        own = "{}:{}".format(*plain.getsockname())
        try:
            stream = context.wrap_socket(plain) if context is not None else plain
            stream.sendall(say)
            return own, stream.recv(100)
        except (ssl.SSLError, ConnectionError):
            return own, b""


def _tls(certificates: Path | None = None, *, at_most: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = insecure_client_context()
    context.set_alpn_protocols(["h2"])
    if certificates is not None:
        context.load_cert_chain(str(certificates / "node.crt"), str(certificates / "node.key"))
    if at_most is not None:
        context.maximum_version = at_most
    return context


def test_every_refused_handshake_is_logged_with_the_peer_and_the_cause(daemon: Daemon, ours: Path, tmp_path: Path):
    foreign = CertificateMaker("theirs").issue(tmp_path / "foreign", "node-1")
    attempts = {
        "it speaks HTTP without TLS": (None, b"GET / HTTP/1.1\r\n\r\n"),
        "it does not speak TLS": (None, b"\x00" * 64),
        "it showed no certificate": (_tls(), b"PRI"),
        "its certificate is not of this cluster": (_tls(foreign), b"PRI"),
        "it does not offer TLS 1.3": (_tls(ours, at_most=ssl.TLSVersion.TLSv1_2), b"PRI"),
    }
    for reason, (context, say) in attempts.items():
        own, answer = _attempt(daemon.port, context, say)
        assert answer == b""
        log = daemon.log_until(f"peer={own} ")
        assert len(log) == 1
        assert "WARNING" in log[0]
        assert "handshake refused" in log[0]
        assert reason in log[0]


def test_a_probe_that_hangs_up_is_no_refusal(daemon: Daemon):
    with socket.create_connection(("127.0.0.1", daemon.port)) as probe:
        own = "{}:{}".format(*probe.getsockname())
    told = daemon.log_until(f"peer={own} ")[-1]
    assert "INFO" in told
    assert "handshake abandoned" in told


def test_a_member_of_the_cluster_gets_in_over_tls_1_3_and_nothing_is_said(daemon: Daemon, ours: Path):
    with (
        socket.create_connection(("127.0.0.1", daemon.port), timeout=20) as plain,
        _tls(ours).wrap_socket(plain) as stream,
    ):
        assert stream.version() == "TLSv1.3"
        # HTTP/2 begins with the server's settings: the handshake is over, and we are in.
        assert stream.recv(9)[3] == 4
    own, _ = _attempt(daemon.port, None, b"not TLS")
    assert len(daemon.log_until(f"peer={own} ")) == 1, "nothing is logged before the refusal that followed"


def test_what_others_write_to_standard_error_is_not_lost(daemon: Daemon):
    assert "said by a library\n" in daemon.stop()


def _failure(peer: str) -> HandshakeFailure:
    return HandshakeFailure(peer=peer, is_server=True, reason=Reason("it showed no certificate"), detail="NONE")


def test_a_flood_of_refusals_cannot_fill_the_disk(caplog: pytest.LogCaptureFixture):
    refusals = Refusals()
    for number in range(500):
        refusals.add(_failure(f"10.0.0.1:{number}"), now=7.1)
    assert len(caplog.messages) == LINES_A_SECOND
    refusals.add(_failure("10.0.0.2:1"), now=8.0)
    assert caplog.messages[-2:] == [
        f"more handshakes were refused count={500 - LINES_A_SECOND}",
        "handshake refused peer=10.0.0.2:1 reason='it showed no certificate' detail=NONE",
    ]


def test_records_of_an_unknown_form_pass_unchanged():
    lines = CoreLines()
    tls = "I0101 00:00:00.000000    7 ssl_transport_security.cc:1] Handshake failed with error SSL_ERROR_SSL: X\n"
    other = "E0101 00:00:00.000000    7 new_handshaker.cc:1] it failed, says a newer core\nin two lines\n"
    found = [*lines.feed(tls + other[:60]), *lines.feed(other[60:]), *lines.finish()]
    assert found == [other, tls]


def test_reasons_that_never_find_their_peer_are_passed_on_in_order():
    lines = CoreLines()
    records = [
        f"I0101 00:00:00.000000    7 ssl_transport_security.cc:1] Handshake failed with error {number}\n"
        for number in range(HELD_MOST + 3)
    ]
    assert [*lines.feed("".join(records)), *lines.finish()] == records
