"""Rebuild a gRPC method handler around another behaviour, for all four kinds of call."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

Handler = grpc.RpcMethodHandler
Before = Callable[[Any], Awaitable[None]]
Failed = Callable[[Any, Exception], Awaitable[None]]


def wrap(handler: Any, *, before: Before, failed: Failed) -> Any:
    """Return `handler` with `before(context)` ahead of its behaviour and `failed(context, error)` for what it raises.

    `failed` ends the call by aborting its context.
    """
    serializers = {
        "request_deserializer": handler.request_deserializer,
        "response_serializer": handler.response_serializer,
    }
    if handler.response_streaming:
        behaviour = handler.stream_stream if handler.request_streaming else handler.unary_stream

        async def streaming(request: Any, context: Any) -> AsyncIterator[Any]:
            try:
                await before(context)
                async for response in behaviour(request, context):
                    yield response
            except Exception as error:  # noqa: BLE001 - handed on, never swallowed
                await failed(context, error)

        make = (
            grpc.stream_stream_rpc_method_handler if handler.request_streaming else grpc.unary_stream_rpc_method_handler
        )
        return make(streaming, **serializers)

    single = handler.stream_unary if handler.request_streaming else handler.unary_unary

    async def unary(request: Any, context: Any) -> Any:
        try:
            await before(context)
            return await single(request, context)
        except Exception as error:  # noqa: BLE001 - handed on, never swallowed
            return await failed(context, error)

    make = grpc.stream_unary_rpc_method_handler if handler.request_streaming else grpc.unary_unary_rpc_method_handler
    return make(unary, **serializers)
