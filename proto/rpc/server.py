"""Build a daemon's gRPC servers: one gate in front of every method decides who may pass.

Three kinds of door: MUTUAL (client certificate of our cluster required), BOOTSTRAP (anonymous, over TLS that
authenticates the server) and LOCAL (a unix socket that only the administrator can open). The gate takes the caller's
identity from the door, compares it with the method's rule, and turns what a servicer raises into a status.
"""

import enum
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import msgspec

from pyswarm.proto.codec.errors import to_status
from pyswarm.proto.errors import Internal, PermissionDenied, SwarmError
from pyswarm.proto.identity import identity_of
from pyswarm.proto.log import get_logger
from pyswarm.proto.model.states import Role
from pyswarm.proto.rpc.access import rule_of
from pyswarm.proto.rpc.handlers import wrap
from pyswarm.proto.rpc.identity import CALLER_KEY, Caller, set_caller

log = get_logger(__name__)

MESSAGE_MAX_BYTES = 16 * 1024 * 1024

OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_receive_message_length", MESSAGE_MAX_BYTES),
    ("grpc.max_send_message_length", MESSAGE_MAX_BYTES),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    # A port that another daemon holds must be an error, not a silent share.
    ("grpc.so_reuseport", 0),
)

STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}

AddServicer = Callable[[Any], None]
"""Registers a servicer with a server: `lambda server: add_XServicer_to_server(servicer, server)`."""


class Door(enum.Enum):
    MUTUAL = "mutual"
    BOOTSTRAP = "bootstrap"
    LOCAL = "local"


class Gate(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """The one interceptor that decides who may call: deny by default."""

    def __init__(
        self, door: Door, *, cluster_id: str = "", is_blacklisted: Callable[[str], bool] = lambda _: False
    ) -> None:
        self._door = door
        self._cluster_id = cluster_id
        self._is_blacklisted = is_blacklisted

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = await continuation(details)
        if handler is None:
            return None
        method: str = details.method

        async def before(context: Any) -> None:
            set_caller(self._admit(method, context))

        async def failed(context: Any, error: Exception) -> None:
            await _abort(method, context, error)

        return wrap(handler, before=before, failed=failed)

    def _admit(self, method: str, context: Any) -> Caller:
        peer = str(context.peer())
        try:
            caller = self._caller(context, peer)
            rule = rule_of(method)
            if not rule.admits(caller):
                who = f"a {caller.role.name.lower()}" if caller is not None and not caller.is_local else "this caller"
                raise PermissionDenied(
                    f"{method} is not for {who}: it is open to {rule}",
                    remedy="Run the command on a manager." if caller and caller.role is Role.WORKER else "",
                )
        except PermissionDenied as error:
            log.warning("call refused", method=method, peer=peer, door=self._door.value, reason=error.message)
            raise
        return caller if caller is not None else Caller(peer=peer)

    def _caller(self, context: Any, peer: str) -> Caller | None:
        if self._door is Door.LOCAL:
            return Caller(is_local=True, peer=peer, cluster_id=self._cluster_id)
        certificates = context.auth_context().get("x509_pem_cert")
        if self._door is Door.BOOTSTRAP:
            return None
        if not certificates:
            raise PermissionDenied("no client certificate")
        identity = identity_of(certificates[0])
        if self._cluster_id and identity.cluster_id != self._cluster_id:
            raise PermissionDenied(f"the certificate is of cluster {identity.cluster_id}, not {self._cluster_id}")
        if self._is_blacklisted(identity.node_id):
            raise PermissionDenied(f"node {identity.node_id} was removed from the cluster", remedy="Join it again.")
        original = dict(context.invocation_metadata()).get(CALLER_KEY)
        if original is not None and identity.role is Role.MANAGER:
            # A manager passes a call on: the rule is about who called first.
            return msgspec.msgpack.decode(original, type=Caller)
        return Caller(identity.node_id, identity.role, identity.cluster_id, peer=peer)


async def _abort(method: str, context: Any, error: Exception) -> None:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if not isinstance(error, SwarmError):
        log.exception("call failed", method=method)
        error = Internal(f"{type(error).__name__} in {method}: {error}")
    code, details, metadata = to_status(error)
    await context.abort(STATUS_CODES[code], details, metadata)


def build_server(
    gate: Gate, add_servicers: Sequence[AddServicer], *, interceptors: Sequence[Any] = ()
) -> grpc.aio.Server:
    """Return a server behind `gate`; `interceptors` (the leader forwarder) come after it. Add ports, then start it."""
    server = grpc.aio.server(interceptors=[gate, *interceptors], options=OPTIONS)
    for add in add_servicers:
        add(server)
    return server


def add_secure_port(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials) -> int:
    """Listen on `address`; return the port. Raises SwarmError naming the address when it cannot be had."""
    try:
        return server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise SwarmError(
            f"cannot listen on {address}: {error}", remedy="Is another daemon on this port? `ss -ltnp` shows it."
        ) from error


async def serve_unix(
    path: Path,
    add_servicers: Sequence[AddServicer],
    *,
    cluster_id: str = "",
    interceptors: Sequence[Any] = (),
) -> grpc.aio.Server:
    """Start a server on a unix socket that only its owner can open, and return it.

    The socket appears under its name only once it answers: its existence means readiness.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    server = build_server(Gate(Door.LOCAL, cluster_id=cluster_id), add_servicers, interceptors=interceptors)
    aside = path.with_suffix(".starting")
    with suppress(FileNotFoundError):
        aside.unlink()
    before = os.umask(0o177)
    try:
        server.add_insecure_port(f"unix:{aside}")
    finally:
        os.umask(before)
    await server.start()
    os.chmod(aside, 0o600)
    os.rename(aside, path)
    return server
