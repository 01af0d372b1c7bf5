"""How soon a cluster goes on after a death, and that a blip moves nothing: on a lab of three managers, three workers.

    python tests/bench/failover.py [--kills 10] [--blips 20]

- leader: its manager is SIGKILLed while clients write through all three; measured is the time until another manager
  acknowledges a write that was asked for after the kill. No task may be moved by it: the leader's own node lives on.
- worker: a host with tasks loses power, or is cut off the network, in turn; measured is the time until the last of its
  tasks runs elsewhere, as the agent that started it noted.
- blip: all workers' agents are stopped, or cut off, in turn, for three seconds, while they are at work; counted are
  tasks that are moved by it. A try is one blip of one worker.

Prints a table, and as its last line one JSON object.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).parents[1]))

from lib.cluster import daemon_pid
from lib.nemesis_host import NemesisHost

from pyswarm.deploy.lab import demo
from pyswarm.deploy.lab.lab import Lab, running_lab
from pyswarm.proto.errors import SwarmError
from pyswarm.proto.model.states import NodeState, TaskState
from pyswarm.proto.rpc.client import open_unix_channel
from pyswarm.proto.v1 import control_pb2 as pb
from pyswarm.proto.v1 import control_pb2_grpc, types_pb2

T = TypeVar("T")

SERVICE = "load"
REPLICAS = 9
WRITERS = 4
THINK_SECONDS = 0.02
BLIP_SECONDS = 3.0
AFTER_BLIP_SECONDS = 3.0
"""A node taken for dead would have its tasks replaced by then."""

LOOK_SECONDS = 0.05
PATIENCE_SECONDS = 60.0


class Bench:
    """The lab's cluster through the unix sockets of its managers."""

    def __init__(self, lab: Lab, stack: AsyncExitStack) -> None:
        self.lab = lab
        self._stack = stack
        self._controls: dict[str, control_pb2_grpc.ControlStub] = {}
        self.managers = [host.name for host in lab.hosts.values() if host.plan.is_manager]
        self.workers = [host.name for host in lab.hosts.values() if not host.plan.is_manager]

    async def connect(self) -> None:
        for name in self.managers:
            host = NemesisHost(self.lab.host(name), self.lab.directory)
            channel = await self._stack.enter_async_context(open_unix_channel(host.socket))
            self._controls[name] = control_pb2_grpc.ControlStub(channel)

    def control(self, name: str) -> control_pb2_grpc.ControlStub:
        return self._controls[name]

    async def ask(self, call: Callable[[control_pb2_grpc.ControlStub], Awaitable[T]]) -> T:
        """Return what the first manager to answer says."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            for control in self._controls.values():
                try:
                    return await call(control)
                except SwarmError:
                    if time.monotonic() > deadline:
                        raise
            await asyncio.sleep(LOOK_SECONDS)

    async def hosts(self) -> dict[str, types_pb2.Node]:
        answer = await self.ask(lambda c: c.ListNodes(pb.ListNodesRequest(), timeout=2.0))
        return {node.description.hostname: node for node in answer.nodes}

    async def running(self) -> dict[str, types_pb2.Task]:
        """Return the tasks of the service that run and shall run, by id."""
        answer = await self.ask(lambda c: c.ListTasks(pb.ListTasksRequest(), timeout=2.0))
        service = next(s.id for s in answer.services if s.spec.name == SERVICE)
        return {
            task.id: task
            for task in answer.tasks
            if task.service_id == service
            and task.status.state == TaskState.RUNNING
            and task.desired_state == TaskState.RUNNING
        }

    async def until(self, look: Callable[[], Awaitable[T | None]], what: str) -> T:
        """Look until there is something to see; there is no other way to see it from outside."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (found := await look()) is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {PATIENCE_SECONDS:g} s for {what}")
            await asyncio.sleep(LOOK_SECONDS)
        return found

    async def healthy(self) -> None:
        """Wait until every node is ready, every manager agrees on a leader, and every replica runs."""

        async def look() -> bool | None:
            try:
                infos = [await c.GetInfo(pb.GetInfoRequest(), timeout=2.0) for c in self._controls.values()]
            except SwarmError:
                return None
            leaders = {info.leader_node_id for info in infos}
            states = {node.status.state for node in (await self.hosts()).values()}
            is_whole = len(leaders) == 1 and "" not in leaders and states == {NodeState.READY}
            return True if is_whole and len(await self.running()) == REPLICAS else None

        await self.until(look, "the cluster to be whole")


async def write_for_ever(bench: Bench, number: int) -> None:
    """One client that writes through the managers in turn; what fails is not tried again."""
    name = f"load-{number}"
    spec = types_pb2.ConfigSpec(name=name, data=b"x")
    config = await bench.ask(lambda c: c.CreateConfig(pb.CreateConfigRequest(spec=spec), timeout=5.0))
    for turn in range(10**9):
        control = bench.control(bench.managers[turn % len(bench.managers)])
        try:
            await control.UpdateConfig(pb.UpdateConfigRequest(id=config.id, labels={"turn": str(turn)}), timeout=2.0)
        except SwarmError:
            pass  # the leader is dead: that is what is measured
        await asyncio.sleep(THINK_SECONDS)


async def kill_leader(bench: Bench, config_id: str) -> tuple[float, int]:
    """Return the seconds to the next acknowledged write, and how many tasks were moved."""
    before = set(await bench.running())
    info = await bench.ask(lambda c: c.GetInfo(pb.GetInfoRequest(), timeout=2.0))
    leader = next(name for name, node in (await bench.hosts()).items() if node.id == info.leader_node_id)
    other = next(name for name in bench.managers if name != leader)
    manager = NemesisHost(bench.lab.host(leader), bench.lab.directory).manager()
    assert manager is not None
    began = time.monotonic()
    manager.kill()
    request = pb.UpdateConfigRequest(id=config_id, labels={"killed": leader, "at": str(began)})

    async def acknowledged() -> bool | None:
        try:
            await bench.control(other).UpdateConfig(request, timeout=1.0)
        except SwarmError:
            return None
        return True

    await bench.until(acknowledged, "a write to be acknowledged")
    seconds = time.monotonic() - began
    await bench.healthy()
    return seconds, len(before - set(await bench.running()))


async def lose_worker(bench: Bench, *, is_cut_off: bool) -> float:
    """Return the seconds until what ran on a lost worker runs elsewhere."""
    hosts = await bench.hosts()
    before = await bench.running()
    counts = Counter(task.node_id for task in before.values())
    victim = max(bench.workers, key=lambda name: counts[hosts[name].id])
    host, lost_id = bench.lab.host(victim), hosts[victim].id
    began = time.time()
    await asyncio.to_thread(host.partition if is_cut_off else host.kill)

    async def replaced() -> list[types_pb2.Task] | None:
        now = await bench.running()
        if any(task.node_id == lost_id for task in now.values()) or len(now) < REPLICAS:
            return None
        return [task for id, task in now.items() if id not in before]

    replacements = await bench.until(replaced, f"the tasks of {victim} to run elsewhere")
    await asyncio.to_thread(host.heal if is_cut_off else host.boot)
    bench.lab.save()
    await bench.healthy()
    # Agents and this program read the same clock: the lab's hosts are namespaces of one machine.
    return max(task.status.timestamp for task in replacements) - began


async def blip(bench: Bench, *, is_stop: bool) -> int:
    """Stop or cut off every worker for a while; return how many tasks were moved by it."""
    before = set(await bench.running())
    hosts = [bench.lab.host(name) for name in bench.workers]
    pids = {host.name: daemon_pid(host, "pyswarm-worker") for host in hosts}
    for host in hosts:
        if is_stop:
            host.run("kill", "-STOP", str(pids[host.name]))
        else:
            host.partition()
    await asyncio.sleep(BLIP_SECONDS)
    for host in hosts:
        if is_stop:
            host.run("kill", "-CONT", str(pids[host.name]))
        else:
            host.heal()
    await asyncio.sleep(AFTER_BLIP_SECONDS)
    await bench.healthy()
    return len(before - set(await bench.running()))


def percentile(seconds: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile: of few values, the 99th is the worst."""
    return sorted(seconds)[min(len(seconds) - 1, int(share * len(seconds)))]


def row(what: str, seconds: Sequence[float], target: str) -> str:
    middle, high = statistics.median(seconds), percentile(seconds, 0.99)
    return f"{what:24} {len(seconds):5} {middle:8.2f} {high:8.2f} {max(seconds):8.2f}  {target}"


async def measure(lab: Lab, kills: int, blips: int) -> dict[str, float]:
    async with AsyncExitStack() as stack:
        bench = Bench(lab, stack)
        await bench.connect()
        image = await asyncio.to_thread(demo.push_web_image, lab, "1")
        create = ("service", "create", "-d", "--name", SERVICE, "--replicas", str(REPLICAS))
        lab.manager_command(*create, "--constraint", "node.role==worker", image)
        await bench.healthy()
        spec = types_pb2.ConfigSpec(name="probe", data=b"x")
        config = await bench.ask(lambda c: c.CreateConfig(pb.CreateConfigRequest(spec=spec), timeout=5.0))
        writers = [asyncio.create_task(write_for_ever(bench, n)) for n in range(WRITERS)]
        try:
            moved = 0
            tries = -(-blips // len(bench.workers))
            for number in range(tries):
                moved += await blip(bench, is_stop=number % 2 == 0)
            leaders = [await kill_leader(bench, config.id) for _ in range(kills)]
            workers = [await lose_worker(bench, is_cut_off=number % 2 == 1) for number in range(kills)]
        finally:
            for writer in writers:
                writer.cancel()
            await asyncio.gather(*writers, return_exceptions=True)
    writes = [seconds for seconds, _ in leaders]
    moved_by_leaders = sum(count for _, count in leaders)
    print(f"{'':24} {'times':>5} {'p50 s':>8} {'p99 s':>8} {'worst':>8}  target (p99)   Swarm, from its source")
    print(row("leader SIGKILLed", writes, "<= 2 s         10-20 s") + f"; {moved_by_leaders} tasks moved")
    print(row("worker lost power", workers[::2], "<= 5 s         19-22 s"))
    if workers[1::2]:
        print(row("worker cut off", workers[1::2], "<= 5 s         19-22 s"))
    print(f"blips of {BLIP_SECONDS:g} s: {tries * len(bench.workers)} of a worker, {moved} tasks moved")
    return {
        "p5_leader_p50_s": round(statistics.median(writes), 3),
        "p5_leader_p99_s": round(percentile(writes, 0.99), 3),
        "p5_worker_p50_s": round(statistics.median(workers), 3),
        "p5_worker_p99_s": round(percentile(workers, 0.99), 3),
        "p5_blip_moves": moved,
        "p5_leader_moves": moved_by_leaders,
        "p5_kills": kills,
        "p5_blips": tries * len(bench.workers),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--kills", type=int, default=10, help="of the leader, and of a worker (10)")
    options.add_argument("--blips", type=int, default=20, help="tries, rounded up to whole rounds of workers (20)")
    chosen = options.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("failover: needs root: the lab makes namespaces, mounts and cgroups")
    with (
        tempfile.TemporaryDirectory() as labs,
        running_lab("failover", managers=3, workers=3, labs=Path(labs)) as lab,
    ):
        figures = asyncio.run(measure(lab, chosen.kills, chosen.blips))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
