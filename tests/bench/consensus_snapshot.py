"""What a snapshot of 100,000 objects of 1 KiB costs a leader that goes on serving writes.

Three members over TLS on loopback, on real disks; 16 writers at the leader, which holds the objects. Timed in
interleaved rounds: writes per second without and with a snapshot under way, the longest pause of the leader's event
loop, and the longest single step of its consensus. All three share one process here, so every pause of one is a pause
of all: the figures are worse than those of a cluster, never better.

    python tests/bench/consensus_snapshot.py     # the table, and one line of JSON at the end
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from immutables import Map
from lib.raft_lab import LabMember, RaftLab, eventually, raft_lab

from pyswarm.manager.main import run
from pyswarm.manager.raft.engine import RaftEngine
from pyswarm.manager.raft.settings import RaftSettings

OBJECTS = 100_000
OBJECT_BYTES = 1024
WRITERS = 16
ROUNDS = 5
PIECE_BYTES = 64 * 1024
NEVER = 1_000_000_000


class Objects:
    """A state machine of many objects: a write replaces one of them. As in the store, a view of all costs nothing."""

    def __init__(self, count: int) -> None:
        self.held = Map({number: number.to_bytes(4, "big") * (OBJECT_BYTES // 4) for number in range(count)})

    def apply(self, index: int, payload: bytes) -> bytes:
        self.held = self.held.set(int.from_bytes(payload[:4], "big") % max(1, len(self.held)), payload)
        return b""

    def snapshot(self) -> Iterable[bytes]:
        return self._pieces(self.held)

    @staticmethod
    def _pieces(objects: Map[int, bytes]) -> Iterator[bytes]:
        buffer = bytearray()
        for content in objects.values():
            buffer += len(content).to_bytes(4, "big")
            buffer += content
            if len(buffer) >= PIECE_BYTES:
                yield bytes(buffer)
                buffer.clear()
        yield bytes(buffer)

    def restore(self, index: int, pieces: Iterable[bytes]) -> None:
        for _ in pieces:
            pass


class Watch:
    """Remembers the longest pause of the loop and the longest step of one engine."""

    def __init__(self, engine: RaftEngine) -> None:
        self.pause = self.step = 0.0
        self._at = time.perf_counter()
        self._inner = engine._pump
        engine._pump = self._pump  # type: ignore[method-assign]
        self._beat()

    def reset(self) -> None:
        self.pause = self.step = 0.0

    def _beat(self) -> None:
        now = time.perf_counter()
        self.pause = max(self.pause, now - self._at - 0.005)
        self._at = now
        self._handle = asyncio.get_running_loop().call_later(0.005, self._beat)

    def _pump(self) -> None:
        began = time.perf_counter()
        self._inner()
        self.step = max(self.step, time.perf_counter() - began)

    def stop(self) -> None:
        self._handle.cancel()


class Load:
    def __init__(self, engine: RaftEngine) -> None:
        self.count = 0
        self._engine = engine
        self._is_over = False

    async def write(self, number: int) -> None:
        while not self._is_over:
            await self._engine.propose(number.to_bytes(4, "big") + bytes(OBJECT_BYTES - 4))
            self.count += 1
            number += WRITERS

    def stop(self) -> None:
        self._is_over = True

    async def rate(self, wait: Any) -> float:
        """Return the writes per second until `wait` ends."""
        count, began = self.count, time.perf_counter()
        await wait
        return (self.count - count) / (time.perf_counter() - began)


async def measure(directory: Path, objects: Objects, *, rounds: int = ROUNDS) -> dict[str, float]:
    settings = RaftSettings(snapshot_entries=NEVER, snapshot_bytes=1 << 40)
    async with raft_lab(directory, 3, settings) as lab:
        leader = await _leader_with(lab, objects)
        load, watch = Load(leader.engine), Watch(leader.engine)
        async with asyncio.TaskGroup() as group:
            for number in range(WRITERS):
                group.create_task(load.write(number))
            without, during, seconds, pauses, steps, idle = [], [], [], [], [], []
            for _ in range(rounds):
                watch.reset()
                without.append(await load.rate(_elapse(1.0)))
                idle.append(watch.pause)
                watch.reset()
                began = time.perf_counter()
                during.append(await load.rate(_snapshot(leader)))
                seconds.append(time.perf_counter() - began)
                pauses.append(watch.pause)
                steps.append(watch.step)
            load.stop()
        watch.stop()
    kept = statistics.median(d / w for d, w in zip(during, without, strict=True))
    return {
        "snapshot_rate_kept": round(kept, 3),
        "snapshot_pause_ms": round(statistics.median(pauses) * 1000, 1),
        "snapshot_pause_max_ms": round(max(pauses) * 1000, 1),
        "snapshot_tick_max_ms": round(max(steps) * 1000, 1),
        "snapshot_seconds": round(statistics.median(seconds), 2),
        "writes_per_second_without": round(statistics.median(without)),
        "writes_per_second_during": round(statistics.median(during)),
        "pause_without_max_ms": round(max(idle) * 1000, 1),
    }


async def _leader_with(lab: RaftLab, machine: Objects) -> LabMember:
    leader = await lab.leader()
    leader.engine._machine = machine
    leader.engine._job._pieces = machine.snapshot
    return leader


async def _elapse(seconds: float) -> None:
    done = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, done.set)
    await done.wait()


async def _snapshot(leader: LabMember) -> None:
    engine = leader.engine
    header = engine._state.header
    engine._core.forceLogCompaction()
    engine.wake()
    await eventually(lambda: engine._state.header is not header, seconds=120.0)


def figures(*, objects: int = OBJECTS, rounds: int = ROUNDS) -> dict[str, float]:
    """Measure as a manager runs, and return figures by name; what `make bench-consensus` includes."""
    found: dict[str, float] = {}

    # There before a manager's life begins, as what one restores is: kept from the collector.
    held = Objects(objects)

    async def fill(directory: Path) -> None:
        found.update(await measure(directory, held, rounds=rounds))

    with tempfile.TemporaryDirectory(dir=Path.cwd()) as directory:
        run(fill(Path(directory)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--objects", type=int, default=OBJECTS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    found = figures(objects=options.objects, rounds=options.rounds)
    for name, value in found.items():
        print(f"{name:28} {value}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
