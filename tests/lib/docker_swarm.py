"""Docker Swarm as Debian ships it, a cluster of this one machine: the peer that our services are measured beside.

dockerd and all that it starts live in namespaces of their own (processes, network, mounts), which end with its first
process. Without firewall rules, which spares it work.
"""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lib import oci_peers

_ADDRESS = "10.99.0.1"
_READY_SECONDS = 60.0
LOOK_SECONDS = 0.05
_SETUP = f"""
ip link set lo up &&
ip link add eth0 type bridge &&
ip address add {_ADDRESS}/24 dev eth0 &&
ip link set eth0 up &&
exec "$@"
"""


class DockerSwarm:
    def __init__(self, folder: Path, cgroup_parent: str) -> None:
        self._folder = folder
        self._parent = cgroup_parent
        address = f"unix://{folder}/docker.sock"
        self._client = ["/usr/bin/docker", "--host", address]
        command = [
            "unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--net",
            "--mount", "--propagation", "private",
            "sh", "-c", _SETUP, "sh",
            "/usr/sbin/dockerd", "--host", address, "--data-root", str(folder / "data"),
            "--exec-root", str(folder / "exec"), "--pidfile", str(folder / "dockerd.pid"),
            "--iptables=false", "--ip6tables=false", "--cgroup-parent", f"/{cgroup_parent}",
        ]  # fmt: skip
        with (folder / "dockerd.log").open("wb") as log:
            self._daemon = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            self._until(self._answers, "dockerd to answer", _READY_SECONDS)
            self.docker("swarm", "init", "--advertise-addr", _ADDRESS)
        except BaseException:
            self.close()
            raise

    def docker(self, *arguments: str) -> str:
        """Run `docker …` and return its output. Raises RuntimeError when it fails."""
        done = subprocess.run([*self._client, *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"`docker {' '.join(arguments)}` exited with {done.returncode}: {done.stderr}")
        return done.stdout

    def _answers(self) -> bool:
        if self._daemon.poll() is not None:
            raise RuntimeError(f"dockerd did not start:\n{(self._folder / 'dockerd.log').read_text()[-2000:]}")
        return subprocess.run([*self._client, "version"], capture_output=True, check=False).returncode == 0

    def import_image(self, layer: bytes, entrypoint: str, reference: str) -> None:
        archive = self._folder / "layer.tar.gz"
        archive.write_bytes(layer)
        self.docker("import", "--change", f"ENTRYPOINT {entrypoint}", str(archive), reference)

    def converge(self, image: str, replicas: int, timeout_seconds: float = 180.0) -> float:
        """Create a service through the API; return the seconds until all its replicas run. Removes it again.

        There is no event for a task that runs, so the tasks are looked at every `LOOK_SECONDS`, on one connection.
        """
        name = f"bench-{replicas}"
        spec = {
            "Name": name,
            "TaskTemplate": {"ContainerSpec": {"Image": image}},
            "Mode": {"Replicated": {"Replicas": replicas}},
        }
        api = _Api(self._folder / "docker.sock")
        try:
            began = time.monotonic()
            api.ask("POST", "/services/create", spec)
            self._until(lambda: api.running(name) == replicas, f"{replicas} replicas to run", timeout_seconds)
            seconds = time.monotonic() - began
            api.ask("DELETE", f"/services/{name}")
            self._until(lambda: not api.ask("GET", "/containers/json"), "the containers to go", timeout_seconds)
        finally:
            api.close()
        return seconds

    def _until(self, holds: Callable[[], bool], what: str, timeout_seconds: float) -> None:
        deadline = time.monotonic() + timeout_seconds
        while not holds():
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {timeout_seconds:g} s for {what}")
            time.sleep(LOOK_SECONDS)

    def close(self) -> None:
        if self._daemon.poll() is None:
            os.killpg(self._daemon.pid, signal.SIGKILL)
        self._daemon.wait()
        oci_peers.remove_cgroups(self._parent)
        shutil.rmtree(self._folder, ignore_errors=True)


class _Api:
    """One connection to the engine's API."""

    def __init__(self, path: Path) -> None:
        self._connection = http.client.HTTPConnection("docker")
        self._connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._connection.sock.connect(str(path))

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Return the answer, from JSON. Raises RuntimeError when the engine refuses."""
        content = None if body is None else json.dumps(body)
        self._connection.request(method, f"/v1.41{path}", content, {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        answer = response.read()
        if response.status >= 300:
            raise RuntimeError(f"docker: {method} {path}: {response.status} {answer.decode(errors='replace')}")
        return json.loads(answer) if answer else None

    def running(self, service: str) -> int:
        """Return how many tasks of a service run."""
        only = urllib.parse.quote(json.dumps({"service": [service]}))
        return sum(task["Status"]["State"] == "running" for task in self.ask("GET", f"/tasks?filters={only}"))

    def close(self) -> None:
        self._connection.close()
