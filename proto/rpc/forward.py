"""Bring calls that only the leader can answer to the leader: once, undecoded, with the first caller's identity."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import msgspec

from pyswarm.proto.errors import NotLeader, OutcomeUnknown, PermissionDenied, Unavailable, Unreachable
from pyswarm.proto.log import get_logger
from pyswarm.proto.rpc.access import rule_of
from pyswarm.proto.rpc.identity import CALLER_KEY, FORWARDED_KEY, current_caller

log = get_logger(__name__)

MAJORITY = "A majority of the managers must run and reach each other; see `pyswarm info`."
LOOK = "If the call was to change something, that may have been done: look before you repeat it."

Leadership = Callable[[], tuple[bool, str | None]]
"""(whether this manager leads and is ready, the leader's API address if it is known)."""


class _Route:
    """A channel to one leader. It is closed when it is no longer the way to the leader and its last call has ended."""

    def __init__(self, address: str, channel: grpc.aio.Channel) -> None:
        self.address = address
        self.channel = channel
        self.calls = 0
        self.is_retired = False

    async def retire(self) -> None:
        self.is_retired = True
        await self.close_when_idle()

    async def close_when_idle(self) -> None:
        if self.is_retired and self.calls == 0:
            await self.channel.close(None)


class LeaderForwarder(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Answers `leader_only` methods here when this manager leads, and hands them on when it does not."""

    def __init__(self, leadership: Leadership, open_channel: Callable[[str], grpc.aio.Channel]) -> None:
        self._leadership = leadership
        self._open = open_channel
        self._route: _Route | None = None

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = await continuation(details)
        if handler is None or not rule_of(details.method).leader_only:
            return handler
        leads, _ = self._leadership()
        return handler if leads else self._passing_on(details.method, handler)

    async def close(self) -> None:
        """End the calls under way and close the channel."""
        route, self._route = self._route, None
        if route is not None:
            await route.channel.close(None)

    def _passing_on(self, method: str, handler: Any) -> Any:
        if handler.request_streaming and handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(self._stream(method, "stream_stream"))
        if handler.request_streaming:
            return grpc.stream_unary_rpc_method_handler(self._single(method, "stream_unary"))
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(self._stream(method, "unary_stream"))
        return grpc.unary_unary_rpc_method_handler(self._single(method, "unary_unary"))

    def _single(self, method: str, kind: str) -> Callable[[Any, Any], Any]:
        async def behaviour(request: Any, context: Any) -> bytes:
            async with self._call(method, kind, request, context) as call:
                response: bytes = await call
                return response

        return behaviour

    def _stream(self, method: str, kind: str) -> Callable[[Any, Any], AsyncIterator[bytes]]:
        async def behaviour(request: Any, context: Any) -> AsyncIterator[bytes]:
            async with self._call(method, kind, request, context) as call:
                async for response in call:
                    yield response

        return behaviour

    @asynccontextmanager
    async def _call(self, method: str, kind: str, request: Any, context: Any) -> AsyncIterator[Any]:
        metadata = dict(context.invocation_metadata())
        leads, address = self._leadership()
        if FORWARDED_KEY in metadata:
            raise NotLeader("the call was handed on to this manager, which does not lead", leader=address or "")
        if leads or address is None:
            # `leads`: elected between the two looks; asking again finds the loops running.
            raise Unavailable("the cluster has no leader", remedy=MAJORITY)
        caller = current_caller()
        sent = ((FORWARDED_KEY, "1"), (CALLER_KEY, msgspec.msgpack.encode(caller)))
        former, route = self._route, self._enter_route(address)
        call = None
        try:
            if former is not None and former is not route:
                await former.retire()
            call = getattr(route.channel, kind)(method)(request, metadata=sent, timeout=context.time_remaining())
            yield call
        except Unreachable as error:
            # The next call opens a fresh channel: with the certificate of today, and at once.
            await self._drop(route)
            raise _cut_off(error) from error
        except PermissionDenied as error:
            # The leader sees this manager as its peer: only here is it known who really called.
            log.warning("call refused", method=method, peer=caller.peer, by=address, reason=error.message)
            raise
        finally:
            if call is not None:
                # Whoever asked has gone: the leader need not go on. Nothing happens to a call that has ended.
                call.cancel()
            route.calls -= 1
            await route.close_when_idle()

    def _enter_route(self, address: str) -> _Route:
        if self._route is None or self._route.address != address:
            self._route = _Route(address, self._open(address))
        self._route.calls += 1
        return self._route

    async def _drop(self, route: _Route) -> None:
        if self._route is route:
            self._route = None
        await route.retire()


def _cut_off(error: Unreachable) -> Unavailable:
    """What the caller must know: not its own manager is the trouble, but the way from there to the leader.

    And whether the leader may have done what was asked: only a call that was never sent certainly had no effect.
    """
    if error.was_sent:
        return OutcomeUnknown(f"the leader did not answer: {error.message}", remedy=LOOK)
    return Unavailable(f"this manager cannot reach the leader: {error.message}", remedy=MAJORITY)
