"""Open channels, and turn the statuses of calls back into the `SwarmError`s the server meant."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import grpc
import grpc.aio

from pyswarm.proto.codec.errors import from_status
from pyswarm.proto.errors import SwarmError, Unavailable, Unreachable
from pyswarm.proto.roles import MANAGER_NAME
from pyswarm.proto.rpc.limits import MESSAGE_MAX_BYTES
from pyswarm.proto.rpc.tls_reasons import HUNG_UP, tls_reason

T = TypeVar("T")

CALL_SECONDS = 15.0
"""Deadline of a unary call that names none."""

_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_receive_message_length", MESSAGE_MAX_BYTES),
    ("grpc.max_send_message_length", MESSAGE_MAX_BYTES),
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # A proxy of the environment is for the web, never for a cluster's own ports.
    ("grpc.enable_http_proxy", 0),
)


_NEVER_CONNECTED = "failed to connect to all addresses"
"""How gRPC's core begins what it says of a call that it had no connection for (`pick_first.cc`)."""


def translate(error: grpc.aio.AioRpcError, address: str) -> SwarmError:
    """Return the SwarmError behind a failed call to `address`."""
    translated = _translated(error, address)
    if isinstance(translated, Unreachable):
        translated.was_sent = _NEVER_CONNECTED not in (error.details() or "")
    return translated


def _translated(error: grpc.aio.AioRpcError, address: str) -> SwarmError:
    # A metadatum is a tuple of gRPC's own kind, which the stubs do not know to be one.
    trailing: Any = error.trailing_metadata() or ()
    metadata: dict[str, str | bytes] = dict(trailing)
    code, details = error.code(), error.details() or ""
    if "pyswarm-code" not in metadata:
        if code is grpc.StatusCode.UNAVAILABLE:
            reason = tls_reason(details)
            if reason is HUNG_UP:
                details = "the TLS handshake was not finished"
            elif reason is not None:
                return Unreachable(
                    f"{address} and this machine do not trust each other: {reason.text}", remedy=reason.remedy
                )
            return Unreachable(
                f"cannot reach {address}: {_cause(details)}",
                remedy="Is the daemon running there, and does a firewall let the connection through?",
            )
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return Unreachable(
                f"{address} did not answer in time", remedy="It may be overloaded or cut off: try again."
            )
    return from_status(code.value[0], details, metadata)


def _cause(details: str) -> str:
    """The useful end of gRPC's nested messages."""
    for known in ("Connection refused", "No route to host", "Network is unreachable", "Connection timed out"):
        if known.lower() in details.lower():
            return known.lower()
    if "No such file or directory" in details:
        return "the socket does not exist"
    return details or "no answer"


class _UnderWay:
    """The calls of one channel that wait for a single response.

    gRPC cancels, on closing a channel, whatever task waits for such a call, and its waiter cannot tell that from being
    cancelled by its owner: a task that shares the channel would end without a word. So these calls are ended first,
    one by one, each as Unreachable.
    """

    def __init__(self) -> None:
        self._calls: set[Any] = set()
        self._idle = asyncio.Event()

    @contextmanager
    def entered(self, call: Any) -> Iterator[None]:
        self._calls.add(call)
        try:
            yield
        finally:
            self._calls.discard(call)
            if not self._calls:
                self._idle.set()

    async def end(self) -> None:
        self._idle.clear()
        for call in list(self._calls):
            call.cancel()
        if self._calls:
            await self._idle.wait()


class _Translating:
    """Common parts of the client interceptors: the address for messages, and the calls under way."""

    def __init__(self, address: str, under_way: _UnderWay) -> None:
        self.address = address
        self.under_way = under_way

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except grpc.aio.AioRpcError as error:
            raise translate(error, self.address) from error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # The call was cancelled, not its caller: its channel was closed.
            raise Unreachable(f"the connection to {self.address} was closed", remedy="Try again.") from error


class _UnaryResponse(_Translating, grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]
    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        if details.timeout is None:
            details = details._replace(timeout=CALL_SECONDS)
        call = await continuation(details, request)
        with self.under_way.entered(call), self._translated_errors():
            return await call


class _StreamedResponse(_Translating):
    async def _translated(self, call: Any) -> AsyncIterator[Any]:
        try:
            with self._translated_errors():
                async for response in call:
                    yield response
        finally:
            call.cancel()


class _UnaryStream(_StreamedResponse, grpc.aio.UnaryStreamClientInterceptor):  # type: ignore[type-arg]
    async def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return self._translated(await continuation(details, request))


class _StreamStream(_StreamedResponse, grpc.aio.StreamStreamClientInterceptor):  # type: ignore[type-arg]
    async def intercept_stream_stream(self, continuation: Any, details: Any, requests: Any) -> Any:
        return self._translated(await continuation(details, requests))


class _Answered:
    """A call that has its response: gRPC wraps a bare one for unary requests, but not for streamed ones."""

    def __init__(self, response: Any) -> None:
        self._response = response

    def __await__(self) -> Generator[Any, None, Any]:
        yield from ()
        return self._response

    def cancel(self) -> bool:
        return False

    def cancelled(self) -> bool:
        return False

    def done(self) -> bool:
        return True


class _StreamUnary(_Translating, grpc.aio.StreamUnaryClientInterceptor):  # type: ignore[type-arg]
    async def intercept_stream_unary(self, continuation: Any, details: Any, requests: Any) -> Any:
        call = await continuation(details, requests)
        with self.under_way.entered(call), self._translated_errors():
            return _Answered(await call)


def _interceptors(address: str, under_way: _UnderWay) -> list[Any]:
    kinds = (_UnaryResponse, _UnaryStream, _StreamUnary, _StreamStream)
    return [kind(address, under_way) for kind in kinds]


def _open(address: str, credentials: grpc.ChannelCredentials, under_way: _UnderWay) -> grpc.aio.Channel:
    options = (*_OPTIONS, ("grpc.ssl_target_name_override", MANAGER_NAME))
    return grpc.aio.secure_channel(
        address, credentials, options=options, interceptors=_interceptors(address, under_way)
    )


def open_channel(address: str, credentials: grpc.ChannelCredentials) -> grpc.aio.Channel:
    """Open a channel to a manager's API at host:port. Calls raise SwarmErrors; close it when done."""
    return _open(address, credentials, _UnderWay())


def open_unix_channel(path: str | Path) -> grpc.aio.Channel:
    """Open a channel to a daemon's unix socket. Calls raise SwarmErrors; close it when done."""
    # gRPC would send the socket's path as the authority, which its own parser refuses for some paths.
    options = (*_OPTIONS, ("grpc.default_authority", "localhost"))
    return grpc.aio.insecure_channel(
        f"unix:{path}", options=options, interceptors=_interceptors(str(path), _UnderWay())
    )


class ManagerPool:
    """Knows the managers' addresses, keeps one channel, and moves on when its manager cannot be reached."""

    def __init__(self, addresses: Sequence[str], credentials: Callable[[], grpc.ChannelCredentials]) -> None:
        if not addresses:
            raise ValueError("a pool needs at least one address")
        self._addresses = list(dict.fromkeys(addresses))
        self._credentials = credentials
        self._channel: grpc.aio.Channel | None = None
        self._under_way = _UnderWay()
        self._channel_address = ""

    @property
    def address(self) -> str:
        """The manager that is asked now."""
        return self._addresses[0]

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(self._addresses)

    def channel(self) -> grpc.aio.Channel:
        """Return the channel to the present manager, opening it when needed."""
        if self._channel is None or self._channel_address != self.address:
            self._under_way = _UnderWay()
            self._channel = _open(self.address, self._credentials(), self._under_way)
            self._channel_address = self.address
        return self._channel

    async def move_on(self, failed: str = "") -> None:
        """The manager `failed` (else the present one) does not answer: the next one is asked from now on.

        Several calls may fail at once with the same manager; the pool moves on once.
        """
        if failed in ("", self.address):
            self._addresses.append(self._addresses.pop(0))
            await self.reconnect()

    async def reconnect(self) -> None:
        """Drop the channel; the next use opens one with fresh credentials. Calls under way end as Unreachable."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await self._under_way.end()
            await channel.close(None)

    def update(self, addresses: Iterable[str]) -> None:
        """Learn the present managers; the one in use stays first while it is one of them."""
        fresh = list(dict.fromkeys(addresses))
        if fresh:
            self._addresses = sorted(fresh, key=lambda a: a != self.address)

    async def call(self, ask: Callable[[grpc.aio.Channel], Awaitable[T]]) -> T:
        """Return `await ask(channel)`, trying each manager once when one is Unavailable."""
        failure: Unavailable | None = None
        for _ in range(len(self._addresses)):
            asked = self.address
            try:
                return await ask(self.channel())
            except Unavailable as error:
                failure = error
                await self.move_on(asked)
        assert failure is not None
        raise failure

    async def close(self) -> None:
        await self.reconnect()
