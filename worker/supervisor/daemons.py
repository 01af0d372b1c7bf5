"""One daemon of a node: started or adopted, watched, and started again with growing pauses when it ends.

A manager whose state is locked says so by its exit status: it is not started again until an unlock key is there. Keys
are kept in this process's memory and written to a pipe that the new manager reads; never to a disk, the environment or
a command line.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from select import PIPE_BUF

from pyswarm.proto.log import get_logger
from pyswarm.proto.paths import NodePaths
from pyswarm.proto.unlock_key import LOCKED_EXIT_STATUS
from pyswarm.worker.supervisor.processes import Process

log = get_logger(__name__)

PAUSE_FIRST_SECONDS = 0.1
PAUSE_MAX_SECONDS = 5.0
STEADY_SECONDS = 10.0
"""A daemon that ran for so long starts its count of pauses anew."""

STOP_SECONDS = 10.0
LOG_BYTES_MAX = 10 * 1024 * 1024

MODULES = {
    "pyswarm-runtime": "pyswarm.agent_runtime.main",
    "pyswarm-worker": "pyswarm.worker.main",
    "pyswarm-manager": "pyswarm.manager.main",
}


class Daemon:
    """`start` begins keeping it running, `stop` ends both. The process outlives this object: the next one adopts it."""

    def __init__(self, name: str, paths: NodePaths) -> None:
        self.name = name
        self.restarts = 0
        self.process: Process | None = None
        self.unlock_keys: tuple[str, ...] = ()
        """What each new process of it gets to open its state with."""
        self.locked = asyncio.Event()
        """Set when it has ended because none of the keys opens its state."""
        self._paths = paths
        self._keeper: asyncio.Task[None] | None = None

    @property
    def is_kept(self) -> bool:
        return self._keeper is not None

    @property
    def pid_file(self) -> Path:
        return self._paths.run / f"{self.name}.pid"

    @property
    def log_file(self) -> Path:
        return self._paths.logs / f"{self.name}.log"

    def start(self) -> None:
        """Keep the daemon running from now on; does nothing when that is so already."""
        if self._keeper is None:
            self.locked.clear()
            self._keeper = asyncio.create_task(self._keep(), name=f"keep-{self.name}")

    async def stop(self, number: signal.Signals = signal.SIGTERM, *, seconds: float = STOP_SECONDS) -> None:
        """Stop keeping it and end it: `number` first, SIGKILL when it takes longer than `seconds`."""
        await self.let_go()
        self.locked.clear()
        process = self.process or Process.read(self.pid_file)
        if process is None:
            return
        process.signal(number)
        try:
            async with asyncio.timeout(seconds):
                await process.ended()
        except TimeoutError:
            log.warning("daemon did not stop in time", daemon=self.name, pid=process.pid)
            process.signal(signal.SIGKILL)
            await process.ended()
        self.process = None
        self.pid_file.unlink(missing_ok=True)

    async def let_go(self) -> None:
        """Stop keeping it, but leave the process alone."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait({keeper})

    def log_tail(self, lines: int = 5) -> str:
        """Return the last lines of the daemon's log, for a message to people."""
        try:
            with self.log_file.open("rb") as file:
                file.seek(max(0, self.log_file.stat().st_size - 8192))
                return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return ""

    async def _keep(self) -> None:
        pause = PAUSE_FIRST_SECONDS
        loop = asyncio.get_running_loop()
        while True:
            self.process = Process.read(self.pid_file)
            if self.process is not None:
                log.info("daemon adopted", daemon=self.name, pid=self.process.pid)
            else:
                self.process = self._spawn()
            started = loop.time()
            status = await self.process.ended()
            self.process = None
            if status == LOCKED_EXIT_STATUS:
                log.warning("daemon is locked", daemon=self.name, keys_tried=len(self.unlock_keys))
                self._keeper = None
                self.locked.set()
                return
            self.restarts += 1
            if loop.time() - started >= STEADY_SECONDS:
                pause = PAUSE_FIRST_SECONDS
            log.warning("daemon ended", daemon=self.name, status=status, restart_in_seconds=pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, PAUSE_MAX_SECONDS)

    def _spawn(self) -> Process:
        self._paths.logs.mkdir(parents=True, exist_ok=True)
        self._bound_log()
        command = [sys.executable, "-m", MODULES[self.name], "--root", str(self._paths.root)]
        if self.unlock_keys:
            command.append("--unlock-keys-on-stdin")
        with self.log_file.open("ab") as output, _readable_once("\n".join(self.unlock_keys).encode()) as keys:
            child = subprocess.Popen(
                command,
                stdin=keys,
                stdout=output,
                stderr=output,
                cwd="/",
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )
        # Reaped through the pidfd; Popen must not try it too.
        child.returncode = 0
        process = Process.of(child.pid) or Process(child.pid, 0)
        process.write(self.pid_file)
        log.info("daemon started", daemon=self.name, pid=child.pid)
        return process

    def _bound_log(self) -> None:
        try:
            if self.log_file.stat().st_size > LOG_BYTES_MAX:
                self.log_file.rename(self.log_file.with_suffix(".log.1"))
        except FileNotFoundError:
            pass


@contextmanager
def _readable_once(content: bytes) -> Iterator[int]:
    """Yield the reading end of a pipe with `content` in it and nobody at the other end."""
    assert len(content) <= PIPE_BUF, "it fits the pipe's buffer: nobody reads yet"
    reading, writing = os.pipe()
    try:
        try:
            os.write(writing, content)
        finally:
            os.close(writing)
        yield reading
    finally:
        os.close(reading)
