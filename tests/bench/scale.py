"""A whole cluster of many nodes on this machine: three real managers, simulated agents on the real protocol.

    python tests/bench/scale.py                                  # 100, 1,000 and 5,000 agents, 30 tasks on each
    python tests/bench/scale.py --agents 100 --tasks 3000        # one size

Every agent has a certificate of the cluster's CA, a connection of its own under mutual TLS and the product's own
session; only its containers are simulated. While agents join, services are created, a big service is updated and nodes
die (1 % a minute), calls of every kind are made at all three managers.

A row for each phase: entries the group committed, statuses that agents reported, how long API calls took (seconds), the
processor time of each manager (1.00: a whole core) and its memory. The last line is one JSON object: figures of the
last size, and how they grew.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from lib.scale.run import Size, measure

SIZES = (100, 1_000, 5_000)
TASKS_PER_AGENT = 30
AIM_SECONDS, AIM_MIB = 1.0, 2_048


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, help="one size instead of three")
    parser.add_argument("--tasks", type=int, help="in all (30 an agent)")
    parser.add_argument("--rest", type=float, default=20.0, help="seconds in which nothing is asked of the cluster")
    parser.add_argument("--failing", type=float, default=60.0, help="seconds in which nodes die")
    parser.add_argument("--patience", type=float, default=900.0, help="seconds that a phase may take at most")
    parser.add_argument("--keep", type=Path, help="leave the managers' files and logs in this new folder")
    chosen = parser.parse_args()
    sizes = (chosen.agents,) if chosen.agents else SIZES
    grown: list[dict[str, Any]] = []
    for agents in sizes:
        tasks = chosen.tasks or agents * TASKS_PER_AGENT
        size = Size(
            agents,
            tasks,
            rest_seconds=chosen.rest,
            failing_seconds=chosen.failing,
            patience_seconds=chosen.patience,
        )
        with _folder(chosen.keep, agents) as directory:
            grown.append(asyncio.run(measure(size, directory)))
    last = grown[-1]
    print(
        f"\nat {last['agents']} agents: API p99 {last['api_p99_s']} s (aim {AIM_SECONDS:g}), "
        f"the largest manager {last['manager_rss_mib']} MiB (aim {AIM_MIB})"
    )
    print(json.dumps({f"p6_{name}": value for name, value in last.items()} | {"p6_growth": grown}))


@contextmanager
def _folder(keep: Path | None, agents: int) -> Iterator[Path]:
    if keep is not None:
        directory = keep / str(agents)
        directory.mkdir(parents=True)
        yield directory
        return
    with tempfile.TemporaryDirectory(prefix="scale-") as temporary:
        yield Path(temporary)


if __name__ == "__main__":
    main()
