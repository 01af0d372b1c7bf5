"""The manager daemon: the only place that builds everything and owns every long-lived task.

    python -m pyswarm.manager.main --root ROOT [--unlock-keys-on-stdin]

Order of life: read the configuration; open the state, for which a locked manager needs an unlock key from standard
input, one a line, and without one ends at once (LOCKED_EXIT_STATUS); become a member of the consensus group (as the
first, by asking to join, or from disk); serve the API on three doors; while this manager leads, run the leader's loops.
SIGTERM hands leadership on, stops serving and closes the journal. A broken journal ends the process: pyswarmd starts it
again.
"""

import argparse
import asyncio
import faulthandler
import gc
import os
import signal
import sys
import threading
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import uvloop

from pyswarm.manager.config import load_config
from pyswarm.proto import log as logging
from pyswarm.proto.errors import Locked, SwarmError
from pyswarm.proto.paths import NodePaths
from pyswarm.proto.rpc import core_log
from pyswarm.proto.rpc.event_loop import GrpcUvloop
from pyswarm.proto.unlock_key import LOCKED_EXIT_STATUS, parse_unlock_key

if TYPE_CHECKING:
    from pyswarm.manager.daemon import ManagerDaemon

log = logging.get_logger(__name__)


COLLECTOR_THRESHOLDS = (50_000, 50, 100)
"""Measured with tests/bench/scheduler.py: 100,000 placements take half the time they take with Python's own."""

SWITCH_SECONDS = 0.0005
"""How long a thread that has something to say (the disk's, gRPC's) waits for the interpreter at most. Each write waits
for the disk's thread; with Python's own 5 ms one of them was as long as ten writes."""


def main() -> None:
    """Entry point of `pyswarm-manager`."""
    parser = argparse.ArgumentParser(description="the manager daemon; pyswarmd starts it on managers")
    parser.add_argument("--root", default=None, help="where state and sockets live (PYSWARM_ROOT, /)")
    parser.add_argument("--unlock-keys-on-stdin", action="store_true", help="read unlock keys, one a line, until EOF")
    arguments = parser.parse_args()
    # gRPC must not be imported before its core's output is taken over.
    core_log.install()
    from pyswarm.manager.daemon import ManagerDaemon

    paths = NodePaths.from_environment(arguments.root)
    try:
        config = load_config(paths)
        logging.configure(component="manager", level=config.log_level)
        unlock_keys = _read_unlock_keys() if arguments.unlock_keys_on_stdin else []
        run(_until_told(ManagerDaemon(config, unlock_keys)))
    except Locked as error:
        # A killed manager left it: nobody answers there, and `pyswarm` shall not wait for somebody to.
        paths.manager_socket.unlink(missing_ok=True)
        print(f"pyswarm-manager: {error}", file=sys.stderr)
        sys.exit(LOCKED_EXIT_STATUS)
    except SwarmError as error:
        sys.exit(f"pyswarm-manager: {error}")


def _read_unlock_keys() -> list[bytes]:
    return [parse_unlock_key(text) for text in sys.stdin.read().split()]


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` as a manager runs: on its kind of loop, with the interpreter told what a manager needs.

    uvloop's streams and TLS cost half of what asyncio's do, and every write crosses four of them.

    A thread that dies of an exception ends the process: whoever waits for it would wait for ever.
    """
    faulthandler.enable()
    threading.excepthook = _end_process
    # What was imported stays for ever: keep the collector from walking it. What the store holds has no cycles; with the
    # collector's own thresholds it would be walked over and over while thousands of tasks are written.
    gc.freeze()
    gc.set_threshold(*COLLECTOR_THRESHOLDS)
    sys.setswitchinterval(SWITCH_SECONDS)
    uvloop.run(work, loop_factory=GrpcUvloop)


def _end_process(died: threading.ExceptHookArgs) -> None:
    """End at once, without tidying up, which might wait for the thread: the supervisor starts the manager again."""
    threading.__excepthook__(died)
    name = died.thread.name if died.thread is not None else "?"
    log.error("a thread of the manager has died", thread=name, error=repr(died.exc_value))
    sys.stderr.flush()
    os._exit(os.EX_SOFTWARE)


async def _until_told(daemon: "ManagerDaemon") -> None:
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    work = asyncio.create_task(daemon.run(), name="manager")
    wait = asyncio.create_task(told.wait(), name="signal")
    await asyncio.wait({work, wait}, return_when=asyncio.FIRST_COMPLETED)
    wait.cancel()
    if not work.done():
        log.info("stopping")
        await daemon.hand_over()
        work.cancel()
    try:
        await work
    except asyncio.CancelledError:
        log.info("stopped")


if __name__ == "__main__":
    main()
