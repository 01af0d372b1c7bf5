"""From `service create` to all replicas running, on a node that is a whole cluster: ours and Docker Swarm's.

    python tests/bench/convergence.py [--replicas 10,50] [--rounds 3]

Both run the same image, already there, without published ports. The command line is part of both times. Rounds of the
two alternate; the figures are medians. Prints a table, and as its last line one JSON object.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lib import oci_peers
from lib.cluster import Cluster
from lib.docker_swarm import DockerSwarm

from pyswarm.deploy.lab import demo, images
from pyswarm.deploy.lab.lab import running_lab

ENTRYPOINT = '["/bin/sh", "/entry.sh"]'
TARGET = 0.1


def converge(cluster: Cluster, image: str, replicas: int) -> float:
    """Create a service; return the seconds until all its replicas run. Removes it again."""
    name = f"bench-{replicas}"
    began = time.monotonic()
    cluster.pyswarm("service", "create", "-d", "--name", name, "--replicas", str(replicas), image)
    cluster.until(lambda: len(cluster.running(name)) == replicas, f"{replicas} replicas to run", 120)
    seconds = time.monotonic() - began
    cluster.pyswarm("service", "rm", name)
    cluster.until(lambda: not any(cluster.containers(host) for host in cluster.up()), "the containers to go", 120)
    return seconds


def measure(stack: ExitStack, folder: Path, counts: list[int], rounds: int) -> dict[str, float]:
    lab = stack.enter_context(running_lab("convergence", managers=1, workers=0, labs=folder / "labs"))
    cluster = Cluster(lab)
    ours = demo.push_web_image(lab, "1")
    home = folder / "docker"
    home.mkdir()
    swarm = DockerSwarm(home, f"pyswarm-bench-swarm-{os.getpid()}")
    stack.callback(swarm.close)
    swarm.import_image(images.web_image("1").layer, ENTRYPOINT, "web:1")
    converge(cluster, ours, 1)  # the image is pulled and unpacked
    swarm.converge("web:1", 1)
    figures: dict[str, float] = {}
    print(f"{'replicas':>8} {'pyswarm s':>10} {'swarm s':>9} {'ratio':>7}  target")
    for replicas in counts:
        pairs = [(converge(cluster, ours, replicas), swarm.converge("web:1", replicas)) for _ in range(rounds)]
        mine, theirs = (statistics.median(times) for times in zip(*pairs, strict=True))
        print(f"{replicas:8} {mine:10.2f} {theirs:9.2f} {mine / theirs:7.2f}  <= {TARGET:g}", flush=True)
        figures[f"p2_vs_swarm_{replicas}"] = round(mine / theirs, 3)
        figures[f"p2_{replicas}_s"] = round(mine, 3)
        figures[f"p2_swarm_{replicas}_s"] = round(theirs, 3)
    return figures


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--replicas", default="10,50", help="how many, comma-separated (10,50)")
    options.add_argument("--rounds", type=int, default=3)
    chosen = options.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("convergence: needs root: the lab makes namespaces, mounts and cgroups")
    oci_peers.install()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cv-")))
        figures = measure(stack, folder, [int(n) for n in chosen.replicas.split(",")], chosen.rounds)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
