"""End a daemon by SIGKILL at a chosen step of its work, for tests of what it leaves behind.

Steps are what an audit hook sees: files opened, made, renamed, removed, messages and signals sent; the daemon knows
nothing of this. They count from one SIGUSR2 to the next, which writes the number of steps to standard error.
"""

import os
import signal
import sys
from typing import Any

VARIABLE = "KILL_AT_STEP"
SAID = "steps taken: "
_STEPS = ("os.", "socket.send", "signal.pidfd", "fcntl.")


class _Killer:
    def __init__(self, at: int) -> None:
        self._at = at
        self._steps = 0
        self._armed = False

    def on_event(self, event: str, _: tuple[Any, ...]) -> None:
        if not self._armed or not (event == "open" or event.startswith(_STEPS)):
            return
        if self._steps == self._at:
            self._armed = False  # the kill is a step, too
            os.kill(os.getpid(), signal.SIGKILL)
        self._steps += 1

    def toggle(self, *_: object) -> None:
        self._armed = not self._armed
        if not self._armed:
            print(f"{SAID}{self._steps}", file=sys.stderr, flush=True)


def install() -> None:
    """Watch our steps if the environment names one to die at; -1 only counts."""
    if (at := os.environ.get(VARIABLE)) is not None:
        killer = _Killer(int(at))
        sys.addaudithook(killer.on_event)
        signal.signal(signal.SIGUSR2, killer.toggle)
