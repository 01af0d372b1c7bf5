"""The doors of a daemon on real sockets with real TLS, and a servicer behind them that says who came in."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc.aio

from pyswarm.proto.rpc.client import open_channel
from pyswarm.proto.rpc.identity import Caller, current_caller
from pyswarm.proto.rpc.server import Door, Gate, add_secure_port, build_server
from pyswarm.proto.rpc.tls import bootstrap_credentials, channel_credentials, server_credentials
from pyswarm.proto.v1 import ca_pb2, ca_pb2_grpc, control_pb2, control_pb2_grpc, logs_pb2, logs_pb2_grpc


class Greeter(ca_pb2_grpc.CAServicer, ca_pb2_grpc.BootstrapServicer, logs_pb2_grpc.LogBrokerServicer):
    """One method of each kind of call. Notes who called; raises `error` when it has one."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.error: BaseException | None = None
        self.callers: list[Caller] = []
        self.remaining: list[float | None] = []
        self.hold: asyncio.Event | None = None
        self.entered = asyncio.Event()
        self.left = asyncio.Event()

    async def _greet(self, context: Any) -> str:
        caller = current_caller()
        self.callers.append(caller)
        self.remaining.append(context.time_remaining())
        self.entered.set()
        try:
            if self.hold is not None:
                await self.hold.wait()
        finally:
            self.left.set()
        if self.error is not None:
            raise self.error
        return f"{self.name}:{caller.node_id}"

    async def RenewNodeCertificate(self, request: Any, context: Any) -> Any:
        return ca_pb2.RenewNodeCertificateResponse(certificate_pem=await self._greet(context))

    async def GetRootCertificate(self, request: Any, context: Any) -> Any:
        return ca_pb2.GetRootCertificateResponse(certificate_pem=await self._greet(context))

    async def ListenSubscriptions(self, request: Any, context: Any) -> AsyncIterator[Any]:
        for number in range(3):
            yield logs_pb2.LogSubscription(id=f"{number}:{await self._greet(context)}")

    async def PublishLogs(self, requests: Any, context: Any) -> Any:
        got = [message.subscription_id async for message in requests]
        await self._greet(context)
        self.published = got
        return logs_pb2.PublishLogsResponse()

    def add_to(self, server: grpc.aio.Server) -> None:
        ca_pb2_grpc.add_CAServicer_to_server(self, server)
        ca_pb2_grpc.add_BootstrapServicer_to_server(self, server)
        logs_pb2_grpc.add_LogBrokerServicer_to_server(self, server)
        control_pb2_grpc.add_ControlServicer_to_server(_ForManagers(self), server)


class _ForManagers(control_pb2_grpc.ControlServicer):
    def __init__(self, greeter: Greeter) -> None:
        self._greeter = greeter

    async def GetInfo(self, request: Any, context: Any) -> Any:
        return control_pb2.Info(node_id=await self._greeter._greet(context))

    async def ListNodes(self, request: Any, context: Any) -> Any:
        await self._greeter._greet(context)
        return control_pb2.ListNodesResponse()


@asynccontextmanager
async def serving(
    certificates: Path,
    greeter: Greeter,
    *,
    door: Door = Door.MUTUAL,
    cluster_id: str = "ours",
    interceptors: Sequence[Any] = (),
    also: Sequence[Callable[[Any], None]] = (),
    address: str = "127.0.0.1:0",
    **gate: Any,
) -> AsyncIterator[str]:
    """Serve the greeter; yields host:port."""
    server = build_server(Gate(door, cluster_id=cluster_id, **gate), [greeter.add_to, *also], interceptors=interceptors)
    credentials = server_credentials if door is Door.MUTUAL else bootstrap_credentials
    port = add_secure_port(server, address, credentials(certificates))
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


class Relay:
    """A stretch of network: hands bytes on between its own address and another, until it is cut."""

    def __init__(self, target: str) -> None:
        self._target = target.rpartition(":")
        self._writers: list[asyncio.StreamWriter] = []
        self.address = ""

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._joined, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def cut(self) -> None:
        """Break every connection, and take no more."""
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _joined(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self._target
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        self._writers += [writer, far_writer]
        await asyncio.gather(self._copy(reader, far_writer), self._copy(far_reader, writer))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


@asynccontextmanager
async def relay(target: str) -> AsyncIterator[Relay]:
    made = Relay(target)
    await made.open()
    try:
        yield made
    finally:
        made.cut()


def connect(address: str, certificates: Path) -> grpc.aio.Channel:
    return open_channel(address, channel_credentials(certificates))


async def renew(channel: grpc.aio.Channel, **how: Any) -> str:
    """A unary call that any node may make."""
    answer = await ca_pb2_grpc.CAStub(channel).RenewNodeCertificate(ca_pb2.RenewNodeCertificateRequest(), **how)
    return str(answer.certificate_pem)


async def info(channel: grpc.aio.Channel, **how: Any) -> str:
    """A unary call for managers and the local administrator."""
    return str((await control_pb2_grpc.ControlStub(channel).GetInfo(control_pb2.GetInfoRequest(), **how)).node_id)


async def nodes(channel: grpc.aio.Channel, **how: Any) -> None:
    """A unary call for managers that only the leader answers, and that changes nothing."""
    await control_pb2_grpc.ControlStub(channel).ListNodes(control_pb2.ListNodesRequest(), **how)


async def listen(channel: grpc.aio.Channel, **how: Any) -> list[str]:
    """A call with a streamed response, read to its end."""
    request = logs_pb2.ListenSubscriptionsRequest()
    return [s.id async for s in logs_pb2_grpc.LogBrokerStub(channel).ListenSubscriptions(request, **how)]


async def publish(channel: grpc.aio.Channel, names: Sequence[str], **how: Any) -> None:
    """A call with streamed requests."""

    async def messages() -> AsyncIterator[logs_pb2.PublishLogsMessage]:
        for name in names:
            yield logs_pb2.PublishLogsMessage(subscription_id=name)

    await logs_pb2_grpc.LogBrokerStub(channel).PublishLogs(messages(), **how)


async def raw(channel: grpc.aio.Channel, kind: str, method: str, *requests: bytes) -> list[bytes]:
    """Any method, by its full name and kind, on bytes."""

    async def stream() -> AsyncIterator[bytes]:
        for request in requests:
            yield request

    call = getattr(channel, kind)(method)(stream() if kind.startswith("stream") else requests[0], timeout=10)
    if kind.endswith("stream"):
        return [response async for response in call]
    return [await call]
