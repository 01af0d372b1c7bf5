"""`make nemesis`: many rounds of faults against real managers, in chunks of a fresh cluster each.

    python tests/e2e/nemesis.py --rounds 1000 --managers 3 --seed 1

Prints a line for each chunk and one JSON object with the totals at the end; exits with 1 at the first history that is
not linearizable, after saving it and printing the command that repeats its plan.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import pyswarm.proto  # noqa: F401 - settles gRPC's settings before gRPC is imported

# isort: split
from lib.nemesis_run import NemesisOptions, run_nemesis


def main() -> None:
    parser = argparse.ArgumentParser(description="faults against real managers, with their histories judged")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--managers", type=int, default=3, choices=(3, 5, 7))
    parser.add_argument("--seed", type=int, default=None, help="of the first chunk; the next ones count up")
    parser.add_argument("--chunk", type=int, default=80, help="rounds before a fresh cluster is made")
    parser.add_argument("--kinds", default="", help="only these faults: kill,stop,cut,full-disk,clock or finer")
    parser.add_argument("--no-clocks", action="store_true", help="without libfaketime")
    parser.add_argument("--verbose", action="store_true", help="print each round")
    parser.add_argument("--save", type=Path, default=Path("build/nemesis"), help="where bad histories go")
    arguments = parser.parse_args()
    first_seed = arguments.seed if arguments.seed is not None else int(time.time()) % 1_000_000
    totals: Counter[str] = Counter()
    brought: Counter[str] = Counter()
    recovery = 0.0
    for chunk in range((arguments.rounds + arguments.chunk - 1) // arguments.chunk):
        options = NemesisOptions(
            seed=first_seed + chunk,
            rounds=min(arguments.chunk, arguments.rounds - chunk * arguments.chunk),
            managers=arguments.managers,
            has_jumping_clocks=not arguments.no_clocks,
            kinds=frozenset(filter(None, arguments.kinds.split(","))),
        )
        with tempfile.TemporaryDirectory(prefix="nemesis-") as directory:
            try:
                report = run_nemesis(options, Path(directory), say=print if arguments.verbose else lambda _: None)
            except BaseException:
                _keep(Path(directory), arguments.save, options)
                raise
            print(report, flush=True)
            if report.violation is not None or report.unexpected:
                _keep(Path(directory), arguments.save, options)
                print(*report.unexpected, report.violation, sep="\n")
                sys.exit(1)
        brought += report.brought
        totals += Counter(report.ends)
        totals["rounds"] += report.rounds
        totals["terms"] += report.terms
        totals["operations"] += report.operations
        totals["acknowledged_writes"] += report.acknowledged_writes
        recovery = max(recovery, report.recovery_seconds)
    print(json.dumps({**totals, "slowest_recovery_s": round(recovery, 2), "faults": dict(sorted(brought.items()))}))


def _keep(directory: Path, save: Path, options: NemesisOptions) -> None:
    """Save the history and the managers' logs of a run that failed, and say how to repeat its plan."""
    save.mkdir(parents=True, exist_ok=True)
    for file in (*directory.glob("history-*"), *directory.glob("manager-*.log")):
        (save / file.name).write_text(file.read_text())
    print(f"saved in {save}; again: {_again(options)}", flush=True)


def _again(options: NemesisOptions) -> str:
    clocks = "" if options.has_jumping_clocks else " --no-clocks"
    kinds = f" --kinds {','.join(sorted(options.kinds))}" if options.kinds else ""
    return (
        f"python tests/e2e/nemesis.py --seed {options.seed} --rounds {options.rounds} --chunk {options.rounds}"
        f" --managers {options.managers}{kinds}{clocks}"
    )


if __name__ == "__main__":
    main()
