"""The peer: three members of Debian's etcd on loopback with mutual TLS between them, and a client in Go.

The client (etcd_load.go) uses etcd's own library and is compiled here; it speaks to the leader without TLS, which is
in etcd's favour. Needs the Debian packages etcd-server, golang-go and golang-etcd-server-dev.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lib.certificates import CertificateMaker
from lib.raft_lab import free_port

LOAD = Path(__file__).with_name("etcd_load.go")
GO_SOURCES = "/usr/share/gocode"
PACKAGES = "etcd-server golang-go golang-etcd-server-dev"


def missing() -> str:
    """Return what must be installed first; "" when nothing is missing."""
    there = shutil.which("etcd") and shutil.which("go") and Path(GO_SOURCES, "src/go.etcd.io/etcd/clientv3").is_dir()
    return "" if there else f"apt-get install --no-install-recommends {PACKAGES}"


def build_client(directory: Path) -> Path:
    """Compile the client; takes half a minute the first time."""
    client = directory / "etcd-load"
    cache = Path.home() / ".cache" / "go-build"
    environment = {**os.environ, "GO111MODULE": "off", "GOPATH": GO_SOURCES, "GOCACHE": str(cache)}
    subprocess.run(["go", "build", "-o", str(client), str(LOAD)], check=True, env=environment)
    return client


class Etcd:
    def __init__(self, directory: Path, client: Path) -> None:
        self._directory = directory
        self._client = client
        maker = CertificateMaker()
        self._members = [(f"etcd{n}", free_port(), free_port()) for n in (1, 2, 3)]
        self._certificates = {
            name: maker.issue(directory / f"{name}-certificates", name, addresses=["127.0.0.1"])
            for name, _, _ in self._members
        }
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{client}" for _, client, _ in self._members]

    def start(self, place: int) -> None:
        name, client, peer = self._members[place]
        certificates = self._certificates[name]
        everybody = ",".join(f"{other}=https://127.0.0.1:{port}" for other, _, port in self._members)
        command = [
            "etcd", "--name", name, "--data-dir", str(self._directory / name),
            "--listen-client-urls", f"http://127.0.0.1:{client}",
            "--advertise-client-urls", f"http://127.0.0.1:{client}",
            "--listen-peer-urls", f"https://127.0.0.1:{peer}",
            "--initial-advertise-peer-urls", f"https://127.0.0.1:{peer}",
            "--initial-cluster", everybody,
            "--peer-cert-file", str(certificates / "node.crt"), "--peer-key-file", str(certificates / "node.key"),
            "--peer-trusted-ca-file", str(certificates / "root-ca.crt"), "--peer-client-cert-auth",
            "--max-txn-ops", "256", "--quota-backend-bytes", str(8 << 30), "--log-level", "error",
            "--log-outputs", "stderr", "--logger", "zap",
        ]  # fmt: skip
        with (self._directory / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(command, stdout=log, stderr=log)

    def kill(self, place: int) -> None:
        process = self._processes.pop(self._members[place][0], None)
        if process is not None:
            process.kill()
            process.wait()

    def do(self, *arguments: str, endpoints: list[str] | None = None) -> dict[str, Any]:
        command = [str(self._client), "-endpoints", ",".join(endpoints or self.urls), *arguments]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        return json.loads(done.stdout) if done.stdout else {}

    def leader_url(self) -> str:
        return str(self.do("-do", "leader")["url"])

    def load(self, *, outstanding: int, value_bytes: int, changes: int, seconds: float) -> dict[str, Any]:
        return self.do(
            "-outstanding", str(outstanding), "-bytes", str(value_bytes), "-changes", str(changes),
            "-seconds", str(seconds), "-connections", str(connections(outstanding)),
        )  # fmt: skip

    def fill(self, *, entries: int, value_bytes: int, outstanding: int) -> int:
        found = self.do(
            "-do", "fill", "-entries", str(entries), "-bytes", str(value_bytes), "-outstanding", str(outstanding),
            "-connections", str(connections(outstanding)),
        )  # fmt: skip
        return int(found["index"])

    def restart_seconds(self, place: int, index: int) -> float:
        """Kill a member, start it, and return how long it takes to answer with all up to `index` applied."""
        self.kill(place)
        began = time.perf_counter()
        self.start(place)
        self.do("-do", "reach", "-index", str(index), endpoints=[self.urls[place]])
        return time.perf_counter() - began

    def pause(self) -> None:
        for process in self._processes.values():
            process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        for process in self._processes.values():
            process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        for place in range(3):
            self.kill(place)


def connections(outstanding: int) -> int:
    """How many connections serve etcd best, tried on two cores: one for every eight writes under way."""
    return max(1, outstanding // 8)


@contextmanager
def etcd(directory: Path, client: Path) -> Iterator[Etcd]:
    """A running cluster of three."""
    directory.mkdir(parents=True, exist_ok=True)
    found = Etcd(directory, client)
    try:
        for place in range(3):
            found.start(place)
        yield found
    finally:
        found.stop()
