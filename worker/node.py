"""pyswarmd, the node supervisor: small, no gRPC, standard library only.

    pyswarmd [--root ROOT]

Starts, adopts and restarts this node's daemons, makes the node part of a cluster and takes it out again. When it is
killed, the daemons and all containers go on; a new one adopts them. SIGTERM ends the daemons and leaves the containers.
"""

import argparse
import asyncio
import fcntl
import os
import signal
import sys

from pyswarm.proto import log as logging
from pyswarm.proto.errors import FailedPrecondition, SwarmError
from pyswarm.proto.paths import NodePaths
from pyswarm.worker.supervisor.membership import Membership
from pyswarm.worker.supervisor.server import SupervisorServer

log = logging.get_logger(__name__)


async def supervise(paths: NodePaths) -> None:
    """Run until SIGTERM or SIGINT."""
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    membership = Membership(paths)
    server = SupervisorServer(paths.supervisor_socket, membership)
    membership.resume()
    await server.start()
    log.info("supervising", root=str(paths.root))
    try:
        await told.wait()
    finally:
        await server.close()
        await membership.stop()
    log.info("stopped")


def _only_one(paths: NodePaths) -> int:
    """Hold the node's lock until this process ends. Raises FailedPrecondition when another pyswarmd holds it."""
    paths.run.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(paths.run / "pyswarmd.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise FailedPrecondition(f"another pyswarmd already supervises {paths.root}") from error
    return descriptor


def main() -> None:
    """Entry point of `pyswarmd`."""
    parser = argparse.ArgumentParser(prog="pyswarmd", description="the node supervisor")
    parser.add_argument("--root", default=None, help="where state and sockets live (PYSWARM_ROOT, /)")
    arguments = parser.parse_args()
    logging.configure(component="pyswarmd")
    paths = NodePaths.from_environment(arguments.root)
    try:
        _only_one(paths)
        asyncio.run(supervise(paths))
    except SwarmError as error:
        sys.exit(f"pyswarmd: {error}")


if __name__ == "__main__":
    main()
