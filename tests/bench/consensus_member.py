"""One member of the measured group, in a process of its own: the real engine, journal, sealing and mutual TLS.

Started by consensus_group.py, which sends it one JSON object a line and reads one back for each. `kv` replicates a
map of bytes, as etcd does; `store` replicates the manager's own store and serves the control API on a TLS port.
Writes are proposed in the leader's process, as the manager's own loops do. Ends with its standard input.

    python consensus_member.py '{"name": ..., "machine": "kv", ...}'
"""

import asyncio
import json
import sys
import time
from array import array
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from pyswarm.manager.api.control import ControlServicer
from pyswarm.manager.main import run
from pyswarm.manager.raft.engine import RaftEngine
from pyswarm.manager.raft.port import Member
from pyswarm.manager.raft.settings import RaftSettings
from pyswarm.manager.sealing.keys import open_sealer
from pyswarm.manager.store.changes import Create, Update
from pyswarm.manager.store.store import Store
from pyswarm.manager.store.writer import Writer
from pyswarm.proto import log as logging
from pyswarm.proto.clock import SYSTEM_CLOCK
from pyswarm.proto.entropy import SYSTEM_ENTROPY
from pyswarm.proto.errors import NotLeader, SwarmError, Unavailable
from pyswarm.proto.model.objects import Config
from pyswarm.proto.model.spec import ConfigSpec
from pyswarm.proto.rpc.server import Door, Gate, add_secure_port, build_server
from pyswarm.proto.rpc.tls import raft_ssl_contexts, server_credentials
from pyswarm.proto.v1 import control_pb2_grpc

KEYS = 10_000
KEY_BYTES = 16
PIECE_BYTES = 64 * 1024
NAMES = [b"%016d" % (number % KEYS) for number in range(2 * KEYS)]
"""The keys, twice over: any run of them can be cut out."""

SAMPLE_MAX = 50_000
"""Of how many writes, evenly spread over a run, the percentiles are taken: to sort them takes some 10 ms."""


class Map:
    """A state machine like etcd's: each payload puts one or more values of equal size under keys of 16 bytes."""

    def __init__(self) -> None:
        self.held: dict[bytes, bytes] = {}

    def apply(self, index: int, payload: bytes) -> bytes:
        size = KEY_BYTES + int.from_bytes(payload[:4], "big")
        for start in range(4, len(payload), size):
            self.held[payload[start : start + KEY_BYTES]] = payload[start + KEY_BYTES : start + size]
        return b""

    def snapshot(self) -> Iterable[bytes]:
        return self._pieces(tuple(self.held.items()))

    @staticmethod
    def _pieces(held: tuple[tuple[bytes, bytes], ...]) -> Iterator[bytes]:
        piece: list[bytes] = []
        size = 0
        for key, value in held:
            piece += (len(value).to_bytes(4, "big"), key, value)
            size += len(value) + KEY_BYTES + 4
            if size >= PIECE_BYTES:
                yield b"".join(piece)
                piece, size = [], 0
        yield b"".join(piece)

    def restore(self, index: int, pieces: Iterable[bytes]) -> None:
        self.held = {}
        for piece in pieces:
            at = 0
            while at < len(piece):
                value = at + 4 + KEY_BYTES
                end = value + int.from_bytes(piece[at : at + 4], "big")
                self.held[piece[at + 4 : value]] = piece[value:end]
                at = end


def put(number: int, *, value_bytes: int, changes: int) -> bytes:
    """Return a payload that puts `changes` values; `number` says under which keys."""
    filling = bytes(value_bytes)
    first = number * changes % KEYS
    return value_bytes.to_bytes(4, "big") + filling.join(NAMES[first : first + changes]) + filling


class Writing:
    """What writes of one kind go through: `once` commits one and returns when it is durable and applied."""

    def __init__(self, engine: RaftEngine, store: Store | None) -> None:
        self._engine = engine
        self._writer = store and Writer(engine, store, clock=SYSTEM_CLOCK, entropy=SYSTEM_ENTROPY)
        self._store = store

    async def prepare(self, *, value_bytes: int, changes: int) -> None:
        """Have the objects there that writes to the store update."""
        if self._store is not None and self._writer is not None and not list(self._store.view.configs()):
            configs = [self._config(number, bytes(value_bytes)) for number in range(KEYS)]
            await self._writer.write_batch([Create(config) for config in configs])

    @staticmethod
    def _config(number: int, data: bytes) -> Config:
        return Config(id=f"config{number:010}", spec=ConfigSpec(name=f"name{number:010}", data=data))

    async def once(self, number: int, *, value_bytes: int, changes: int) -> None:
        if self._store is None or self._writer is None:
            await self._engine.propose(put(number, value_bytes=value_bytes, changes=changes))
            return
        seen = self._store.view
        updates = []
        for key in range(number * changes, (number + 1) * changes):
            config = seen.config(f"config{key % KEYS:010}")
            assert config is not None
            updates.append(Update(replace(config, spec=replace(config.spec, data=bytes(value_bytes)))))
        await self._writer.write(updates)


async def load(writing: Writing, *, outstanding: int, value_bytes: int, changes: int, seconds: float) -> dict[str, Any]:
    """Write with `outstanding` writers for a while; return how many were committed and how long each took."""
    await writing.prepare(value_bytes=value_bytes, changes=changes)
    # No list: to free the millions of objects of a long run would hold the loop as well.
    took = array("d")
    began = time.perf_counter()
    end = began + seconds

    async def write(number: int) -> None:
        at = time.perf_counter()
        while at < end:
            await writing.once(number, value_bytes=value_bytes, changes=changes)
            now = time.perf_counter()
            took.append(now - at)
            at = now
            number += outstanding

    async with asyncio.TaskGroup() as group:
        for number in range(outstanding):
            group.create_task(write(number))
    elapsed = time.perf_counter() - began
    # To sort them all would hold the loop, and the leader's heartbeats, for longer than followers wait for one.
    sample = sorted(took[:: len(took) // SAMPLE_MAX + 1])
    return {
        "rate": len(took) / elapsed,
        "p50_ms": sample[len(sample) // 2] * 1000,
        "p99_ms": sample[len(sample) * 99 // 100] * 1000,
    }


async def fill(engine: RaftEngine, *, entries: int, value_bytes: int, outstanding: int) -> dict[str, Any]:
    """Put `entries` values under as many keys."""

    async def write(first: int) -> None:
        for number in range(first, entries, outstanding):
            await engine.propose(value_bytes.to_bytes(4, "big") + b"%016d" % number + bytes(value_bytes))

    async with asyncio.TaskGroup() as group:
        for first in range(outstanding):
            group.create_task(write(first))
    return {"index": engine.applied_index}


async def take_over(engine: RaftEngine, *, writers: int) -> None:
    """Write whenever this member leads, for ever; say when the first write of each leadership was acknowledged."""

    async def write(number: int) -> None:
        told_term = 0
        async for leadership in engine.watch_leadership():
            while leadership.is_leader:
                try:
                    await engine.propose(put(number, value_bytes=256, changes=1))
                except (NotLeader, Unavailable):
                    break
                if number == 0 and told_term != leadership.term:
                    told_term = leadership.term
                    say({"acknowledged_at": time.monotonic(), "term": leadership.term})
                number += writers

    async with asyncio.TaskGroup() as group:
        for number in range(writers):
            group.create_task(write(number))


def say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


class MemberProcess:
    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._store = Store() if options["machine"] == "store" else None
        self._member = _member(options)
        self._engine: RaftEngine

    async def run(self) -> None:
        options, directory = self._options, Path(self._options["directory"])
        certificates = Path(options["certificates"])
        settings = RaftSettings(**options["settings"])
        self._engine = await RaftEngine.open(
            member=self._member,
            members=(self._member,) if options["is_first"] else (),
            state_machine=self._store or Map(),
            directory=directory / "raft",
            sealer=open_sealer(directory / "sealing"),
            tls=partial(raft_ssl_contexts, certificates),
            listen=("127.0.0.1", int(self._member.raft_addr.rpartition(":")[2])),
            cluster_id=options["cluster_id"],
            settings=settings,
        )
        lines = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._engine.run())
            if self._store is not None:
                await self._serve(self._store, certificates)
            say({"ready": True})
            work: set[asyncio.Task[None]] = set()
            while line := await lines.readline():
                task = group.create_task(self._answer(json.loads(line)))
                work.add(task)
                task.add_done_callback(work.discard)
            for task in work:
                task.cancel()
            await self._engine.close()

    async def _serve(self, store: Store, certificates: Path) -> None:
        writer = Writer(self._engine, store, clock=SYSTEM_CLOCK, entropy=SYSTEM_ENTROPY)
        control = ControlServicer(
            store=store, writer=writer, consensus=self._engine, clock=SYSTEM_CLOCK, entropy=SYSTEM_ENTROPY
        )
        gate = Gate(Door.MUTUAL, cluster_id=self._options["cluster_id"])
        server = build_server(gate, [lambda s: control_pb2_grpc.add_ControlServicer_to_server(control, s)])
        add_secure_port(server, self._member.api_addr, server_credentials(certificates))
        await server.start()
        # A server that nobody holds is stopped.
        self._server = server

    async def _answer(self, asked: dict[str, Any]) -> None:
        engine = self._engine
        try:
            match asked.pop("do"):
                case "status":
                    leadership = engine.leadership
                    say({"leads": leadership.is_ready, "term": leadership.term, "index": engine.applied_index})
                case "admit":
                    await engine.add_member(_member(asked["member"]))
                    say({})
                case "load":
                    say(await load(Writing(engine, self._store), **asked))
                case "fill":
                    say(await fill(engine, **asked))
                case "reach":
                    while engine.applied_index < asked["index"]:  # noqa: ASYNC110 - no event announces it
                        await asyncio.sleep(0.002)
                    say({"index": engine.applied_index})
                case "take over":
                    await take_over(engine, **asked)
        except SwarmError as error:
            say({"error": error.message})


def _member(options: dict[str, Any]) -> Member:
    return Member(options["raft_id"], options["node_id"], options["raft_addr"], options["api_addr"])


if __name__ == "__main__":
    logging.configure(component="member", level="error")
    run(MemberProcess(json.loads(sys.argv[1])).run())
