"""Three members of a measured consensus group, each its own process on loopback: start, ask, pause, kill, start again.

What a member does: consensus_member.py.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from typing import Any

from lib.certificates import CertificateMaker
from lib.raft_lab import free_port

MEMBER = Path(__file__).with_name("consensus_member.py")
WAIT_SECONDS = 60.0
SETTLED_SECONDS = 1.0


class Process:
    """One member's process; its answers arrive in `answers`."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.is_running = False
        self._process: subprocess.Popen[str]
        self.answers: Queue[dict[str, Any]]

    def start(self, *, is_first: bool = False) -> None:
        """Start it; `answers` gets {"ready": true} when it takes part."""
        argument = json.dumps(self.options | {"is_first": is_first})
        self._process = subprocess.Popen(
            [sys.executable, str(MEMBER), argument], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.answers = Queue()
        self.is_running = True
        threading.Thread(target=self._read, args=(self._process, self.answers), daemon=True).start()

    @staticmethod
    def _read(process: "subprocess.Popen[str]", answers: "Queue[dict[str, Any]]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            answers.put(json.loads(line))
        answers.put({"error": "the member's process has ended"})

    def tell(self, do: str, **asked: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **asked}) + "\n")
        self._process.stdin.flush()

    def answer(self, seconds: float = WAIT_SECONDS) -> dict[str, Any]:
        found = self.answers.get(timeout=seconds)
        if "error" in found:
            raise RuntimeError(found["error"])
        return found

    def ask(self, do: str, **asked: Any) -> dict[str, Any]:
        self.tell(do, **asked)
        return self.answer()

    @property
    def cpu_seconds(self) -> float:
        """What the process has used of the processors so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        if self.is_running:
            self.is_running = False
            self._process.kill()
            self._process.wait()


class Group:
    """`machine` is "kv" or "store"; `settings` are those of `RaftSettings` that differ from the product's own."""

    def __init__(self, directory: Path, *, machine: str = "kv", settings: dict[str, Any] | None = None) -> None:
        self.certificates = CertificateMaker()
        self.directory = directory
        self.leading: Process | None = None
        """Who leads, where a bench learns it by its answers."""
        self.processes = [
            Process(
                {
                    "machine": machine,
                    "settings": settings or {},
                    "cluster_id": self.certificates.cluster_id,
                    "directory": str(directory / str(number)),
                    "certificates": str(
                        self.certificates.issue(directory / str(number) / "certificates", f"node-{number}")
                    ),
                    "raft_id": f"raft-{number}",
                    "node_id": f"node-{number}",
                    "raft_addr": f"127.0.0.1:{free_port()}",
                    "api_addr": f"127.0.0.1:{free_port()}",
                }
            )
            for number in (1, 2, 3)
        ]

    def start(self) -> None:
        first, *others = self.processes
        first.start(is_first=True)
        first.answer()
        leader = self.leader()
        for other in others:
            other.start()
            other.answer()
            leader.ask("admit", member=other.options)

    def leader(self) -> Process:
        """Return the member that leads, as soon as one does and has for a second: none is about to be deposed then."""
        end = time.monotonic() + WAIT_SECONDS
        held: tuple[Process | None, int] = (None, 0)
        since = 0.0
        while time.monotonic() < end:
            found = self._leading()
            if found != held:
                held, since = found, time.monotonic()
            elif found[0] is not None and time.monotonic() - since > SETTLED_SECONDS:
                return found[0]
            time.sleep(0.05)
        raise TimeoutError("no member leads")

    def _leading(self) -> tuple[Process | None, int]:
        statuses = [(process, process.ask("status")) for process in self.processes if process.is_running]
        return next(((process, status["term"]) for process, status in statuses if status["leads"]), (None, 0))

    def pause(self) -> None:
        """Stop all members, so that they cost nothing while the peer is measured."""
        for process in self.processes:
            process.signal(signal.SIGSTOP)

    def resume(self) -> None:
        for process in self.processes:
            process.signal(signal.SIGCONT)

    def stop(self) -> None:
        for process in self.processes:
            process.kill()


@contextmanager
def group(directory: Path, *, machine: str = "kv", settings: dict[str, Any] | None = None) -> Iterator[Group]:
    """A running group of three."""
    found = Group(directory, machine=machine, settings=settings)
    try:
        found.start()
        yield found
    finally:
        found.stop()
