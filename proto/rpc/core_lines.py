"""Read what gRPC's core writes to standard error: find the failed handshakes in it (pure).

With its tracer `handshaker` on, the core reports every step of every handshake. One of these records tells both why
one failed and who the other side was; its routine records are dropped, and whatever is not known passes unchanged.
The form of the records is the core's own affair: if it changes, they pass unchanged too, so nothing is ever lost.
"""

import re
from itertools import pairwise
from typing import Final
from urllib.parse import unquote

from msgspec import Struct

from pyswarm.proto.rpc.tls_reasons import Reason, tls_reason

TRACER: Final = "handshaker"

_HEAD = re.compile(r"^[IWEF]\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ [\w.]+:\d+\] ", re.MULTILINE)
_FAILED = re.compile(
    r"CallNextHandshakerLocked: error=(?!OK )(?P<report>.*?) shutdown=\w+ index=\d+, args=\{(?P<args>.*)", re.DOTALL
)
_PEER = re.compile(r"grpc\.internal\.endpoint_peer_address=([^,}\s]+)")
_OPENSSL = re.compile(r"OPENSSL_internal:([^\n]*?)(?:: OK)?$", re.MULTILINE)
_ROUTINE = ("handshake_manager 0x", "handshake manager 0x", "CallNextHandshakerLocked: error=OK ", "gRPC Tracers: ")


_TLS_LAYER = "Handshake failed with error "

HELD_MOST: Final = 8
"""Reasons without their peer that may wait for it: handshakes that fail in the same instant."""


class HandshakeFailure(Struct, frozen=True):
    """`is_server`: the other side connected to us. `detail` is the core's own wording, cut to what matters."""

    peer: str
    is_server: bool
    reason: Reason
    detail: str


class CoreLines:
    """Takes the stream in pieces as they come, returns what is in them."""

    def __init__(self) -> None:
        self._unfinished = ""
        self._held: list[tuple[str, str]] = []

    def feed(self, piece: str) -> list[HandshakeFailure | str]:
        """Return the failures and the unknown records of a piece, in order."""
        text = self._unfinished + piece
        whole, newline, self._unfinished = text.rpartition("\n")
        return [found for record in _records(whole + newline) for found in self._judge(record)]

    def finish(self) -> list[HandshakeFailure | str]:
        """Return what was still held back at the end of the stream."""
        held, self._held = [record for _, record in self._held], []
        rest, self._unfinished = self._unfinished, ""
        return [*held, *([rest] if rest else [])]

    def _judge(self, record: str) -> list[HandshakeFailure | str]:
        head = _HEAD.match(record)
        if head is None:
            return [record]
        body = record[head.end() :]
        failure = _failure_in(body)
        if failure is not None:
            said = next((held for held in self._held if held[0] in body), None)
            if said is not None:
                self._held.remove(said)
            return [failure]
        if body.startswith(_TLS_LAYER):
            return self._hold(body.removeprefix(_TLS_LAYER).strip(), record)
        return [] if body.startswith(_ROUTINE) else [record]

    def _hold(self, error: str, record: str) -> list[HandshakeFailure | str]:
        """The TLS layer says why, without saying who, just before the record that says both (on any thread)."""
        self._held.append((error, record))
        return [self._held.pop(0)[1]] if len(self._held) > HELD_MOST else []


def _records(text: str) -> list[str]:
    """Cut at the beginning of each record; one may span lines."""
    cuts = [found.start() for found in _HEAD.finditer(text)]
    edges = [0, *[cut for cut in cuts if cut], len(text)]
    return [text[begin:end] for begin, end in pairwise(edges) if text[begin:end]]


def _failure_in(body: str) -> HandshakeFailure | None:
    found = _FAILED.match(body)
    if found is None:
        return None
    report, args = found["report"], found["args"]
    peer = _PEER.search(args)
    openssl = _OPENSSL.search(report)
    detail = openssl[1] if openssl else report.partition("\n")[0]
    return HandshakeFailure(
        peer=_address(peer[1]) if peer else "unknown",
        is_server="grpc.internal.server_credentials=" in args,
        reason=tls_reason("handshake " + report) or Reason("the TLS handshake failed"),
        detail=detail.removesuffix(": OK").removesuffix(": Invalid certificate verification context"),
    )


def _address(uri: str) -> str:
    """`ipv4:10.0.0.1:2377`, `ipv6:%5B::1%5D:2377` as people write them."""
    return unquote(uri.partition(":")[2] or uri)
