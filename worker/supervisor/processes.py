"""Processes by pid and start time, and waiting for their end through a pidfd: children and adopted ones alike."""

import asyncio
import json
import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """`start_ticks` is field 22 of /proc/PID/stat, so that a reused pid is never mistaken for ours."""

    pid: int
    start_ticks: int

    @classmethod
    def of(cls, pid: int) -> "Process | None":
        ticks = _start_ticks(pid)
        return None if ticks is None else cls(pid, ticks)

    @classmethod
    def read(cls, path: Path) -> "Process | None":
        """Return the process that a pid file names if it still runs."""
        try:
            stored = json.loads(path.read_text())
            named = cls(int(stored["pid"]), int(stored["start_ticks"]))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        return named if named.is_running else None

    def write(self, path: Path) -> None:
        aside = path.with_suffix(".pid.new")
        aside.write_text(json.dumps({"pid": self.pid, "start_ticks": self.start_ticks}))
        aside.rename(path)

    @property
    def is_running(self) -> bool:
        return _start_ticks(self.pid) == self.start_ticks

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens when the process is gone."""
        with suppress(ProcessLookupError):
            descriptor = os.pidfd_open(self.pid)
            try:
                if self.is_running:
                    signal.pidfd_send_signal(descriptor, number)
            finally:
                os.close(descriptor)

    async def ended(self) -> int | None:
        """Wait until the process has ended; return its wait status when it was our child."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return _reap(self.pid)
        try:
            if self.is_running:
                await _readable(descriptor)
        finally:
            os.close(descriptor)
        return _reap(self.pid)


def _reap(pid: int) -> int | None:
    try:
        reaped, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return None  # adopted: its parent is somebody else
    return os.waitstatus_to_exitcode(status) if reaped else None


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def mark() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(descriptor, mark)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)


def _start_ticks(pid: int) -> int | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else int(fields[19])
