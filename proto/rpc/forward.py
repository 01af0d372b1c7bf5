"""Bring calls that only the leader can answer to the leader: once, undecoded, with the first caller's identity."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio
import msgspec

from pyswarm.proto.errors import NotLeader, Unavailable, Unreachable
from pyswarm.proto.rpc.access import rule_of
from pyswarm.proto.rpc.identity import CALLER_KEY, FORWARDED_KEY, current_caller

MAJORITY = "A majority of the managers must run and reach each other; see `pyswarm info`."

Leadership = Callable[[], tuple[bool, str | None]]
"""(whether this manager leads and is ready, the leader's API address if it is known)."""


class LeaderForwarder(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Answers `leader_only` methods here when this manager leads, and hands them on when it does not."""

    def __init__(self, leadership: Leadership, open_channel: Callable[[str], grpc.aio.Channel]) -> None:
        self._leadership = leadership
        self._open = open_channel
        self._channel: grpc.aio.Channel | None = None
        self._address = ""

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = await continuation(details)
        if handler is None or not rule_of(details.method).leader_only:
            return handler
        leads, _ = self._leadership()
        return handler if leads else self._passing_on(details.method, handler)

    async def close(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close(None)

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
            try:
                response: bytes = await self._call(method, kind, request, context)
            except Unreachable as error:
                raise _cut_off(error) from error
            return response

        return behaviour

    def _stream(self, method: str, kind: str) -> Callable[[Any, Any], AsyncIterator[bytes]]:
        async def behaviour(request: Any, context: Any) -> AsyncIterator[bytes]:
            try:
                async for response in self._call(method, kind, request, context):
                    yield response
            except Unreachable as error:
                raise _cut_off(error) from error

        return behaviour

    def _call(self, method: str, kind: str, request: Any, context: Any) -> Any:
        metadata = dict(context.invocation_metadata())
        leads, address = self._leadership()
        if FORWARDED_KEY in metadata:
            raise NotLeader("the call was handed on to this manager, which does not lead", leader=address or "")
        if leads or address is None:
            # `leads`: elected between the two looks; asking again finds the loops running.
            raise Unavailable(
                "the cluster has no leader",
                remedy=MAJORITY,
            )
        caller = msgspec.msgpack.encode(current_caller())
        call = getattr(self._channel_to(address), kind)(method)
        return call(request, metadata=((FORWARDED_KEY, "1"), (CALLER_KEY, caller)), timeout=context.time_remaining())

    def _channel_to(self, address: str) -> grpc.aio.Channel:
        if self._channel is None or self._address != address:
            self._channel, self._address = self._open(address), address
        return self._channel


def _cut_off(error: Unreachable) -> Unavailable:
    """What the caller must know: not its own manager is the trouble, but the way from there to the leader."""
    return Unavailable(f"this manager cannot reach the leader: {error.message}", remedy=MAJORITY)
