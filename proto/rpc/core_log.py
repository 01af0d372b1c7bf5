"""Bring the refusals of gRPC's core into our own log: who could not finish a TLS handshake with us, and why.

A handshake that fails never becomes a call, so no interceptor sees it, and the core only writes to standard error,
without naming the peer unless it traces. So a daemon that serves TLS lets its core trace handshakes into a pipe,
which a thread of its own reads. What the core says besides goes on to the real standard error.

Everything that Python writes goes there directly, a fatal error's traceback too. What the core writes in the very
moment in which it aborts the process may be lost with the pipe.
"""

import atexit
import contextlib
import faulthandler
import fcntl
import os
import sys
import threading
import time
from typing import TextIO

from pyswarm.proto.log import get_logger
from pyswarm.proto.rpc.core_lines import TRACER, CoreLines, HandshakeFailure
from pyswarm.proto.rpc.tls_reasons import HUNG_UP

log = get_logger(__name__)

PIPE_BYTES = 1024 * 1024
LINES_A_SECOND = 20
"""A stranger must not be able to fill our disk: further refusals of a second are only counted."""


class Refusals:
    """Logs handshake failures, at most so many in a second."""

    def __init__(self) -> None:
        self._second = 0
        self._logged = 0
        self._unlogged = 0

    def add(self, failure: HandshakeFailure, *, now: float) -> None:
        if int(now) != self._second:
            if self._unlogged:
                log.warning("more handshakes were refused", count=self._unlogged)
            self._second, self._logged, self._unlogged = int(now), 0, 0
        if self._logged >= LINES_A_SECOND:
            self._unlogged += 1
            return
        self._logged += 1
        if not failure.is_server:
            # Our own call failed: its caller is told the reason.
            log.debug("handshake failed", peer=failure.peer, reason=failure.reason.text, detail=failure.detail)
        elif failure.reason is HUNG_UP:
            log.info("handshake abandoned", peer=failure.peer, reason=failure.reason.text)
        else:
            log.warning("handshake refused", peer=failure.peer, reason=failure.reason.text, detail=failure.detail)


def install() -> None:
    """Take over the core's output for the life of the process. Call it once, before gRPC is imported."""
    if "grpc" in sys.modules:
        raise RuntimeError("gRPC reads its settings when it is imported: install the core's log before")
    os.environ["GRPC_TRACE"] = ",".join(filter(None, (os.environ.get("GRPC_TRACE"), TRACER)))
    # Whoever set it to less would silence the refusals.
    os.environ.pop("GRPC_VERBOSITY", None)
    real = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
    source, sink = os.pipe()
    with contextlib.suppress(PermissionError):
        fcntl.fcntl(sink, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    # A full pipe loses lines rather than to stop the core, whose threads may hold what our reader needs.
    os.set_blocking(sink, False)
    sys.stderr.flush()
    os.dup2(sink, 2)
    os.close(sink)
    sys.stderr = real
    faulthandler.enable(real)
    reader = threading.Thread(target=_read, args=(source, real), name="core-log", daemon=True)
    reader.start()
    atexit.register(_restore, real, reader)


def _restore(real: TextIO, reader: threading.Thread) -> None:
    """Give standard error back; with its last writer the pipe ends, and so does the reader."""
    os.dup2(real.fileno(), 2)
    reader.join(timeout=1.0)


def _read(source: int, real: TextIO) -> None:
    lines, refusals = CoreLines(), Refusals()
    while piece := os.read(source, 65536):
        for found in lines.feed(piece.decode(errors="replace")):
            if isinstance(found, HandshakeFailure):
                refusals.add(found, now=time.monotonic())
            else:
                real.write(found)
    for rest in lines.finish():
        real.write(str(rest))
    os.close(source)
