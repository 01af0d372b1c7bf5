"""How fast waiting tasks are placed: the shape of SwarmKit's scheduler benchmark (manager/scheduler/scheduler_test.go).

N nodes that are ready and T services of one task each, all waiting. Timed is everything from the first decision to the
moment a watcher of the store has seen the last task assigned: deciding, encoding, the store's checks and indexes, and
telling the watcher. Consensus is the in-memory group of one, as SwarmKit's benchmark has an in-memory store.

    python tests/bench/scheduler.py            # the table, and one line of JSON at the end
    python tests/bench/scheduler.py --quick    # the small shapes only

Every shape runs in a process of its own, several times; the figures are medians. On a machine that does other work the
seconds of a processor say more than those on the clock.
"""

import argparse
import asyncio
import gc
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from lib.builders import a_cluster, a_node, a_revision, a_service, a_task

from pyswarm.manager.leader.placing import Placing
from pyswarm.manager.main import COLLECTOR_THRESHOLDS
from pyswarm.manager.raft.fake import SingleNodeConsensus
from pyswarm.manager.store.changes import Change, Create
from pyswarm.manager.store.store import Store
from pyswarm.manager.store.writer import Writer
from pyswarm.proto.clock import SYSTEM_CLOCK
from pyswarm.proto.entropy import SYSTEM_ENTROPY
from pyswarm.proto.model.objects import Task
from pyswarm.proto.model.states import TaskState


class Shape(NamedTuple):
    key: str
    nodes: int
    tasks: int
    is_constrained: bool
    rounds: int
    target_seconds: float | None = None
    peer: str = ""


SHAPES = (
    Shape("p3_1k_nodes_1k_tasks_s", 1_000, 1_000, False, 5, None, "0.21 s"),
    Shape("p3_1k_nodes_10k_tasks_s", 1_000, 10_000, False, 3, None, "2.3 s"),
    Shape("p3_1k_nodes_100k_tasks_s", 1_000, 100_000, False, 3, 3.5, "33-40 s"),
    Shape("p3_5k_nodes_100k_constraints_s", 5_000, 100_000, True, 1),
    Shape("p3_100k_nodes_100k_tasks_s", 100_000, 100_000, False, 1, None, "not within 7 minutes"),
    Shape("p3_100k_nodes_1m_tasks_s", 100_000, 1_000_000, False, 1, 120.0),
)
"""What SwarmKit's Go code took on a machine like this one stands beside ours (its own benchmark, same shapes)."""

QUICK = 3
"""How many shapes `--quick` runs."""


async def _load(writer: Writer, changes: list[Change]) -> None:
    for start in range(0, len(changes), 2_000):
        await writer.write(tuple(changes[start : start + 2_000]))


async def _fill(writer: Writer, nodes: int, tasks: int, is_constrained: bool) -> None:
    await _load(writer, [Create(a_cluster(version=0))])
    # A third of the nodes has what a quarter of the tasks needs.
    labels = [{"fast": "yes"} if n % 3 == 0 else {} for n in range(nodes)]
    await _load(writer, [Create(a_node(f"n{n:06}", labels=labels[n], version=0)) for n in range(nodes)])
    for start in range(0, tasks, 10_000):
        changes: list[Change] = []
        for number in range(start, min(start + 10_000, tasks)):
            constraints = ("node.labels.fast==yes",) if is_constrained and number % 4 == 0 else ()
            service = a_service(f"s{number:07}", version=0, constraints=constraints)
            task = a_task(f"t{number:07}", service=service, state=TaskState.PENDING, version=0)
            changes += [Create(service), Create(a_revision(service, version=0)), Create(task)]
        await _load(writer, changes)


async def _run(nodes: int, tasks: int, is_constrained: bool) -> tuple[float, float]:
    """Return the seconds from the first decision to the last task seen assigned, and what they held of a processor."""
    store = Store()
    writer = Writer(SingleNodeConsensus(store), store, clock=SYSTEM_CLOCK, entropy=SYSTEM_ENTROPY)
    await _fill(writer, nodes, tasks, is_constrained)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTOR_THRESHOLDS)
    _, commits = store.view_and_watch({"task"}, limit=1_000_000)
    placing = Placing(store=store, writer=writer, clock=SYSTEM_CLOCK)
    began, spent = time.perf_counter(), time.process_time()
    assigned = 0
    async with asyncio.TaskGroup() as group:
        scheduler = group.create_task(placing.run())
        async for commit in commits:
            tasks_seen = [event.object for event in commit.events if isinstance(event.object, Task)]
            assigned += sum(task.state is TaskState.ASSIGNED for task in tasks_seen)
            if assigned == tasks:
                break
        took, spent = time.perf_counter() - began, time.process_time() - spent
        scheduler.cancel()
    _check_spread(store, nodes, tasks, is_constrained)
    return took, spent


def _check_spread(store: Store, nodes: int, tasks: int, is_constrained: bool) -> None:
    """A fast answer must be the right one: no node has more than one task above the mean."""
    counts = [len(store.view.tasks_of_node(node.id)) for node in store.view.nodes()]
    assert sum(counts) == tasks
    assert is_constrained or max(counts) - min(counts) <= 1, (min(counts), max(counts))


def _measure(shape: Shape) -> tuple[float, float, float]:
    """Return (median seconds, median seconds of a processor, peak RSS in MiB) of a shape, each run a fresh process."""
    runs = []
    for _ in range(shape.rounds):
        command = [sys.executable, __file__, "--one", json.dumps(shape[:4])]
        runs.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))
    seconds, spent, mib = zip(*runs, strict=True)
    return statistics.median(seconds), statistics.median(spent), max(mib)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="only the small shapes")
    options.add_argument("--only", help="one shape, by its key")
    options.add_argument("--one", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.one:
        _, nodes, tasks, is_constrained = json.loads(chosen.one)
        seconds, spent = asyncio.run(_run(nodes, tasks, is_constrained))
        print(json.dumps([seconds, spent, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
        return
    figures: dict[str, float] = {}
    peak = 0.0
    print(f"{'nodes':>8} {'tasks':>10} {'seconds':>9} {'of CPU':>9} {'tasks/s':>9} {'MiB':>7}  target    SwarmKit (Go)")
    for shape in SHAPES[:QUICK] if chosen.quick else SHAPES:
        if chosen.only not in (None, shape.key):
            continue
        seconds, spent, mib = _measure(shape)
        figures[shape.key] = round(seconds, 3)
        peak = max(peak, mib)
        target = f"<= {shape.target_seconds:g}" if shape.target_seconds else "-"
        row = f"{shape.nodes:8} {shape.tasks:10} {seconds:9.2f} {spent:9.2f} {shape.tasks / seconds:9.0f} {mib:7.0f}"
        print(f"{row}  {target:9} {shape.peer}{' (with constraints)' if shape.is_constrained else ''}", flush=True)
    figures["p3_peak_rss_mib"] = round(peak)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
