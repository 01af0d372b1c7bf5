"""Processes a lab has started: named by pid and start time, so that a reused pid is never mistaken for ours."""

import os
import select
import signal
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ProcessHandle:
    """`start_ticks` is field 22 of /proc/PID/stat: clock ticks from boot to the process's start."""

    pid: int
    start_ticks: int

    @classmethod
    def of(cls, pid: int) -> "ProcessHandle":
        """Return the handle of a running process; raises ProcessLookupError when there is none."""
        ticks = _start_ticks(pid)
        if ticks is None:
            raise ProcessLookupError(pid)
        return cls(pid, ticks)

    @property
    def is_running(self) -> bool:
        return _start_ticks(self.pid) == self.start_ticks

    def send(self, number: signal.Signals) -> bool:
        """Send a signal; return whether the process was there to get it."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            if not self.is_running:
                return False
            signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)
        return True

    def kill(self, number: signal.Signals = signal.SIGKILL, *, timeout_seconds: float = 15.0) -> None:
        """Send a signal and wait until the process is gone; raises TimeoutError when it stays."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            if not self.is_running:
                return
            signal.pidfd_send_signal(descriptor, number)
            if not select.select([descriptor], [], [], timeout_seconds)[0]:
                raise TimeoutError(f"process {self.pid} survived {number.name} for {timeout_seconds} s")
        except ProcessLookupError:
            return
        finally:
            os.close(descriptor)


def _start_ticks(pid: int) -> int | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] == "Z" else int(fields[19])


def only_child(pid: int) -> int:
    """Return the pid of the one child of `pid`."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    if len(children) != 1:
        raise RuntimeError(f"process {pid} has {len(children)} children, expected one")
    return int(children[0])
