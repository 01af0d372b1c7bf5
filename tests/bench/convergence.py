"""From `service create` to all replicas running, on a node that is a whole cluster: ours and Docker Swarm's.

    python tests/bench/convergence.py [--replicas 10,50] [--rounds 3]

Both run the same image, already there, without published ports. Both are asked and looked at through their APIs, on
connections that stay open: no command line is part of the times, and none takes the processors from the daemons. Rounds
of the two alternate; the figures are medians. Prints a table, and as its last line one JSON object.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from lib import oci_peers
from lib.docker_swarm import DockerSwarm

from pyswarm.deploy.lab import demo, images
from pyswarm.deploy.lab.lab import Lab, running_lab
from pyswarm.proto.codec.messages import to_message
from pyswarm.proto.model.spec import ContainerSpec, ReplicatedMode, ServiceMode, ServiceSpec, TaskSpec
from pyswarm.proto.rpc.client import open_unix_channel
from pyswarm.proto.v1 import control_pb2 as pb
from pyswarm.proto.v1 import control_pb2_grpc, types_pb2

ENTRYPOINT = '["/bin/sh", "/entry.sh"]'
TARGET = 0.1
PATIENCE_SECONDS = 180.0


class Ours:
    """A cluster of one node, driven through the control API of its manager."""

    def __init__(self, lab: Lab, control: Any) -> None:
        self._lab = lab
        self._containers = lab.host("m1").state / "var/lib/pyswarm/runtime/containers"
        self._control = control

    async def converge(self, image: str, replicas: int) -> float:
        """Create a service; return the seconds until all its replicas run. Removes it again."""
        spec = ServiceSpec(
            name=f"bench-{replicas}",
            task_template=TaskSpec(container_spec=ContainerSpec(image=image)),
            mode=ServiceMode(replicated=ReplicatedMode(replicas=replicas)),
        )
        request = pb.CreateServiceRequest(spec=to_message(spec, types_pb2.ServiceSpec))
        async with asyncio.timeout(PATIENCE_SECONDS):
            began = time.monotonic()
            made = await self._control.CreateService(request)
            await self._until_running(made.id, replicas)
            seconds = time.monotonic() - began
            await self._control.RemoveService(pb.RemoveServiceRequest(id=made.id))
        self._lab.wait_until(self._is_empty, "the containers to go", timeout_seconds=PATIENCE_SECONDS)
        return seconds

    def _is_empty(self) -> bool:
        return not any(self._containers.glob("[!.]*"))

    async def _until_running(self, service_id: str, replicas: int) -> None:
        watch = self._control.Watch(pb.WatchRequest(kinds=["task"], service_id=service_id), timeout=PATIENCE_SECONDS)
        async for _ in watch:
            seen = await self._control.ListServices(pb.ListServicesRequest(ids=[service_id]))
            if seen.statuses[0].running == replicas:
                return
        raise RuntimeError("the manager ended the watch")


async def measure(stack: AsyncExitStack, folder: Path, counts: list[int], rounds: int) -> dict[str, float]:
    lab = stack.enter_context(running_lab("convergence", managers=1, workers=0, labs=folder / "labs"))
    image = demo.push_web_image(lab, "1")
    channel = await stack.enter_async_context(open_unix_channel(lab.host("m1").manager_socket))
    ours = Ours(lab, control_pb2_grpc.ControlStub(channel))
    home = folder / "docker"
    home.mkdir()
    swarm = DockerSwarm(home, f"pyswarm-bench-swarm-{os.getpid()}")
    stack.callback(swarm.close)
    swarm.import_image(images.web_image("1").layer, ENTRYPOINT, "web:1")
    await ours.converge(image, 1)  # the image is pulled and unpacked
    swarm.converge("web:1", 1)
    figures: dict[str, float] = {}
    print(f"{'replicas':>8} {'pyswarm s':>10} {'swarm s':>9} {'ratio':>7}  target")
    for replicas in counts:
        # One at a time on purpose: nothing of ours runs while Swarm is measured.
        pairs = [(await ours.converge(image, replicas), swarm.converge("web:1", replicas)) for _ in range(rounds)]
        mine, theirs = (statistics.median(times) for times in zip(*pairs, strict=True))
        print(f"{replicas:8} {mine:10.2f} {theirs:9.2f} {mine / theirs:7.3f}  <= {TARGET:g}", flush=True)
        figures[f"p2_vs_swarm_{replicas}"] = round(mine / theirs, 3)
        figures[f"p2_{replicas}_s"] = round(mine, 3)
        figures[f"p2_swarm_{replicas}_s"] = round(theirs, 3)
    return figures


async def run(counts: list[int], rounds: int) -> dict[str, float]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cv-")))
        return await measure(stack, folder, counts, rounds)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--replicas", default="10,50", help="how many, comma-separated (10,50)")
    options.add_argument("--rounds", type=int, default=3)
    chosen = options.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("convergence: needs root: the lab makes namespaces, mounts and cgroups")
    oci_peers.install()
    figures = asyncio.run(run([int(n) for n in chosen.replicas.split(",")], chosen.rounds))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
