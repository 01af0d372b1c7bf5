"""Three real managers on this machine, each a process of its own with its own loopback address: no namespaces, no root.

They are made as pyswarmd makes them, by the product's own one-shots: bootstrap for the first, a join token for the
others. Real consensus, sealed journals on a real disk, mutual TLS.
"""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pyswarm.proto.entropy import SYSTEM_ENTROPY
from pyswarm.proto.paths import API_PORT, NodePaths

READY_SECONDS = 60.0
LOOK_SECONDS = 0.05
STOP_SECONDS = 10.0
MIB = 1024 * 1024


@dataclass
class ManagerProcess:
    address: str
    paths: NodePaths
    process: "subprocess.Popen[bytes]"

    @property
    def api(self) -> str:
        return f"{self.address}:{API_PORT}"

    @property
    def log(self) -> Path:
        return self.paths.logs / "manager.log"

    @property
    def cpu_seconds(self) -> float:
        """What the process has used of the processors so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def rss_mib(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / MIB


class Managers:
    """The three; start them with `managers(directory)`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        # A loopback network of our own, so that several runs pass each other on one machine.
        self._network = f"127.{random.randrange(20, 220)}.{random.randrange(1, 250)}"
        self.all: list[ManagerProcess] = []

    @property
    def addresses(self) -> list[str]:
        return [manager.api for manager in self.all]

    def start_first(self) -> None:
        address, paths = f"{self._network}.1", NodePaths(self._directory / "1")
        made = _one_shot("pyswarm.manager.bootstrap", paths, {"advertise_addr": address})
        self._start(address, paths, made, {"mode": "init"})

    def join(self, token: str) -> None:
        """Start a further manager with a manager's join token."""
        first, number = self.all[0], len(self.all) + 1
        address, paths = f"{self._network}.{number}", NodePaths(self._directory / str(number))
        made = _one_shot("pyswarm.worker.agent.enroll", paths, {"token": token, "remote": first.api, "addr": address})
        paths.certificates.with_name("certificates.new").rename(paths.certificates)
        self._start(address, paths, made, {"mode": "join", "remote": first.api})

    def _start(self, address: str, paths: NodePaths, made: dict[str, object], bootstrap: dict[str, str]) -> None:
        node = {
            "node_id": made["node_id"],
            "cluster_id": made["cluster_id"],
            "role": "manager",
            "advertise_addr": address,
            "listen_addr": address,
            "managers": [{"node_id": "", "addr": manager.api} for manager in self.all],
            "raft_id": SYSTEM_ENTROPY.new_id(),
            "bootstrap": bootstrap,
        }
        paths.node_file.write_text(json.dumps(node))
        paths.logs.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pyswarm.manager.main", "--root", str(paths.root)]
        with (paths.logs / "manager.log").open("wb") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        manager = ManagerProcess(address, paths, process)
        self.all.append(manager)
        # Its unix socket comes last.
        self._until(paths.manager_socket.exists, manager)

    def _until(self, holds: Callable[[], bool], manager: ManagerProcess) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not holds():
            if manager.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"manager {manager.address} did not start:\n{manager.log.read_text()[-2000:]}")
            time.sleep(LOOK_SECONDS)

    def stop(self) -> None:
        for manager in self.all:
            manager.process.terminate()
        for manager in self.all:
            try:
                manager.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                manager.process.kill()
                manager.process.wait()


@contextmanager
def first_manager(directory: Path) -> Iterator[Managers]:
    """One manager that runs; `join` starts the others. All end with the context."""
    found = Managers(directory)
    try:
        found.start_first()
        yield found
    finally:
        found.stop()


def _one_shot(module: str, paths: NodePaths, options: dict[str, object]) -> dict[str, object]:
    paths.state.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", module, "--root", str(paths.root)]
    done = subprocess.run(command, input=json.dumps(options), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{module}: {done.stdout}{done.stderr}")
    answer: dict[str, object] = json.loads(done.stdout)
    return answer
