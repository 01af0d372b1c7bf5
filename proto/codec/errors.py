"""Carry a `SwarmError` over gRPC and make the same class again on the other side (pure).

Statuses are plain numbers here (google/rpc/code.proto), so that this module needs no gRPC: the interceptors
of `proto/rpc` translate. Metadata carries what a status cannot: our stable code, the remedy, and the few
fields of particular errors. Keys that end in `-bin` hold UTF-8 bytes, because other metadata is ASCII only.
A peer newer than us may send a code we do not know: the error then becomes the base class of its status.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Final

from pyswarm.proto.errors import (
    AlreadyExists,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    NotLeader,
    OutcomeUnknown,
    OutOfSequence,
    PermissionDenied,
    ResourceExhausted,
    SwarmError,
    Unavailable,
)

CODE_KEY: Final = "pyswarm-code"
REMEDY_KEY: Final = "pyswarm-remedy-bin"
LEADER_KEY: Final = "pyswarm-leader"

UNAUTHENTICATED: Final = 16
"""A caller without an identity; reaches people as `PermissionDenied`."""

CANCELLED: Final = 1
DEADLINE_EXCEEDED: Final = 4
ABORTED: Final = 10
INTERNAL: Final = 13

_STATUS_OF: Final[Mapping[type[SwarmError], int]] = {
    InvalidArgument: 3,
    NotFound: 5,
    AlreadyExists: 6,
    PermissionDenied: 7,
    ResourceExhausted: 8,
    FailedPrecondition: 9,
    OutOfSequence: ABORTED,
    Internal: INTERNAL,
    Unavailable: 14,
}
"""The nearest of these among an error's classes gives its status."""

_CLASS_OF_STATUS: Final[Mapping[int, type[SwarmError]]] = {
    **{status: cls for cls, status in _STATUS_OF.items()},
    CANCELLED: OutcomeUnknown,
    DEADLINE_EXCEEDED: OutcomeUnknown,
    11: InvalidArgument,  # out of range
    12: FailedPrecondition,  # unimplemented: the peer runs another version
    UNAUTHENTICATED: PermissionDenied,
}

MAX_TEXT_BYTES: Final = 4000
"""Longest message or remedy sent: a whole answer's metadata must stay below gRPC's 8 KiB."""


def to_status(error: SwarmError) -> tuple[int, str, tuple[tuple[str, str | bytes], ...]]:
    """Return (gRPC status number, details, trailing metadata) for `error`."""
    status = next((_STATUS_OF[cls] for cls in type(error).__mro__ if cls in _STATUS_OF), INTERNAL)
    metadata: list[tuple[str, str | bytes]] = [(CODE_KEY, error.code)]
    if error.remedy:
        metadata.append((REMEDY_KEY, _shorten(error.remedy).encode()))
    if isinstance(error, NotLeader) and error.leader:
        metadata.append((LEADER_KEY, error.leader))
    return status, _shorten(error.message), tuple(metadata)


def from_status(code: int, details: str, metadata: Mapping[str, str | bytes]) -> SwarmError:
    """Return the error that a peer meant by this status; `metadata` is the trailing metadata, by key."""
    known = _classes()
    cls = known.get(_text(metadata.get(CODE_KEY, "")))
    if cls is None:
        cls = _CLASS_OF_STATUS.get(code, Internal)
    message = details or f"the peer answered with status {code} and no message"
    # A remedy belongs to what happened there; without one, the class's own is the best there is.
    remedy = _text(metadata[REMEDY_KEY]) if REMEDY_KEY in metadata else None
    if issubclass(cls, NotLeader):
        return cls(message, leader=_text(metadata.get(LEADER_KEY, "")), remedy=remedy)
    return cls(message, remedy=remedy)


@cache
def _classes() -> dict[str, type[SwarmError]]:
    """Return the error classes of the protocol by code; those that rooms derive travel under the code they inherit."""
    return {cls.code: cls for cls in _descendants(SwarmError) if cls.__module__ == SwarmError.__module__}


def _descendants(cls: type[SwarmError]) -> Iterator[type[SwarmError]]:
    for child in cls.__subclasses__():
        yield child
        yield from _descendants(child)


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode(errors="replace")


def _shorten(text: str) -> str:
    encoded = text.encode()
    if len(encoded) <= MAX_TEXT_BYTES:
        return text
    return encoded[: MAX_TEXT_BYTES - 3].decode(errors="ignore") + "…"
