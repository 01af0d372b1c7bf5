"""Bring a lab cluster up and down, and hand out its hosts: the library under `pyswarm lab` and the e2e tests.

    lab = Lab.create("lab", managers=3, workers=2)
    lab.start_network(); lab.form_cluster()
    lab.host("w1").kill()
    lab.down()

What a lab consists of is in `<directory>/lab.json`, written before anything is started, so that another process
can take it over or clean it up after a crash.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyswarm.deploy.lab.machine import CommandFailed, LabHost
from pyswarm.deploy.lab.process import ProcessHandle
from pyswarm.deploy.lab.registry import start_registry
from pyswarm.deploy.lab.switch import Switch
from pyswarm.deploy.lab.topology import LabPlan

LABS = Path("/var/lib/pyswarm-lab")
API_PORT = 2377

Say = Callable[[str], None]


class LabNotFound(RuntimeError):
    """No lab of that name exists on this machine."""


class Lab:
    def __init__(self, plan: LabPlan, directory: Path) -> None:
        self.plan = plan
        self.directory = directory
        self.switch = Switch()
        self.registry: ProcessHandle | None = None
        self.hosts: dict[str, LabHost] = {
            host.name: LabHost(plan, host, directory / "hosts" / host.name, self.switch) for host in plan.hosts
        }

    # -- finding and keeping

    @classmethod
    def create(cls, name: str, *, managers: int, workers: int, labs: Path = LABS) -> "Lab":
        """Return the lab `name`, new or as it is. Raises ValueError when it exists with other hosts."""
        plan = LabPlan.of(name, managers=managers, workers=workers)
        try:
            lab = cls.load(name, labs=labs)
        except LabNotFound:
            lab = cls(plan, labs / name)
            lab.save()
            return lab
        if lab.plan != plan:
            there = sum(h.is_manager for h in lab.plan.hosts)
            raise ValueError(
                f"lab {name} exists with {there} managers and {len(lab.plan.hosts) - there} workers; "
                f"take it down first: pyswarm lab down --name {name}"
            )
        return lab

    @classmethod
    def load(cls, name: str, *, labs: Path = LABS) -> "Lab":
        """Return an existing lab. Raises LabNotFound."""
        try:
            stored = json.loads((labs / name / "lab.json").read_text())
        except FileNotFoundError:
            raise LabNotFound(f"there is no lab called {name}; `pyswarm lab up --name {name}` makes one") from None
        plan = LabPlan.of(name, managers=stored["managers"], workers=stored["workers"])
        lab = cls(plan, labs / name)
        lab.switch.process = _handle(stored["switch"])
        lab.registry = _handle(stored["registry"])
        for host in lab.hosts.values():
            host.init = _handle(stored["hosts"].get(host.name))
        return lab

    @staticmethod
    def names(labs: Path = LABS) -> list[str]:
        return sorted(path.parent.name for path in labs.glob("*/lab.json"))

    def save(self) -> None:
        stored = {
            "managers": sum(host.is_manager for host in self.plan.hosts),
            "workers": sum(not host.is_manager for host in self.plan.hosts),
            "switch": _stored(self.switch.process),
            "registry": _stored(self.registry),
            "hosts": {host.name: _stored(host.init) for host in self.hosts.values()},
        }
        self.directory.mkdir(parents=True, exist_ok=True)
        aside = self.directory / "lab.json.new"
        aside.write_text(json.dumps(stored, indent=1))
        aside.rename(self.directory / "lab.json")

    def host(self, name: str) -> LabHost:
        """Return a host by name. Raises ValueError listing the hosts there are."""
        if name not in self.hosts:
            raise ValueError(f"lab {self.plan.name} has no host {name}; it has {', '.join(self.hosts)}")
        return self.hosts[name]

    # -- up

    def start_network(self) -> None:
        """Start the switch and the registry, if they do not run. A new switch means new wires: hosts reboot."""
        if not self.switch.is_running:
            for host in self.hosts.values():
                host.kill()
            self.switch.start()
            self.save()
        if self.registry is None or not self.registry.is_running:
            self.registry = start_registry(self.directory / "registry", self.switch)
            self.save()

    def boot(self, name: str) -> LabHost:
        """Boot one host and remember it."""
        host = self.host(name)
        host.boot()
        self.save()
        return host

    def kill(self, name: str) -> None:
        """Pull one host's plug."""
        self.host(name).kill()
        self.save()

    def form_cluster(self, say: Say = lambda _: None) -> None:
        """Boot every host; initialise the cluster on the first and join the others. Safe to repeat."""
        for host in self.hosts.values():
            if not host.is_running:
                host.boot()
                self.save()
        first, *others = self.hosts.values()
        self._wait_for_supervisors()
        if self._cluster_id(first) is None:
            say(f"{first.name}: pyswarm init --advertise-addr {first.address}")
            first.run("pyswarm", "init", "--advertise-addr", first.address)
        joining = [host for host in others if self._cluster_id(host) is None]
        if joining:
            tokens = {
                is_manager: self.manager_command("join-token", "-q", role).strip()
                for is_manager, role in ((True, "manager"), (False, "worker"))
            }
            # Managers one after the other: consensus admits one member at a time.
            for host in (h for h in joining if h.plan.is_manager):
                self._join(host, tokens[True], first, say)
            with ThreadPoolExecutor(max_workers=4) as pool:
                workers = [h for h in joining if not h.plan.is_manager]
                list(pool.map(lambda h: self._join(h, tokens[False], first, say), workers))
        self.wait_until(self._all_ready, "every node to be ready", timeout_seconds=60)

    def _join(self, host: LabHost, token: str, first: LabHost, say: Say) -> None:
        say(f"{host.name}: pyswarm join --token {token[:14]}… {first.address}:{API_PORT}")
        remote = f"{first.address}:{API_PORT}"
        host.run("pyswarm", "join", "--token", token, "--advertise-addr", host.address, remote, timeout_seconds=120)

    def _wait_for_supervisors(self) -> None:
        def answering() -> bool:
            return all(host.run("pyswarm", "info", check=False).returncode == 0 for host in self.hosts.values())

        self.wait_until(answering, "pyswarmd on every host", timeout_seconds=60)

    def _cluster_id(self, host: LabHost) -> str | None:
        stored = host.state / "var/lib/pyswarm/node.json"
        return json.loads(stored.read_text())["cluster_id"] if stored.exists() else None

    def _all_ready(self) -> bool:
        return {node["Hostname"] for node in self.nodes() if node["Status"] == "Ready"} == set(self.hosts)

    # -- asking

    def manager_command(self, *arguments: str, timeout_seconds: float = 60.0) -> str:
        """Run `pyswarm …` on the first running manager that answers and return its output."""
        failure: Exception | None = None
        for host in self.hosts.values():
            if host.plan.is_manager and host.is_running:
                try:
                    return host.run("pyswarm", *arguments, timeout_seconds=timeout_seconds).stdout
                except CommandFailed as error:
                    failure = error
        raise failure or RuntimeError("no manager of the lab is running")

    def nodes(self) -> list[dict[str, Any]]:
        """Return `node ls` as records with Docker's keys."""
        return records(self.manager_command("node", "ls", "--format", "json"))

    def wait_until(self, holds: Callable[[], bool], what: str, *, timeout_seconds: float) -> float:
        """Wait until `holds()`; return the seconds it took. Raises TimeoutError naming `what`.

        For conditions seen only from outside, by running a command; each look costs a process already.
        """
        started = time.monotonic()
        while not holds():
            if time.monotonic() - started > timeout_seconds:
                raise TimeoutError(f"waited {timeout_seconds} s for {what}")
            time.sleep(0.05)
        return time.monotonic() - started

    # -- down

    def down(self) -> None:
        """Stop every host and remove all that the lab made on this machine."""
        with ThreadPoolExecutor(max_workers=8) as pool:
            list(pool.map(lambda host: host.kill(), self.hosts.values()))
        if self.registry is not None:
            self.registry.kill()
        self.switch.stop()
        shutil.rmtree(self.directory)
        try:
            self.directory.parent.rmdir()
        except OSError:
            pass  # other labs live there


@contextmanager
def running_lab(name: str, *, managers: int, workers: int, labs: Path = LABS) -> Iterator[Lab]:
    """A lab whose cluster is formed, taken down at the end whatever happens."""
    lab = Lab.create(name, managers=managers, workers=workers, labs=labs)
    try:
        lab.start_network()
        lab.form_cluster()
        yield lab
    finally:
        lab.down()


def records(text: str) -> list[dict[str, Any]]:
    """Parse the output of `--format json`: one object a line."""
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def _stored(handle: ProcessHandle | None) -> dict[str, int] | None:
    return None if handle is None else {"pid": handle.pid, "start_ticks": handle.start_ticks}


def _handle(stored: dict[str, int] | None) -> ProcessHandle | None:
    return None if stored is None else ProcessHandle(stored["pid"], stored["start_ticks"])
