"""`make nemesis`: many rounds of faults against real managers, in chunks of a fresh cluster each.

    python tests/e2e/nemesis.py --rounds 1000 --managers 3 --jobs 4 --seed 1

A round is mostly waiting, so `--jobs` labs go on side by side, each in a process of its own. Prints a report for each
chunk and one JSON object with the totals at the end; exits with 1 when a history is not linearizable, after saving it
and printing the command that repeats its plan.
"""

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import pyswarm.proto  # noqa: F401 - settles gRPC's settings before gRPC is imported

# isort: split
from lib.nemesis_run import NemesisOptions, NemesisReport, run_nemesis


def main() -> int:
    arguments = _arguments()
    totals: Counter[str] = Counter()
    brought: Counter[str] = Counter()
    recovery = 0.0
    failed = False
    started = time.monotonic()
    for chunk in _chunks(arguments):
        if isinstance(chunk, str):
            failed = True
            print(chunk, flush=True)
            continue
        print(chunk, flush=True)
        brought += chunk.brought
        totals += Counter(chunk.ends)
        totals["rounds"] += chunk.rounds
        totals["terms"] += chunk.terms
        totals["operations"] += chunk.operations
        totals["acknowledged_writes"] += chunk.acknowledged_writes
        recovery = max(recovery, chunk.recovery_seconds)
    figures = {
        **totals,
        "slowest_recovery_s": round(recovery, 2),
        "seconds": round(time.monotonic() - started),
        "faults": dict(sorted(brought.items())),
    }
    print(json.dumps(figures))
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="faults against real managers, with their histories judged")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--managers", type=int, default=3, choices=(3, 5, 7))
    parser.add_argument("--jobs", type=int, default=1, help="labs side by side")
    parser.add_argument("--seed", type=int, default=None, help="of the first chunk; the next ones count up")
    parser.add_argument("--chunk", type=int, default=125, help="rounds before a fresh cluster is made")
    parser.add_argument("--kinds", default="", help="only these faults: kill,stop,cut,full-disk,clock or finer")
    parser.add_argument("--no-clocks", action="store_true", help="without libfaketime")
    parser.add_argument("--verbose", action="store_true", help="print each round")
    parser.add_argument("--save", type=Path, default=Path("build/nemesis"), help="where bad histories go")
    return parser.parse_args()


Outcome = NemesisReport | str
"""A chunk's report, or why it failed, with what repeats it."""


def _chunks(arguments: argparse.Namespace) -> Iterator[Outcome]:
    """Yield the outcome of each chunk as it ends."""
    first_seed = arguments.seed if arguments.seed is not None else int(time.time()) % 1_000_000
    options = [
        NemesisOptions(
            seed=first_seed + number,
            rounds=min(arguments.chunk, arguments.rounds - number * arguments.chunk),
            managers=arguments.managers,
            has_jumping_clocks=not arguments.no_clocks,
            kinds=frozenset(filter(None, arguments.kinds.split(","))),
        )
        for number in range((arguments.rounds + arguments.chunk - 1) // arguments.chunk)
    ]
    # Not forked: gRPC's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.jobs, mp_context=context) as pool:
        running = [pool.submit(_run_chunk, each, arguments.save, arguments.verbose) for each in options]
        for chunk in running:
            yield chunk.result()


def _run_chunk(options: NemesisOptions, save: Path, is_verbose: bool) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="nemesis-") as directory:
        try:
            report = run_nemesis(options, Path(directory), say=print if is_verbose else lambda _: None)
        except Exception:  # noqa: BLE001 - whatever it was is told, with what repeats it
            return f"{traceback.format_exc()}\n{_keep(Path(directory), save, options)}"
        if report.violation is not None or report.unexpected:
            told = _keep(Path(directory), save, options)
            return "\n".join([str(report), *report.unexpected, str(report.violation or ""), told])
        return report


def _keep(directory: Path, save: Path, options: NemesisOptions) -> str:
    """Save the history and the managers' logs of a run that failed, and say how to repeat its plan."""
    save.mkdir(parents=True, exist_ok=True)
    for file in (*directory.glob("history-*"), *directory.glob("labs/manager-*.log")):
        (save / file.name).write_text(file.read_text())
    return f"saved in {save}; again: {_again(options)}"


def _again(options: NemesisOptions) -> str:
    clocks = "" if options.has_jumping_clocks else " --no-clocks"
    kinds = f" --kinds {','.join(sorted(options.kinds))}" if options.kinds else ""
    return (
        f"python tests/e2e/nemesis.py --seed {options.seed} --rounds {options.rounds} --chunk {options.rounds}"
        f" --managers {options.managers}{kinds}{clocks}"
    )


if __name__ == "__main__":
    sys.exit(main())
