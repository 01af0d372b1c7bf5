"""Simulate whole clusters: `make sim-cluster SEEDS=n SEED=first`.

Ends with one line of JSON; exits with 1 when a seed is broken.

    python tests/sim/run_cluster.py [--seeds N] [--first SEED] [--processes N] [--digest]

A broken seed prints what was broken, the end of its story and the one command that runs it again.
"""

import argparse
import json
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lib.cluster_sim.simulation import Broken, Report, simulate


def _outcome(seed: int) -> Report | str:
    try:
        return simulate(seed)
    except Broken as broken:
        return str(broken)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--digest", action="store_true", help="print a digest of where each seed ended")
    options = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":
        # What comes out of a set must not depend on the process: a seed means the same everywhere.
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONHASHSEED": "0"})
    began = time.monotonic()
    seeds = range(options.first, options.first + options.seeds)
    reports: list[Report] = []
    broken: list[int] = []
    with ProcessPoolExecutor(options.processes) as pool:
        for seed, outcome in zip(seeds, pool.map(_outcome, seeds, chunksize=5), strict=True):
            if isinstance(outcome, Report):
                reports.append(outcome)
                if options.digest:
                    print(seed, outcome.digest)
            else:
                broken.append(seed)
                print(f"{outcome}\nrun it again: make sim-cluster SEEDS=1 SEED={seed}\n", flush=True)
    faults = sum((report.faults for report in reports), Counter[str]())
    print("  ".join(f"{name} {count}" for name, count in sorted(faults.items())))
    figures = {
        "seeds": options.seeds,
        "broken": broken,
        "faults": faults.total(),
        "placements": sum(report.placements for report in reports),
        "nodes_lost": sum(report.nodes_lost for report in reports),
        "scheduled_runs": sum(report.scheduled_runs for report in reports),
        "completions": sum(report.completions for report in reports),
        "commits": sum(report.commits for report in reports),
        "virtual_hours": round(sum(report.virtual_seconds - 1000.0 for report in reports) / 3600, 2),
        "seconds": round(time.monotonic() - began, 1),
    }
    print(json.dumps(figures))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
