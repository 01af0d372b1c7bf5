"""What passes through a running container, measured: another process in it, and all it writes."""

import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from lib import oci_peers
from lib.runtime_host import RuntimeHost

from pyswarm.proto.v1 import runtime_pb2 as pb
from pyswarm.proto.v1 import types_pb2 as types

_LINE = b"a line of the length that lines of logs usually have, with a number or two in it: 4711 0815 ......\n"
_FILE_BYTES = 32 * 1024 * 1024
_REPEATED = 8


async def executions(host: RuntimeHost, peers: Sequence[oci_peers.CommandLine], rounds: int) -> dict[str, list[float]]:
    """Return milliseconds from the request to execute `true` in a running container to its exit code, by runtime."""
    times: dict[str, list[float]] = {"pyswarm": []} | {peer.name: [] for peer in peers}
    await host.start("running", *oci_peers.SLEEP)
    for peer in peers:
        peer.create(f"{peer.name}-running", oci_peers.SLEEP)
        peer.start(f"{peer.name}-running")
    try:
        for _ in range(rounds):
            began = time.perf_counter()
            await _execute(host)
            times["pyswarm"].append((time.perf_counter() - began) * 1000)
            for peer in peers:
                began = time.perf_counter()
                peer.execute(f"{peer.name}-running")
                times[peer.name].append((time.perf_counter() - began) * 1000)
    finally:
        for peer in peers:
            peer.delete(f"{peer.name}-running")
        await host.remove("running", force=True)
    return times


async def _execute(host: RuntimeHost) -> None:
    async def request() -> AsyncIterator[pb.ExecInput]:
        yield pb.ExecInput(start=pb.ExecConfig(container="running", args=oci_peers.TRUE))

    async for output in host.stub.ExecContainer(request()):
        if output.WhichOneof("kind") == "end":
            assert output.end.exit_code == 0, output


async def log_mb_per_s(host: RuntimeHost, folder: Path) -> float:
    """Return how many megabytes a second of a container's lines reach its log, from start to the end being known."""
    lines = folder / "lines"
    lines.write_bytes(_LINE * (_FILE_BYTES // len(_LINE)))
    source = types.Mount(type=types.BIND, source=str(lines), target="/lines", read_only=True)
    written = lines.stat().st_size * _REPEATED
    await host.create("writer", "cat", *["/lines"] * _REPEATED, mounts=[source])
    began = time.perf_counter()
    await host.stub.StartContainer(pb.ContainerId(id="writer"))
    ended = await host.wait("writer")
    seconds = time.perf_counter() - began
    assert ended.exit_code == 0, ended
    (last,) = await host.records("writer", tail=1)
    assert last.data + b"\n" == _LINE
    await host.remove("writer")
    lines.unlink()
    return written / 1e6 / seconds
