"""Who is calling, as the server established it: from the peer's certificate, or the machine's own socket."""

from contextvars import ContextVar
from math import inf

from msgspec import Struct

from pyswarm.proto.model.states import Role

FORWARDED_KEY = "pyswarm-forwarded"
"""Metadata of a call that a manager passes on to the leader: it may not be passed on again."""

CALLER_KEY = "pyswarm-caller-bin"
"""Metadata with the original caller of a forwarded call (msgpack); believed from managers only."""


class Caller(Struct, frozen=True):
    """`is_local`: the machine's administrator on the node's own socket. `peer` is for messages only. `expires_at` is
    the end of the caller's certificate, in seconds since the epoch: a stream that outlives it has to look by itself.
    """

    node_id: str = ""
    role: Role = Role.UNSET
    cluster_id: str = ""
    is_local: bool = False
    peer: str = ""
    expires_at: float = inf


_caller: ContextVar[Caller] = ContextVar("caller")


def current_caller() -> Caller:
    """Return who made the call being served. Raises LookupError outside a call."""
    return _caller.get()


def set_caller(caller: Caller) -> None:
    _caller.set(caller)
