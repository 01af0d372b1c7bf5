"""`pyswarm-runtime`: the composition root of the runtime daemon.

    python -m pyswarm.agent_runtime.main --root ROOT

One daemon per root. SIGTERM stops it gracefully; containers and their spawner go on and are adopted by the next one.
"""

import argparse
import asyncio
import fcntl
import os
import resource
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import uvloop

from pyswarm.agent_runtime.bundle.build import HostFacts
from pyswarm.agent_runtime.config import RuntimeConfig, read_config
from pyswarm.agent_runtime.container.adjust import Adjustments
from pyswarm.agent_runtime.container.containers import Containers
from pyswarm.agent_runtime.container.execs import Execs
from pyswarm.agent_runtime.container.exit_watch import ExitWatch
from pyswarm.agent_runtime.container.images import ImageStore
from pyswarm.agent_runtime.container.oom_watch import OomWatch
from pyswarm.agent_runtime.container.prepare import Preparer
from pyswarm.agent_runtime.container.recovery import discover
from pyswarm.agent_runtime.container.spawner_client import SpawnerClient
from pyswarm.agent_runtime.container.state_directory import StateDirectory
from pyswarm.agent_runtime.container.statistics import Statistics
from pyswarm.agent_runtime.kernel import cgroup_layout, mounts, syscalls
from pyswarm.agent_runtime.kernel import numbers as n
from pyswarm.agent_runtime.kernel.cgroups import Cgroups
from pyswarm.agent_runtime.kernel.init_program import INIT_PROGRAM
from pyswarm.agent_runtime.kernel.own_capabilities import own_capabilities
from pyswarm.agent_runtime.kernel.process import machine_identity
from pyswarm.agent_runtime.kernel.seccomp import SeccompFilters
from pyswarm.agent_runtime.service import RuntimeService
from pyswarm.proto.clock import SYSTEM_CLOCK
from pyswarm.proto.entropy import SYSTEM_ENTROPY
from pyswarm.proto.errors import FailedPrecondition, SwarmError
from pyswarm.proto.log import configure, get_logger
from pyswarm.proto.paths import NodePaths
from pyswarm.proto.rpc.server import serve_unix
from pyswarm.proto.v1.runtime_pb2_grpc import add_RuntimeServicer_to_server

log = get_logger(__name__)

_GOODBYE_SECONDS = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="pyswarm-runtime", description="Images and containers of one node.")
    parser.add_argument("--root", help="directory under which the node keeps everything (default: PYSWARM_ROOT or /)")
    paths = NodePaths.from_environment(parser.parse_args().root)
    try:
        if "CAP_SYS_ADMIN" not in own_capabilities("CapEff"):
            raise FailedPrecondition(
                "the runtime daemon needs root: it makes overlay mounts, and cgroups in every hierarchy",
                remedy="Run it as root; an ordinary user's single containers are run by `pyswarm-oci`.",
            )
        config = read_config(paths.config_file)
        configure(component="runtime", level=config.log_level)
        run(_serve_registry_images(paths, config))
    except SwarmError as error:
        sys.exit(f"pyswarm-runtime: {error}")


async def _serve_registry_images(paths: NodePaths, config: RuntimeConfig) -> None:
    from pyswarm.agent_runtime.image.store import ImageStore as RegistryImages

    # Opening the images clears what a killed daemon left half done: not before it is certain that none lives.
    await serve(paths, config, lambda: RegistryImages(paths.runtime, insecure_registries=config.insecure_registries))


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` on the daemon's kind of loop: a container's life takes some thirty turns of it, and uvloop's cost
    less."""
    uvloop.run(work)


def _only_daemon(paths: NodePaths) -> None:
    """Hold a lock for as long as we live: two daemons would fight over the same containers."""
    paths.runtime.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(paths.runtime / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise FailedPrecondition(
            f"another runtime daemon serves {paths.root}", remedy="Stop that one, or use another --root."
        ) from None


async def serve(paths: NodePaths, config: RuntimeConfig, open_images: Callable[[], ImageStore]) -> None:
    """Serve until SIGTERM or SIGINT. Raises FailedPrecondition when another daemon serves this root."""
    _only_daemon(paths)
    images = open_images()
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    _raise_descriptor_limit()
    # Nothing of ours may be read through /proc by a container that shares our user.
    syscalls.prctl(n.PR_SET_DUMPABLE, 0)
    cgroups = Cgroups(cgroup_layout.detect(), config.cgroup_parent)
    cgroups.prepare()
    state = StateDirectory(paths.runtime / "containers")
    state.prepare()
    for point in mounts.mounts_below(state.root):
        syscalls.unmount(point)
    paths.logs.mkdir(parents=True, exist_ok=True)

    async with asyncio.TaskGroup() as tasks:
        exits = ExitWatch()
        ooms = OomWatch(cgroups, lambda container_id, kills: containers.on_oom_kill(container_id, kills))
        spawner = SpawnerClient(
            paths.run / "runtime",
            paths.logs / "spawner.log",
            native=config.native_executor,
            on_exit=lambda container_id, status: containers.on_exit(container_id, status),
            on_lost=lambda: containers.on_spawner_lost(),
        )
        preparer = Preparer(state, cgroups, SeccompFilters(paths.runtime / "seccomp"), _host_facts(cgroups))
        containers = Containers(
            preparer=preparer,
            images=images,
            spawner=spawner,
            exits=exits,
            ooms=ooms,
            clock=SYSTEM_CLOCK,
            tasks=tasks,
        )
        await spawner.connect()
        containers.adopt(discover(state.load_all(), owned=spawner.owned, machine=machine_identity()))
        execs = Execs(preparer, spawner, containers.joinable, SYSTEM_ENTROPY)
        adjustments = Adjustments(containers, cgroups, state)
        statistics = Statistics(containers, cgroups, SYSTEM_CLOCK)
        service = RuntimeService(containers, execs, adjustments, statistics, images, cgroups.layout.version, tasks)
        server = await serve_unix(paths.runtime_socket, [lambda server: add_RuntimeServicer_to_server(service, server)])
        log.info(
            "serving", socket=paths.runtime_socket, cgroups=cgroups.layout.version, containers=len(containers.all())
        )
        await stopping.wait()
        log.info("stopping; containers go on")
        with suppress(FileNotFoundError):
            paths.runtime_socket.unlink()
        await server.stop(_GOODBYE_SECONDS)
        service.close()
        containers.close()
        spawner.close()
        exits.close()
        ooms.close()


def _raise_descriptor_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _host_facts(cgroups: Cgroups) -> HostFacts:
    return HostFacts(
        capabilities=own_capabilities("CapBnd"),
        nofile_hard=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        cgroup_parent=cgroups.parent,
        cgroup_v2=not cgroups.layout.v1,
        init_program=str(INIT_PROGRAM) if INIT_PROGRAM.exists() else "",
    )


if __name__ == "__main__":
    main()
