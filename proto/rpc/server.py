"""Build a daemon's gRPC servers: one gate in front of every method decides who may pass.

Three kinds of door: MUTUAL (client certificate of our cluster required), BOOTSTRAP (anonymous, over TLS that
authenticates the server) and LOCAL (a unix socket that only the administrator can open). The gate takes the caller's
identity from the door, compares it with the method's rule, and turns what a servicer raises into a status.
"""

import enum
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import grpc
import grpc.aio
import msgspec

from pyswarm.proto.clock import SYSTEM_CLOCK, Clock
from pyswarm.proto.codec.errors import to_status
from pyswarm.proto.errors import FailedPrecondition, Internal, PermissionDenied, SwarmError
from pyswarm.proto.identity import expiry_of, identity_of
from pyswarm.proto.log import get_logger
from pyswarm.proto.model.states import Role
from pyswarm.proto.rpc.access import rule_of
from pyswarm.proto.rpc.handlers import wrap
from pyswarm.proto.rpc.identity import CALLER_KEY, FORWARDED_KEY, Caller, set_caller
from pyswarm.proto.rpc.limits import MESSAGE_MAX_BYTES

log = get_logger(__name__)

OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_receive_message_length", MESSAGE_MAX_BYTES),
    ("grpc.max_send_message_length", MESSAGE_MAX_BYTES),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # Clients ping every 5 s (client.py); one that comes a little early must not be cut off for it.
    ("grpc.http2.min_ping_interval_without_data_ms", 2_500),
    # Who connects and says nothing keeps nothing open.
    ("grpc.server_handshake_timeout_ms", 10_000),
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
        self,
        door: Door,
        *,
        cluster_id: str = "",
        is_blacklisted: Callable[[str], bool] = lambda _: False,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._door = door
        self._cluster_id = cluster_id
        self._is_blacklisted = is_blacklisted
        self._clock = clock
        # Behind each method stands the same handler at nearly every call: wrapped once, by method.
        self._wrapped: dict[str, tuple[Any, Any]] = {}

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        method: str = details.method
        handler = await continuation(details)
        if handler is None:
            # Not kept: strangers may ask for any number of names.
            return self._behind_gate(method, _UNKNOWN_METHOD)
        known, wrapped = self._wrapped.get(method, (None, None))
        if known is not handler:
            wrapped = self._behind_gate(method, handler)
            self._wrapped[method] = (handler, wrapped)
        return wrapped

    def _behind_gate(self, method: str, handler: Any) -> Any:
        async def before(context: Any) -> None:
            set_caller(self._admit(method, context))

        async def failed(context: Any, error: Exception) -> None:
            await _abort(method, context, error)

        return wrap(handler, before=before, failed=failed)

    def _admit(self, method: str, context: Any) -> Caller:
        peer = unquote(str(context.peer()))
        try:
            caller = self._caller(context, peer)
            rule = rule_of(method)
            if not rule.admits(caller):
                raise PermissionDenied(
                    f"{method} is not for {_named(caller)}: it is open to {rule}",
                    remedy="Run the command on a manager." if caller and caller.role is Role.WORKER else "",
                )
        except PermissionDenied as error:
            log.warning("call refused", method=method, peer=peer, door=self._door.value, reason=error.message)
            raise
        return caller if caller is not None else Caller(peer=peer)

    def _caller(self, context: Any, peer: str) -> Caller | None:
        if self._door is Door.LOCAL:
            return Caller(is_local=True, peer=peer, cluster_id=self._cluster_id)
        if self._door is Door.BOOTSTRAP:
            return None
        certificates = context.auth_context().get("x509_pem_cert")
        if not certificates:
            raise PermissionDenied("the caller shows no certificate")
        identity = identity_of(certificates[0])
        # A connection may outlive the certificate that opened it, and the blacklist ends with the certificate.
        expires_at = expiry_of(certificates[0])
        if self._clock.now() > expires_at:
            raise PermissionDenied(
                f"the certificate of node {identity.node_id} has expired", remedy="Renew it, or join the node again."
            )
        self._check_membership(identity.node_id, identity.cluster_id)
        metadata = dict(context.invocation_metadata())
        if FORWARDED_KEY in metadata and CALLER_KEY in metadata and identity.role is Role.MANAGER:
            # A manager passes a call on: the rule is about who called first.
            return self._original(metadata[CALLER_KEY])
        return Caller(identity.node_id, identity.role, identity.cluster_id, peer=peer, expires_at=expires_at)

    def _original(self, encoded: bytes) -> Caller:
        try:
            caller = msgspec.msgpack.decode(encoded, type=Caller)
        except msgspec.MsgspecError as error:
            raise PermissionDenied(f"the forwarded caller cannot be read: {error}") from error
        if not caller.is_local:
            self._check_membership(caller.node_id, caller.cluster_id)
        return caller

    def _check_membership(self, node_id: str, cluster_id: str) -> None:
        if self._cluster_id and cluster_id != self._cluster_id:
            raise PermissionDenied(f"the certificate is of cluster {cluster_id}, not {self._cluster_id}")
        if self._is_blacklisted(node_id):
            raise PermissionDenied(f"node {node_id} was removed from the cluster", remedy="Join it again.")


def _named(caller: Caller | None) -> str:
    if caller is None:
        return "a caller without a certificate"
    return "the local administrator" if caller.is_local else f"a {caller.role.name.lower()}"


async def _no_such_method(_request: Any, _context: Any) -> None:
    raise AssertionError("the gate admits nobody to an unknown method")


_UNKNOWN_METHOD = grpc.stream_unary_rpc_method_handler(_no_such_method)
"""Stands for every method this server does not have. Nobody may call it, so strangers learn nothing of what exists."""


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
        add(_FoundByName(server))
    return server


class _FoundByName:
    """What servicers are added to: the server, which is to find their methods by name and await calls of all at once.

    Generated code also registers each method. For each registered one grpc.aio waits by a task of its own, and hands
    all of them to `asyncio.wait` anew for every call (`_server_main_loop`, server.pyx.pxi): a manager has fifty.
    """

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        self._server.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(self, service_name: str, handlers: Mapping[str, Any]) -> None:
        """The generic handlers know them too."""


def add_secure_port(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials) -> int:
    """Listen on `address`; return the port. Raises SwarmError naming the address when it cannot be had."""
    try:
        return server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise FailedPrecondition(
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
    except RuntimeError as error:
        raise FailedPrecondition(
            f"cannot listen on {path}: {error}",
            remedy="The directory must be writable, and the whole path shorter than 100 characters.",
        ) from error
    finally:
        os.umask(before)
    await server.start()
    os.chmod(aside, 0o600)
    os.rename(aside, path)
    return server
