"""Bring calls that only the leader can answer to the leader: once, undecoded, with the first caller's identity."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import grpc.aio
import msgspec

from pyswarm.proto.errors import (
    HandedOnAstray,
    NoLeader,
    OutcomeUnknown,
    PermissionDenied,
    SwarmError,
    Unavailable,
    Unreachable,
)
from pyswarm.proto.log import get_logger
from pyswarm.proto.rpc.access import rule_of
from pyswarm.proto.rpc.identity import CALLER_KEY, FORWARDED_KEY, current_caller

log = get_logger(__name__)

LOOK = "What it was to change may have been changed: look before you repeat it."

LAST_WORD_SECONDS = 1.0
"""How long a manager that is no longer known to lead may take to answer what was handed on to it. One that lives and
has been deposed answers at once; one that is cut off would keep the caller waiting until the connection is given up."""

ELECTION_SECONDS = 3.0
"""How long a call waits for a leader while there is none: several elections of the usual length."""

ASK_AGAIN_SECONDS = 0.1

Leadership = Callable[[], tuple[bool, str | None]]
"""(whether this manager leads and is ready, the leader's API address if it is known)."""

Refusal = Callable[[], SwarmError | None]
"""Why this manager will never know a leader again, if that is so."""


class _Route:
    """A channel to one leader. It is closed when it is no longer the way to the leader and its last call has ended."""

    def __init__(self, address: str, channel: grpc.aio.Channel) -> None:
        self.address = address
        self.channel = channel
        self.is_retired = False
        self.given_up: set[Any] = set()
        """Calls that were ended here, before their answer."""
        self._under_way: set[Any] = set()
        self._entered = 0

    async def retire(self) -> None:
        self.is_retired = True
        await self._close_when_idle()

    def enter(self) -> None:
        self._entered += 1

    def begin(self, call: Any) -> None:
        self._under_way.add(call)

    async def leave(self, call: Any | None) -> None:
        """End the call, if it was begun: nothing happens to one that has ended."""
        if call is not None:
            call.cancel()
            self._under_way.discard(call)
            self.given_up.discard(call)
        self._entered -= 1
        await self._close_when_idle()

    def give_up(self) -> None:
        self.given_up |= self._under_way
        for call in self._under_way:
            call.cancel()

    async def _close_when_idle(self) -> None:
        if self.is_retired and self._entered == 0:
            await self.channel.close(None)


class LeaderForwarder(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Answers `leader_only` methods here when this manager leads, and hands them on when it does not."""

    def __init__(
        self,
        leadership: Leadership,
        open_channel: Callable[[str], grpc.aio.Channel],
        *,
        refusal: Refusal = lambda: None,
    ) -> None:
        self._leadership = leadership
        self._refusal = refusal
        self._open = open_channel
        self._route: _Route | None = None
        self._changed = asyncio.Event()

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = await continuation(details)
        if handler is None or not rule_of(details.method).leader_only:
            return handler
        leads, _ = self._leadership()
        return handler if leads else self._passing_on(details.method, handler)

    async def follow(self, leaders: AsyncIterator[str | None]) -> None:
        """Give up the calls under way to a manager that is no longer taken for the leader, until `leaders` ends.

        `leaders` yields the leader's API address, or None, at each change.
        """
        async for address in leaders:
            # A fresh event for those who come later: one that was set cannot be waited for again.
            self._changed.set()
            self._changed = asyncio.Event()
            route = self._route
            if route is not None and route.address != address:
                self._await_last_word(route)

    def _await_last_word(self, route: _Route) -> None:
        asyncio.get_running_loop().call_later(LAST_WORD_SECONDS, self._give_up_unless_it_leads, route)

    def _give_up_unless_it_leads(self, route: _Route) -> None:
        if self._leadership()[1] != route.address:
            route.give_up()

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
        return grpc.unary_unary_rpc_method_handler(self._patiently(self._single(method, "unary_unary")))

    def _single(self, method: str, kind: str) -> Callable[[Any, Any], Any]:
        async def behaviour(request: Any, context: Any) -> bytes:
            async with self._call(method, kind, request, context) as call:
                response: bytes = await call
                return response

        return behaviour

    def _patiently(self, behaviour: Callable[[Any, Any], Awaitable[bytes]]) -> Callable[[Any, Any], Awaitable[bytes]]:
        """Let a call wait while leadership moves: nothing has been done yet.

        Not one that was handed on to this manager: who handed it on waits, and may ask another one.
        """

        async def patient(request: Any, context: Any) -> bytes:
            loop = asyncio.get_running_loop()
            deadline = loop.time() + ELECTION_SECONDS
            while True:
                changed = self._changed
                try:
                    return await behaviour(request, context)
                except (NoLeader, HandedOnAstray):
                    if loop.time() >= deadline or FORWARDED_KEY in dict(context.invocation_metadata()):
                        raise
                # A leader that is elected but not ready yet shows no further change here: it is asked again.
                with suppress(TimeoutError):
                    async with asyncio.timeout(ASK_AGAIN_SECONDS):
                        await changed.wait()

        return patient

    def _stream(self, method: str, kind: str) -> Callable[[Any, Any], AsyncIterator[bytes]]:
        async def behaviour(request: Any, context: Any) -> AsyncIterator[bytes]:
            async with self._call(method, kind, request, context) as call:
                async for response in call:
                    yield response

        return behaviour

    @asynccontextmanager
    async def _call(self, method: str, kind: str, request: Any, context: Any) -> AsyncIterator[Any]:
        metadata = dict(context.invocation_metadata())
        # It may be this manager's own address: elected between the two looks.
        _, address = self._leadership()
        if FORWARDED_KEY in metadata:
            raise HandedOnAstray("the call was handed on to a manager that does not lead", leader=address or "")
        if (refusal := self._refusal()) is not None:
            raise refusal
        if address is None:
            raise NoLeader("the cluster has no leader")
        caller = current_caller()
        sent = ((FORWARDED_KEY, "1"), (CALLER_KEY, msgspec.msgpack.encode(caller)))
        former, route = self._route, self._enter_route(address)
        call = None
        try:
            if former is not None and former is not route:
                self._await_last_word(former)
                await former.retire()
            call = getattr(route.channel, kind)(method)(request, metadata=sent, timeout=context.time_remaining())
            route.begin(call)
            yield call
        except Unreachable as error:
            # The next call opens a fresh channel: with the certificate of today, and at once.
            await self._drop(route)
            raise _cut_off(method, _fell_silent(address) if call in route.given_up else error) from error
        except asyncio.CancelledError as error:
            if call not in route.given_up:
                raise  # the caller has gone
            await self._drop(route)
            raise _cut_off(method, _fell_silent(address)) from error
        except PermissionDenied as error:
            # The leader sees this manager as its peer: only here is it known who really called.
            log.warning("call refused", method=method, peer=caller.peer, by=address, reason=error.message)
            raise
        finally:
            # Whoever asked may have gone: then the leader need not go on.
            await route.leave(call)

    def _enter_route(self, address: str) -> _Route:
        if self._route is None or self._route.address != address:
            self._route = _Route(address, self._open(address))
        self._route.enter()
        return self._route

    async def _drop(self, route: _Route) -> None:
        if self._route is route:
            self._route = None
        await route.retire()


def _fell_silent(address: str) -> Unreachable:
    return Unreachable(f"{address} fell silent, and does not lead any more")


def _cut_off(method: str, error: Unreachable) -> Unavailable:
    """What the caller must know: not its own manager is the trouble, but the way from there to the leader.

    And whether the leader may have done what was asked: not if the call was never sent, nor if it only looks.
    """
    if error.was_sent and not rule_of(method).only_looks:
        return OutcomeUnknown(f"the leader did not answer: {error.message}", remedy=f"{NoLeader.remedy}\n{LOOK}")
    return Unavailable(f"this manager cannot reach the leader: {error.message}", remedy=NoLeader.remedy)
