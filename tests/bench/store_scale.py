"""How much the store holds, how fast entries are applied and snapshots restored, and what watchers cost.

A million tasks of a realistic shape (running, with a container, spread over 1,000 services and 5,000 nodes) are created
by entries of 500 changes, then updated as agents would, written out and restored in a fresh process; 5,000 watchers
follow one node each while every commit touches a few of them.

    python tests/bench/store_scale.py                   # the table, and one line of JSON at the end
    python tests/bench/store_scale.py --tasks 100000    # a smaller store

Every part runs in a process of its own. `rss_mib` is what the filled process holds after creating and updating, with
nothing but the store in it; `restore_rss_mib` the same after a restore.
"""

import argparse
import asyncio
import gc
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from pyswarm.manager.main import COLLECTOR_THRESHOLDS
from pyswarm.manager.store.apply import Entry, encode_entry
from pyswarm.manager.store.changes import Change, Create, Update
from pyswarm.manager.store.fanout import Selector
from pyswarm.manager.store.store import Store
from pyswarm.proto.model.objects import ContainerStatus, Task, TaskStatus
from pyswarm.proto.model.states import TaskState

CHANGES_PER_ENTRY = 500
SERVICES = 1_000
NODES = 5_000
PIECE_BYTES = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--watchers", type=int, default=5_000)
    parser.add_argument("--part", choices=("fill", "restore", "fanout"))
    parser.add_argument("--file", type=Path)
    options = parser.parse_args()
    if options.part is not None:
        gc.set_threshold(*COLLECTOR_THRESHOLDS)
        print(json.dumps(_part(options)))
        return
    figures: dict[str, float] = {"tasks": options.tasks, "watchers": options.watchers}
    digests: list[str] = []
    with tempfile.TemporaryDirectory() as directory:
        for part in ("fill", "restore", "fanout"):
            command = [sys.executable, __file__, *sys.argv[1:], "--part", part, "--file", f"{directory}/snapshot"]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found = json.loads(done.stdout.splitlines()[-1])
            digest = found.pop("digest", digests[-1] if digests else "")
            digests.append(digest)
            if len(set(digests)) > 1:
                raise SystemExit("the restored state differs from the one that was written out")
            for name, value in found.items():
                print(f"{part:8} {name:32} {value:>14,}", flush=True)
            figures |= found
    print(json.dumps(figures))


def _part(options: argparse.Namespace) -> dict[str, float | str]:
    if options.part == "fill":
        return _fill(options.tasks, options.file)
    if options.part == "restore":
        return _restore(options.file)
    return asyncio.run(_fanout(options.watchers))


def _task(n: int) -> Task:
    """Return a task that has been assigned: ids of the usual 25 characters."""
    return Task(
        id=f"t{n:024d}",
        created_at=1_700_000_000.0 + n,
        updated_at=1_700_000_000.0 + n,
        service_id=f"s{n % SERVICES:024d}",
        slot=n // SERVICES + 1,
        node_id=f"n{n % NODES:024d}",
        status=TaskStatus(TaskState.ASSIGNED, 1_700_000_000.0 + n, "scheduler assigned task to node"),
    )


def _running(n: int, version: int) -> Task:
    """Return the task as its agent reports it."""
    assigned = _task(n)
    return Task(
        id=assigned.id,
        version=version,
        created_at=assigned.created_at,
        updated_at=assigned.updated_at + 1,
        service_id=assigned.service_id,
        slot=assigned.slot,
        node_id=assigned.node_id,
        status=TaskStatus(
            TaskState.RUNNING, assigned.updated_at + 1, "started", "", ContainerStatus(assigned.id, 1000 + n, 0)
        ),
    )


def _apply(store: Store, index: int, changes: tuple[Change, ...]) -> float:
    """Apply one entry and return the seconds it took; encoding is the writer's cost."""
    payload = encode_entry(Entry("bench", index, index, changes))
    started = time.perf_counter()
    store.apply(index, payload)
    return time.perf_counter() - started


def _fill(tasks: int, file: Path) -> dict[str, float | str]:
    store = Store()
    index, create, update = 0, 0.0, 0.0
    versions: list[int] = []
    for start in range(0, tasks, CHANGES_PER_ENTRY):
        index += 1
        versions.append(index)
        create += _apply(
            store, index, tuple(Create(_task(n)) for n in range(start, min(tasks, start + CHANGES_PER_ENTRY)))
        )
    for start, version in zip(range(0, tasks, CHANGES_PER_ENTRY), versions, strict=True):
        index += 1
        changes = tuple(Update(_running(n, version)) for n in range(start, min(tasks, start + CHANGES_PER_ENTRY)))
        update += _apply(store, index, changes)
    single = []
    for n in range(2_000):
        task = store.view.task(f"t{n % tasks:024d}")
        assert task is not None
        index += 1
        single.append(_apply(store, index, (Update(task),)))
    rss = _rss_mib()
    started = time.perf_counter()
    size = 0
    with file.open("wb") as out:
        for piece in store.snapshot():
            size += out.write(piece)
    written = time.perf_counter() - started
    return {
        "create_us_per_change": round(create / tasks * 1e6, 2),
        "update_us_per_change": round(update / tasks * 1e6, 2),
        "apply_per_s": round(tasks / update),
        "single_change_us": round(statistics.median(single) * 1e6, 1),
        "rss_mib": rss,
        "rss_peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "snapshot_s": round(written, 2),
        "snapshot_mib": round(size / 2**20),
        "digest": store.digest(),
    }


def _restore(file: Path) -> dict[str, float | str]:
    store = Store()
    started = time.perf_counter()
    store.restore(2**62, _pieces(file))
    took = time.perf_counter() - started
    return {
        "restore_s": round(took, 2),
        "restore_rss_mib": _rss_mib(),
        "restore_rss_peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "digest": store.digest(),
    }


def _pieces(file: Path) -> Iterator[bytes]:
    with file.open("rb") as source:
        while piece := source.read(PIECE_BYTES):
            yield piece


async def _fanout(watchers: int) -> dict[str, float | str]:
    """Time a commit of one task's change without watchers, and with one watcher for every node."""
    store = Store()
    index = 0
    for start in range(0, watchers, CHANGES_PER_ENTRY):
        index += 1
        tasks = (_task(n) for n in range(start, min(watchers, start + CHANGES_PER_ENTRY)))
        _apply(store, index, tuple(Create(task) for task in tasks))

    def rounds() -> float:
        nonlocal index
        took = []
        for n in range(watchers):
            task = store.view.task(f"t{n:024d}")
            assert task is not None
            index += 1
            took.append(_apply(store, index, (Update(task),)))
        return statistics.median(took) * 1e6

    rounds()
    alone = rounds()
    before = _rss_mib()
    subscriptions = [
        store.view_and_watch(selectors=(Selector("task", "node", f"n{n % NODES:024d}"),))[1] for n in range(watchers)
    ]
    watched = rounds()
    told = [len(await subscription.next_batch()) for subscription in subscriptions]
    assert sum(told) == watchers, f"{sum(told)} events were delivered, not {watchers}"
    return {
        "fanout_commit_alone_us": round(alone, 1),
        "fanout_commit_watched_us": round(watched, 1),
        "fanout_ratio": round(watched / alone, 2),
        "fanout_rss_mib": _rss_mib() - before,
    }


def _rss_mib() -> int:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 2**20


if __name__ == "__main__":
    main()
