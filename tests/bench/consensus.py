"""Durable committed writes of three managers beside three members of etcd, and what losing a leader costs.

Both sides run on loopback with mutual TLS between members, and sync every write to the same disk; rounds are
interleaved, and whoever is not measured is stopped meanwhile. Ours proposes in the leader's process, as the manager's
loops do; etcd is written to through its own Go client, without TLS, whose share of the processors is shown. The API is
measured beside a bare grpc.aio echo with mutual TLS.

    python tests/bench/consensus.py                     # the table, and one line of JSON at the end
    python tests/bench/consensus.py --only rates api    # some parts
    python tests/bench/consensus.py --kills 100 --calm-seconds 600
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import consensus_failover
import consensus_snapshot
from consensus_etcd import Etcd, build_client, etcd, missing
from consensus_group import Group, Process, group
from lib.raft_lab import free_port

API = Path(__file__).with_name("consensus_api.py")
CASES = [(256, 1, 1), (256, 16, 1), (256, 128, 1), (1024, 1, 1), (1024, 16, 1), (1024, 128, 1), (256, 1, 200)]
"""(bytes of a value, writes outstanding, changes in a write)."""

RESTART_ENTRIES = 100_000
NO_SNAPSHOTS = {"snapshot_entries": 10**9, "snapshot_bytes": 1 << 40}
ETCD_SETTLES_SECONDS = 1.5
"""After it was stopped for a while, etcd's members may elect a leader anew."""

Figures = dict[str, float]


class Bench:
    def __init__(self, options: argparse.Namespace, directory: Path) -> None:
        self.options = options
        self.directory = directory
        self.client = build_client(directory)
        self.figures: Figures = {}

    @staticmethod
    def _tell(what: str, found: str) -> None:
        print(f"{what:26} {found}", flush=True)

    # -- writes beside etcd's

    def rates(self) -> None:
        print(
            f"{'':26} {'ours: /s':>9} {'p50 ms':>7} {'p99 ms':>7}   {'etcd: /s':>9} {'p50 ms':>7} {'p99 ms':>7} ratio"
        )
        with group(self.directory / "rates") as ours, etcd(self.directory / "rates-etcd", self.client) as peer:
            for case in CASES:
                self._rate(ours, peer, *case)

    def _rate(self, ours: Group, peer: Etcd, value_bytes: int, outstanding: int, changes: int) -> None:
        asked = {"outstanding": outstanding, "value_bytes": value_bytes, "changes": changes}
        both: list[tuple[Figures, Figures]] = []
        for _ in range(self.options.rounds):
            peer.pause()
            ours.resume()
            mine = ours.leader().ask("load", seconds=self.options.seconds, **asked)
            ours.pause()
            peer.resume()
            time.sleep(ETCD_SETTLES_SECONDS)
            both.append((mine, peer.load(seconds=self.options.seconds, **asked)))
        ours.resume()
        mine, theirs = _median([m for m, _ in both]), _median([t for _, t in both])
        ratio = statistics.median(m["rate"] / t["rate"] for m, t in both)
        what = (
            f"{value_bytes} B, {outstanding} at once"
            if changes == 1
            else f"{changes} x {value_bytes} B, {outstanding} at once"
        )
        print(
            f"{what:26} {_row(mine)}   {_row(theirs)} {ratio:5.2f}  (client: {theirs['client_cores']:.2f} cores)",
            flush=True,
        )
        key = "p4_txn200" if changes > 1 else "p4"
        suffix = f"_{outstanding}" if changes == 1 else ""
        suffix += "_1k" if value_bytes == 1024 else ""
        self.figures[f"{key}_vs_etcd{suffix}"] = round(ratio, 2)
        self.figures[f"{key}_per_second{suffix}"] = round(mine["rate"])
        self.figures[f"{key}_p50_vs_etcd{suffix}"] = round(mine["p50_ms"] / theirs["p50_ms"], 2)
        self.figures[f"{key}_p99_vs_etcd{suffix}"] = round(mine["p99_ms"] / theirs["p99_ms"], 2)

    # -- the API

    def api(self) -> None:
        """Unary calls and the stream, beside the echo and etcd."""
        with (
            group(self.directory / "api", machine="store") as ours,
            etcd(self.directory / "api-etcd", self.client) as peer,
            self._echo(ours) as echo,
        ):
            peer.pause()
            for outstanding in (1, 16, 128):
                rounds = []
                for _ in range(self.options.rounds):
                    mine = self._call(ours, "call", ours.leader().options["api_addr"], outstanding)
                    rounds.append((mine, self._call(ours, "call", echo, outstanding)))
                self._told(f"unary API, {outstanding} at once", rounds, f"p4_api_vs_echo_{outstanding}", "echo")
            self.figures["p4_api_vs_echo"] = self.figures["p4_api_vs_echo_16"]
            rounds = []
            for _ in range(self.options.rounds):
                mine = self._call(ours, "write", ours.leader().options["api_addr"], 128)
                ours.pause()
                peer.resume()
                time.sleep(ETCD_SETTLES_SECONDS)
                asked = {"outstanding": 128, "value_bytes": 256, "changes": 1}
                rounds.append((mine, peer.load(seconds=self.options.seconds, **asked)))
                peer.pause()
                ours.resume()
            self._told("stream, 128 at once", rounds, "p4_stream_vs_etcd_128", "etcd")
            peer.resume()

    def _told(self, what: str, rounds: list[tuple[Figures, Figures]], key: str, peer: str) -> None:
        ratio = statistics.median(m["rate"] / t["rate"] for m, t in rounds)
        mine, theirs = _median([m for m, _ in rounds]), _median([t for _, t in rounds])
        self._tell(what, f"{_row(mine)}   {_row(theirs)} {ratio:5.2f}  ({peer})")
        self.figures[key] = round(ratio, 2)
        self.figures[key.replace("_vs_echo", "_per_second").replace("_vs_etcd", "_per_second")] = round(mine["rate"])

    @contextmanager
    def _echo(self, ours: Group) -> Iterator[str]:
        port = free_port()
        command = [sys.executable, str(API), "serve", str(port), self._certificates(ours)]
        server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        server.stdout.readline()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.kill()
            server.wait()

    def _call(self, ours: Group, how: str, address: str, outstanding: int) -> Figures:
        command = [sys.executable, str(API), how, address, self._certificates(ours), str(outstanding)]
        done = subprocess.run([*command, str(self.options.seconds)], check=True, stdout=subprocess.PIPE, text=True)
        found: Figures = json.loads(done.stdout)
        return found

    @staticmethod
    def _certificates(ours: Group) -> str:
        return str(ours.processes[0].options["certificates"])

    # -- restart

    def restart(self) -> None:
        """A follower is killed with 100,000 writes of 1 KiB in its log, and started again."""
        entries, asked = self.options.entries, {"value_bytes": 1024, "outstanding": 128}
        with (
            group(self.directory / "restart", settings=NO_SNAPSHOTS) as ours,
            etcd(self.directory / "restart-etcd", self.client) as peer,
        ):
            index = ours.leader().ask("fill", entries=entries, **asked)["index"]
            their_index = peer.fill(entries=entries, **asked)
            follower = next(process for process in ours.processes if process is not ours.leader())
            place = next(p for p, url in enumerate(peer.urls) if url != peer.leader_url())
            rounds = [
                (_restart_seconds(follower, index), peer.restart_seconds(place, their_index))
                for _ in range(self.options.rounds)
            ]
        mine, theirs = statistics.median(m for m, _ in rounds), statistics.median(t for _, t in rounds)
        print(
            f"{f'restart, {entries} entries':26} {mine:9.2f} s {'':13}   {theirs:9.2f} s {mine / theirs:19.2f}",
            flush=True,
        )
        self.figures["restart_vs_etcd"] = round(statistics.median(m / t for m, t in rounds), 2)
        self.figures["restart_seconds"] = round(mine, 2)

    # -- leaders

    def failover(self) -> None:
        """The leader is killed under the load of 16 writers, again and again: until the next acknowledged write."""
        with group(self.directory / "failover") as ours:
            took = sorted(consensus_failover.kills(ours, self.options.kills))
        p50, p99 = took[len(took) // 2], took[len(took) * 99 // 100]
        self._tell(f"failover, {len(took)} kills", f"p50 {p50:.2f} s   p99 {p99:.2f} s   longest {took[-1]:.2f} s")
        self.figures |= {"failover_p50_s": round(p50, 3), "failover_p99_s": round(p99, 3), "failover_kills": len(took)}

    def calm(self) -> None:
        """With both processors taken by others, nobody stands for election."""
        seconds = self.options.calm_seconds
        with group(self.directory / "calm") as ours:
            elections, rate = consensus_failover.elections_under_load(ours, seconds)
        self._tell("processors taken", f"{elections} elections in {seconds:g} s, {rate:.0f} writes/s")
        self.figures |= {"spurious_elections": elections, "calm_seconds": seconds}

    def snapshot(self) -> None:
        """16 writers while 100,000 objects of 1 KiB are written out; all members share a process there."""
        found = consensus_snapshot.figures()
        kept, tick = found["snapshot_rate_kept"], found["snapshot_tick_max_ms"]
        self._tell("snapshot under load", f"keeps {kept:.0%} of the rate, longest step {tick:.1f} ms")
        self.figures |= {name: value for name, value in found.items() if name.startswith("snapshot_")}


def _restart_seconds(follower: Process, index: int) -> float:
    """Kill a member, start it, and return how long it takes until all up to `index` is applied."""
    follower.kill()
    began = time.perf_counter()
    follower.start()
    follower.answer()
    follower.ask("reach", index=index)
    return time.perf_counter() - began


def _median(rounds: list[Figures]) -> Figures:
    return {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}


def _row(figures: Figures) -> str:
    return f"{figures['rate']:9.0f} {figures['p50_ms']:7.2f} {figures['p99_ms']:7.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds of each case")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a measurement")
    parser.add_argument("--kills", type=int, default=20, help="leaders killed")
    parser.add_argument("--entries", type=int, default=RESTART_ENTRIES, help="writes in the log at a restart")
    parser.add_argument("--calm-seconds", type=float, default=30.0, help="length of the run with the processors taken")
    parser.add_argument("--only", nargs="+", default=list(PARTS), choices=list(PARTS), help="the parts to run")
    options = parser.parse_args()
    if lacks := missing():
        sys.exit(f"etcd or its Go client is missing. Install them: {lacks}")
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as directory:
        bench = Bench(options, Path(directory))
        for part in options.only:
            PARTS[part](bench)
    print(json.dumps(bench.figures))


PARTS: dict[str, Callable[[Bench], Any]] = {
    "rates": Bench.rates,
    "api": Bench.api,
    "restart": Bench.restart,
    "failover": Bench.failover,
    "calm": Bench.calm,
    "snapshot": Bench.snapshot,
}

if __name__ == "__main__":
    main()
