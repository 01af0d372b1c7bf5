"""Simulate many seeds: `make sim SEEDS=n SEED=first`. Ends with one line of JSON; exits with 1 when a seed is broken.

    python tests/sim/run.py [--seeds N] [--first SEED] [--processes N] [--mix NAME] [--without RULE] [--digest]

A broken seed prints what was broken, the end of its story and the one command that runs it again.
"""

import argparse
import json
import os
import shlex
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lib.sim.mixes import MIXES, Mix
from lib.sim.simulation import Broken, Report, simulate
from msgspec.structs import replace

from pyswarm.manager.raft.rules import ALL_RULES, Rules

CHUNK = 20
"""Seeds that a process takes at a time."""


def main() -> int:
    options = _options()
    if os.environ.get("PYTHONHASHSEED") != "0":
        # The core keeps members in sets, whose order depends on it: a seed must mean the same in every process.
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONHASHSEED": "0"})
    mix = next((m for m in MIXES if m.name == options.mix), None)
    began = time.monotonic()
    reports: list[Report] = []
    broken: list[int] = []
    for outcome in _outcomes(options, mix):
        if isinstance(outcome, Report):
            reports.append(outcome)
            if options.digest:
                print(outcome.seed, outcome.digest)
        else:
            seed, text = outcome
            broken.append(seed)
            print(text)
            print(f"run it again: {_again(seed, options)}\n", flush=True)
    _print_table(reports)
    times = os.times()
    cpu = times.user + times.children_user + times.system + times.children_system
    figures = {
        "seeds": len(reports) + len(broken),
        "broken": sorted(broken),
        "operations": sum(r.operations for r in reports),
        "acknowledged": sum(r.acknowledged for r in reports),
        "messages": sum(r.delivered for r in reports),
        "faults": sum(sum(r.faults.values()) for r in reports),
        "seconds": round(time.monotonic() - began, 1),
        "cpu_seconds_per_seed": round(cpu / max(1, len(reports) + len(broken)), 3),
    }
    print(json.dumps(figures))
    return 1 if broken else 0


def _again(seed: int, options: argparse.Namespace) -> str:
    more = [f"--mix {shlex.quote(options.mix)}"] if options.mix else []
    more += [f"--without {options.without}"] if options.without else []
    return f"make sim SEEDS=1 SEED={seed}" + (f" OPTIONS={shlex.quote(' '.join(more))}" if more else "")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=2000, help="how many (2000)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="the first one (0)")
    parser.add_argument("--processes", type=int, default=2, help="how many at a time (2)")
    parser.add_argument("--mix", choices=[m.name for m in MIXES], help="one mix of faults instead of each seed's own")
    parser.add_argument(
        "--without",
        metavar="RULE",
        choices=Rules.__struct_fields__,
        help="switch a rule off: what does it take to see?",
    )
    parser.add_argument("--digest", action="store_true", help="print what each seed's run came to")
    return parser.parse_args()


Outcome = Report | tuple[int, str]


def _outcomes(options: argparse.Namespace, mix: Mix | None) -> Iterator[Outcome]:
    seeds = range(options.first, options.first + options.seeds)
    chunks = [seeds[start : start + CHUNK] for start in range(0, len(seeds), CHUNK)]
    rules = replace(ALL_RULES, **{options.without: False}) if options.without else ALL_RULES
    if options.processes == 1 or len(chunks) == 1:
        for chunk in chunks:
            yield from _simulate(chunk, mix, rules)
        return
    with ProcessPoolExecutor(options.processes) as pool:
        for outcomes in pool.map(_simulate, chunks, [mix] * len(chunks), [rules] * len(chunks)):
            yield from outcomes


def _simulate(seeds: range, mix: Mix | None, rules: Rules) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for seed in seeds:
        try:
            outcomes.append(simulate(seed, mix=mix, rules=rules))
        except Broken as broken:
            cause = "".join(traceback.format_exception(broken.why)[-4:])
            outcomes.append((seed, "\n".join(["", *broken.story, "", str(broken), cause])))
    return outcomes


def _print_table(reports: list[Report]) -> None:
    print(f"{'mix':34} {'seeds':>6} {'operations':>11} {'acknowledged':>13} {'messages':>9}  faults")
    for mix in MIXES:
        of_mix = [r for r in reports if r.mix == mix.name]
        if not of_mix:
            continue
        faults: Counter[str] = Counter()
        for report in of_mix:
            faults.update(report.faults)
        told = ", ".join(f"{name} {count}" for name, count in sorted(faults.items()))
        sums = [sum(getattr(r, name) for r in of_mix) for name in ("operations", "acknowledged", "delivered")]
        print(f"{mix.name:34} {len(of_mix):>6} {sums[0]:>11} {sums[1]:>13} {sums[2]:>9}  {told}")


if __name__ == "__main__":
    sys.exit(main())
