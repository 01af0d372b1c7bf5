"""Clients of the API's part of consensus.py, and the bare echo it is compared with: grpc.aio with mutual TLS.

Each side is a process of its own. The echo answers the same messages with nothing behind it: what is left of its rate
is what a durable write of three managers costs beside gRPC itself.

    python consensus_api.py serve PORT CERTIFICATES
    python consensus_api.py call | write ADDRESS CERTIFICATES OUTSTANDING SECONDS
"""

import asyncio
import json
import secrets
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc.aio

from pyswarm.proto.rpc.client import open_channel
from pyswarm.proto.rpc.server import OPTIONS
from pyswarm.proto.rpc.tls import channel_credentials, server_credentials
from pyswarm.proto.v1 import control_pb2 as pb
from pyswarm.proto.v1 import control_pb2_grpc, types_pb2

VALUE_BYTES = 256


class Echo(control_pb2_grpc.ControlServicer):
    async def CreateConfig(self, request: pb.CreateConfigRequest, context: Any) -> types_pb2.Config:
        return types_pb2.Config(id="0" * 25, version=1, spec=request.spec)


async def serve(port: str, certificates: str) -> None:
    server = grpc.aio.server(options=OPTIONS)
    control_pb2_grpc.add_ControlServicer_to_server(Echo(), server)
    server.add_secure_port(f"127.0.0.1:{port}", server_credentials(Path(certificates)))
    await server.start()
    print(json.dumps({"ready": True}), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


def new_config() -> pb.CreateConfigRequest:
    """A name nobody has, and 256 bytes."""
    return pb.CreateConfigRequest(spec=types_pb2.ConfigSpec(name=secrets.token_hex(8), data=bytes(VALUE_BYTES)))


async def call(stub: Any, outstanding: int, seconds: float) -> dict[str, float]:
    """Make unary calls, so many at once."""
    took: list[float] = []

    async def one() -> int:
        await stub.CreateConfig(new_config(), timeout=20)
        return 1

    rate = await _repeat(one, took, outstanding, seconds)
    return _figures(rate, took)


async def write(stub: Any, outstanding: int, seconds: float) -> dict[str, float]:
    """Write on one stream, each time as many as were answered."""
    took: list[float] = []
    stream = stub.Write()

    async def one() -> int:
        writes = [pb.ClusterWrite(create_config=new_config()) for _ in range(outstanding)]
        await stream.write(pb.WriteRequest(writes=writes))
        answer = await stream.read()
        assert len(answer.results) == outstanding
        assert not any(result.HasField("error") for result in answer.results)
        return outstanding

    rate = await _repeat(one, took, 1, seconds)
    await stream.done_writing()
    return _figures(rate, took)


async def _repeat(one: Callable[[], Awaitable[int]], took: list[float], at_once: int, seconds: float) -> float:
    began = time.perf_counter()
    done = 0

    async def again() -> None:
        nonlocal done
        while (at := time.perf_counter()) < began + seconds:
            made = await one()
            done += made
            took.append(time.perf_counter() - at)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(again())
    return done / (time.perf_counter() - began)


def _figures(rate: float, took: list[float]) -> dict[str, float]:
    took.sort()
    return {"rate": rate, "p50_ms": took[len(took) // 2] * 1000, "p99_ms": took[len(took) * 99 // 100] * 1000}


async def main(what: str, address: str, certificates: str, *rest: str) -> None:
    if what == "serve":
        await serve(address, certificates)
        return
    outstanding, seconds = int(rest[0]), float(rest[1])
    async with open_channel(address, channel_credentials(Path(certificates))) as channel:
        stub = control_pb2_grpc.ControlStub(channel)
        await asyncio.wait_for(channel.channel_ready(), 10)
        measure = call if what == "call" else write
        print(json.dumps(await measure(stub, outstanding, seconds)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
