"""A lab cluster as the end-to-end tests see it: records of nodes and tasks, and waits with a deadline."""

import json
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pyswarm.deploy.lab import demo
from pyswarm.deploy.lab.lab import Lab, records
from pyswarm.deploy.lab.machine import CommandFailed, LabHost
from pyswarm.deploy.lab.topology import REGISTRY

SERVICE = "web_web"


@dataclass(frozen=True)
class Replica:
    """A row of `service ps`."""

    id: str
    name: str
    host: str
    image: str
    desired: str
    current: str
    error: str

    @property
    def is_running(self) -> bool:
        return self.desired == "Running" and self.current.startswith("Running")


class Cluster:
    """A formed lab with verbs that tests read well with."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    # -- acting

    def pyswarm(self, *arguments: str, on: str | None = None, timeout_seconds: float = 60.0) -> str:
        """Run `pyswarm …` on a host (any running manager unless given) and return its output."""
        if on is None:
            return self.lab.manager_command(*arguments, timeout_seconds=timeout_seconds)
        return self.lab.host(on).run("pyswarm", *arguments, timeout_seconds=timeout_seconds).stdout

    def refused(self, *arguments: str, on: str, timeout_seconds: float = 60.0) -> str:
        """Run `pyswarm …`, which must fail, and return what it wrote to standard error."""
        done = self.lab.host(on).run("pyswarm", *arguments, check=False, timeout_seconds=timeout_seconds)
        assert done.returncode != 0, f"`pyswarm {' '.join(arguments)}` succeeded: {done.stdout}"
        return done.stderr

    def deploy_web(self, replicas: int = 6) -> None:
        """Deploy the example stack at `replicas`, of image version 1, and wait until it runs."""
        # Detached: tests wait for what they need, not for the seconds in which a task must prove stable.
        demo.push_web_image(self.lab, "1")
        demo.deploy_web(self.lab, "-d")
        self.pyswarm("service", "scale", "-d", f"{SERVICE}={replicas}")
        self.until(lambda: self._runs_as_deployed(replicas), f"{replicas} replicas to run", 60)

    def _runs_as_deployed(self, replicas: int) -> bool:
        running = self.running()
        return len(running) == replicas and {replica.image for replica in running} == {f"{REGISTRY}/web:1"}

    def remove_web(self) -> None:
        if "web" in [stack["Name"] for stack in records(self.pyswarm("stack", "ls", "--format", "json"))]:
            self.pyswarm("stack", "rm", "web")
        self.until(lambda: not any(self.containers(h) for h in self.up()), "every container to be gone", 60)

    def recover(self) -> None:
        """Boot what is down, heal what is cut off, and wait until every node is ready and every manager answers."""
        for host in self.lab.hosts.values():
            if not host.is_running:
                self.lab.boot(host.name)
            host.heal()
        self.until(
            lambda: {n["Hostname"] for n in self.nodes() if n["Status"] == "Ready"} == set(self.lab.hosts),
            "every node to be ready",
            60,
        )
        self.until(lambda: all(self.nodes(on=name) for name in self.managers()), "every manager to answer", 60)

    # -- seeing

    def up(self) -> list[LabHost]:
        return [host for host in self.lab.hosts.values() if host.is_running]

    def nodes(self, on: str | None = None) -> list[dict[str, Any]]:
        return records(self.pyswarm("node", "ls", "--format", "json", on=on))

    def managers(self) -> list[str]:
        """Return the host names of the managers there are now."""
        return [node["Hostname"] for node in self.nodes() if node["ManagerStatus"]]

    def managers_of(self, host: str) -> list[str]:
        """Return the host names of the managers, as one host sees them."""
        return [node["Hostname"] for node in self.nodes(on=host) if node["ManagerStatus"]]

    def leader(self) -> str:
        """Return the leader's host name."""
        return next(node["Hostname"] for node in self.nodes() if node["ManagerStatus"] == "Leader")

    def replicas(self, service: str = SERVICE, on: str | None = None) -> list[Replica]:
        rows = records(self.pyswarm("service", "ps", service, "--no-trunc", "--format", "json", on=on))
        return [
            Replica(r["ID"], r["Name"], r["Node"], r["Image"], r["DesiredState"], r["CurrentState"], r["Error"])
            for r in rows
        ]

    def running(self, service: str = SERVICE, on: str | None = None) -> list[Replica]:
        return [replica for replica in self.replicas(service, on=on) if replica.is_running]

    def containers(self, host: LabHost) -> dict[str, int]:
        """Return {task id: pid} of the containers that run on a host, read from the host itself."""
        found = {}
        for file in (host.state / "var/lib/pyswarm/runtime/containers").glob("[!.]*/process.json"):
            stored = json.loads(file.read_text())
            if _is_alive(host, stored["pid"], stored["start_ticks"]):
                found[file.parent.name] = stored["pid"]
        return found

    def info(self, on: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.pyswarm("info", "--format", "json", on=on))
        return found

    def log(self, host: str, daemon: str) -> str:
        return (self.lab.host(host).state / f"var/log/pyswarm/{daemon}.log").read_text()

    # -- waiting

    def until(self, holds: Callable[[], bool], what: str, timeout_seconds: float) -> float:
        """Wait until `holds()` and return the seconds it took; a command that fails meanwhile counts as no."""

        def tolerant() -> bool:
            try:
                return holds()
            except (CommandFailed, subprocess.TimeoutExpired, RuntimeError):
                return False

        return self.lab.wait_until(tolerant, what, timeout_seconds=timeout_seconds)


def by_host(replicas: list[Replica]) -> Counter[str]:
    return Counter(replica.host for replica in replicas)


def _is_alive(host: LabHost, pid: int, start_ticks: int) -> bool:
    """Whether the very process lives: by pid and start time, as the host itself counts them."""
    stat = host.run("cat", f"/proc/{pid}/stat", check=False).stdout
    fields = stat.rpartition(")")[2].split()
    return bool(fields) and fields[0] not in "ZX" and int(fields[19]) == start_ticks


def daemon_pid(host: LabHost, daemon: str) -> int:
    """Return a daemon's pid as seen on its host."""
    done = host.run("cat", str(host.state / f"run/pyswarm/{daemon}.pid"))
    pid: int = json.loads(done.stdout)["pid"]
    return pid


__all__ = ["REGISTRY", "SERVICE", "Cluster", "Replica", "by_host", "daemon_pid"]
