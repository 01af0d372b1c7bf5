"""Our runtime beside crun, runc, podman and docker: how long a container that does nothing lives, and what one costs.

A life is create, start, wait and delete of busybox's `true` with seccomp, namespaces of its own and limits: one `run`
of each, ours through the gRPC service, with an overlay and a log, the command lines' on a plain directory.
All are measured in interleaved rounds, so that a busy machine is unfair to everybody alike; figures are medians, and
ratios those of medians of the same rounds.

    python tests/bench/runtime.py            # about three minutes; the table, and one line of JSON at the end
    python tests/bench/runtime.py --quick    # half a minute: few rounds, no podman and docker

Needs root; installs the peers' Debian packages if they are missing. Everything made is removed again.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from lib import oci_peers
from lib.busybox import make_rootfs
from lib.oci_bundle import CPUS, MEMORY_BYTES, PIDS
from lib.runtime_host import RuntimeHost, runtime_host
from lib.runtime_streams import executions, log_mb_per_s

from pyswarm.proto.v1 import runtime_pb2 as pb
from pyswarm.proto.v1 import types_pb2 as types


class Effort(NamedTuple):
    """How much to measure. `crowds`: numbers of containers that run meanwhile."""

    rounds: int
    slow_every: int
    bursts: int
    starts: int
    crowds: tuple[int, ...]


FULL = Effort(rounds=120, slow_every=15, bursts=3, starts=60, crowds=(100, 500))
QUICK = Effort(rounds=30, slow_every=0, bursts=1, starts=20, crowds=(50,))
WORKERS = 32
_LIMITS = types.Resources(memory_bytes=MEMORY_BYTES, nano_cpus=CPUS * 1_000_000_000, pids=PIDS)


class Times(dict[str, list[float]]):
    """Milliseconds by what was measured."""

    def took(self, key: str, began: float) -> None:
        self.setdefault(key, []).append((time.perf_counter() - began) * 1000)

    def median(self, key: str) -> float:
        return statistics.median(self[key])

    def p99(self, key: str) -> float:
        ordered = sorted(self[key])
        return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]

    def row(self, key: str, against: Sequence[str]) -> str:
        ratios = "".join(f"{self.median(key) / self.median(other):9.3f}" for other in against)
        ordered = sorted(self[key])
        p10 = ordered[len(ordered) // 10]
        return f"{key:12} {len(ordered):5} {p10:9.2f} {self.median(key):9.2f} {self.p99(key):9.2f} {ratios}"


class Ours:
    """A daemon of our own and the calls a client makes."""

    def __init__(self, host: RuntimeHost) -> None:
        self.host = host
        self._count = 0

    def name(self) -> str:
        self._count += 1
        return f"c{self._count}"

    async def create(self, *args: str) -> str:
        name = self.name()
        await self.host.create(name, *args, limits=_LIMITS)
        return name

    async def launch(self, name: str) -> None:
        await self.host.stub.StartContainer(pb.ContainerId(id=name))

    async def finish(self, name: str) -> None:
        ended = await self.host.wait(name)
        assert ended.exit_code == 0, ended
        await self.host.remove(name)

    async def life(self, *args: str) -> None:
        name, config = self.name(), pb.ContainerConfig(image="rootfs", args=args or oci_peers.TRUE, limits=_LIMITS)
        request = pb.RunContainerRequest(id=name, config=config, remove=True)
        _, ended = [container async for container in self.host.stub.RunContainer(request)]
        assert ended.exit_code == 0, ended

    def pids(self) -> list[int]:
        spawner = self.host.spawner_pid()
        assert self.host.daemon is not None
        assert spawner is not None
        return [self.host.daemon.pid, spawner]


async def whole_lives(ours: Ours, in_python: Ours, peers: Sequence[oci_peers.Peer], effort: Effort) -> Times:
    times = Times()
    for number in range(-3, effort.rounds):  # the first warm up everybody's caches
        began = time.perf_counter()
        await ours.life()
        times.took("pyswarm", began)
        began = time.perf_counter()
        await in_python.life()
        times.took("python only", began)
        for peer in peers:
            if isinstance(peer, oci_peers.CommandLine) or (number >= 0 and number % effort.slow_every == 0):
                began = time.perf_counter()
                peer.run(f"{peer.name}-life")
                times.took(peer.name, began)
        if number == -1:
            times.clear()
    return times


async def bursts(ours: Ours, peers: Sequence[oci_peers.Peer], effort: Effort) -> dict[str, float]:
    """Return containers per second, by runtime, with 32 lives going on at any time."""
    seconds: dict[str, float] = {}
    counts: dict[str, int] = {}

    async def measure(name: str, count: int, life: Callable[[int], Awaitable[None]]) -> None:
        left = iter(range(count))

        async def worker(lane: int) -> None:
            for _ in left:
                await life(lane)

        began = time.perf_counter()
        await asyncio.gather(*(worker(lane) for lane in range(WORKERS)))
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - began
        counts[name] = counts.get(name, 0) + count

    for number in range(effort.bursts):
        await measure("pyswarm", 160, lambda _: ours.life())
        for peer in peers:
            if isinstance(peer, oci_peers.CommandLine):
                await measure(peer.name, 96, lambda lane, peer=peer: asyncio.to_thread(peer.run, f"{peer.name}-{lane}"))
            elif number == 0:
                await measure(
                    peer.name, WORKERS, lambda lane, peer=peer: asyncio.to_thread(peer.run, f"{peer.name}-{lane}")
                )
    return {name: counts[name] / seconds[name] for name in seconds}


async def starts_of_created(ours: Ours, peers: Sequence[oci_peers.Peer], effort: Effort) -> Times:
    """Time `start` alone, of a container that was created before."""
    times = Times()
    for _ in range(effort.starts):
        name = await ours.create(*oci_peers.TRUE)
        began = time.perf_counter()
        await ours.launch(name)
        times.took("pyswarm", began)
        await ours.finish(name)
        for peer in peers:
            if isinstance(peer, oci_peers.CommandLine):
                peer.create(f"{peer.name}-start")
                began = time.perf_counter()
                peer.start(f"{peer.name}-start")
                times.took(peer.name, began)
                peer.delete(f"{peer.name}-start")
    return times


async def in_a_crowd(ours: Ours, effort: Effort) -> tuple[Times, dict[str, float]]:
    """Time create and start while others run, and weigh what each running container adds to our processes."""
    times, figures = Times(), {}
    await _launches(ours, effort.starts, times, "0")
    empty = memory_kib(ours.pids())
    figures["p7_idle_mib"] = empty / 1024
    crowd: list[str] = []
    for size in effort.crowds:
        left = iter(range(size - len(crowd)))

        async def fill(left: Iterator[int] = left) -> None:
            for _ in left:
                name = await ours.create("/bin/sleep", "3600")
                await ours.launch(name)
                crowd.append(name)

        await asyncio.gather(*(fill() for _ in range(8)))
        await _launches(ours, effort.starts, times, str(size))
        figures["p7_kb_per_running_container"] = (memory_kib(ours.pids()) - empty) / size
    left_over = iter(crowd)

    async def drain() -> None:
        for name in left_over:
            await ours.host.remove(name, force=True)

    await asyncio.gather(*(drain() for _ in range(8)))
    await _launches(ours, effort.starts, times, "0")
    return times, figures


async def _launches(ours: Ours, count: int, times: Times, key: str) -> None:
    for _ in range(count):
        began = time.perf_counter()
        name = await ours.create(*oci_peers.TRUE)
        await ours.launch(name)
        times.took(key, began)
        await ours.finish(name)


def memory_kib(pids: Sequence[int]) -> int:
    """Return the proportional share of memory that processes use together."""
    total = 0
    for pid in pids:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


async def bench(effort: Effort, folder: Path) -> dict[str, float]:
    layer = make_rootfs(folder / "layer")
    parent = f"pyswarm-bench-{folder.name}"
    figures: dict[str, float] = {}
    async with AsyncExitStack() as stack:
        ours = Ours(await stack.enter_async_context(runtime_host(layer)))
        in_python = Ours(await stack.enter_async_context(runtime_host(layer, settings="native-executor = false\n")))
        # After our daemon was started, which sees the machine as it is.
        stack.enter_context(oci_peers.private_view(folder / "cgroup"))
        stack.callback(oci_peers.remove_cgroups, parent)
        command_lines = [oci_peers.CommandLine(name, folder, layer, parent) for name in ("crun", "runc")]
        peers: list[oci_peers.Peer] = [*command_lines]
        for peer in command_lines:
            stack.callback(peer.close)
            for lane in range(WORKERS):
                peer.prepare(f"{peer.name}-{lane}")
        if effort.slow_every:
            for kind in (oci_peers.Podman, oci_peers.Docker):
                peers.append(kind(folder, layer, parent))
                stack.callback(peers[-1].close)
        await ours.life(*oci_peers.CONFINED)
        for peer in peers:
            peer.run(f"{peer.name}-check", oci_peers.CONFINED)
        names = [peer.name for peer in peers]

        print(
            f"{'whole life':12} {'n':>5} {'p10 ms':>9} {'median':>9} {'p99':>9} "
            + "".join(f"{'/' + x:>9}" for x in names)
        )
        lives = await whole_lives(ours, in_python, peers, effort)
        for key in ("pyswarm", "python only", *names):
            print(lives.row(key, names), flush=True)
        labels = {
            "crun": "p1_vs_crun_181",
            "runc": "p1_vs_runc_115",
            "podman": "p1_vs_podman_run",
            "docker": "p1_vs_docker_run",
        }
        figures |= {labels[name]: lives.median("pyswarm") / lives.median(name) for name in names}
        figures["p1_ctypes_vs_crun_181"] = lives.median("python only") / lives.median("crun")
        figures["p1_p99_vs_crun_181"] = lives.p99("pyswarm") / lives.p99("crun")

        rates = await bursts(ours, peers, effort)
        print(f"\n{WORKERS} at once: " + ", ".join(f"{name} {rate:.0f}/s" for name, rate in rates.items()), flush=True)
        figures["p1_throughput_vs_crun_181"] = rates["pyswarm"] / rates["crun"]
        if "docker" in rates:
            figures["p1_throughput_vs_docker"] = rates["pyswarm"] / rates["docker"]

        started = await starts_of_created(ours, peers, effort)
        print("\nstart of a created container")
        for key in started:
            print(started.row(key, ("crun", "runc")), flush=True)
        figures["start_vs_runc"] = started.median("pyswarm") / started.median("runc")

        executed = Times(await executions(ours.host, command_lines, effort.starts))
        print("\ntrue executed in a running container")
        for key in executed:
            print(executed.row(key, ("crun", "runc")), flush=True)
        figures["exec_vs_crun"] = executed.median("pyswarm") / executed.median("crun")
        figures["log_mb_per_s"] = await log_mb_per_s(ours.host, folder)
        print(f"\nlines of a container into its log: {figures['log_mb_per_s']:.0f} MB/s", flush=True)

        crowded, memory = await in_a_crowd(ours, effort)
        print("\ncreate and start while others run")
        for key in crowded:
            print(crowded.row(key, ("0",)), flush=True)
        figures |= {f"p1_at_{size}_running": crowded.median(str(size)) / crowded.median("0") for size in effort.crowds}
        figures |= memory
        if isinstance(peers[-1], oci_peers.Docker):
            figures["docker_idle_mib"] = memory_kib(peers[-1].pids) / 1024
    return figures


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="few rounds, without podman and docker")
    chosen = options.parse_args()
    oci_peers.install()
    with tempfile.TemporaryDirectory(prefix="rt-") as folder:
        figures = asyncio.run(bench(QUICK if chosen.quick else FULL, Path(folder)))
    print(json.dumps({key: round(value, 3) for key, value in figures.items()}))


if __name__ == "__main__":
    main()
