"""The network between a lab's hosts: a bridge in a network namespace of its own, with the registry beside it.

The namespace lives as long as its one process (`sleep infinity`), so nothing stays behind when that is killed.
"""

import subprocess
from dataclasses import dataclass

from pyswarm.deploy.lab.process import ProcessHandle, only_child
from pyswarm.deploy.lab.topology import GATEWAY, PREFIX_LENGTH

BRIDGE = "br0"
BRIDGE_MAC = "02:00:0a:4d:00:01"


@dataclass
class Switch:
    process: ProcessHandle | None = None

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.is_running

    def start(self) -> None:
        """Create the namespace and the bridge; does nothing when they exist."""
        if self.is_running:
            return
        parent = subprocess.Popen(
            ["unshare", "--net", "--fork", "--kill-child", "sh", "-c", "echo ready; exec sleep infinity >/dev/null"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert parent.stdout is not None
        parent.stdout.readline()
        parent.stdout.close()
        self.process = ProcessHandle.of(only_child(parent.pid))
        self.ip("link", "set", "lo", "up")
        # Of its own, or the bridge would take the lowest of its ports' addresses, and change it when that host dies.
        self.ip("link", "add", BRIDGE, "address", BRIDGE_MAC, "type", "bridge")
        self.ip("address", "add", f"{GATEWAY}/{PREFIX_LENGTH}", "dev", BRIDGE)
        self.ip("link", "set", BRIDGE, "up")

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process = None

    def command(self, *arguments: str) -> list[str]:
        """Return the command line that runs `arguments` where the lab's gateway is: outside every host."""
        if self.process is None or not self.process.is_running:
            raise RuntimeError("the lab's network is down; `pyswarm lab up` starts it again")
        return ["nsenter", "--target", str(self.process.pid), "--net", "--", *arguments]

    def ip(self, *arguments: str) -> None:
        subprocess.run(self.command("ip", *arguments), check=True, capture_output=True, text=True)

    def plug_in(self, port: str, pid: int, address: str) -> None:
        """Give the namespace of process `pid` an `eth0` with `address`, wired to the bridge."""
        # A host that was killed a moment ago may have its port still: the kernel ends namespaces in the background.
        # That there is none is no error; any other trouble shows in what follows.
        subprocess.run(self.command("ip", "link", "delete", _port(port)), check=False, capture_output=True)
        self.ip("link", "add", _port(port), "type", "veth", "peer", "name", "eth0", "netns", str(pid))
        self.ip("link", "set", _port(port), "master", BRIDGE, "up")
        inside = ["nsenter", "--target", str(pid), "--net", "--", "ip"]
        for arguments in (
            ["address", "add", address, "dev", "eth0"],
            ["link", "set", "eth0", "up"],
            ["route", "add", "default", "via", GATEWAY],
        ):
            subprocess.run([*inside, *arguments], check=True, capture_output=True, text=True)

    def isolate(self, port: str) -> None:
        self.ip("link", "set", _port(port), "nomaster")

    def rejoin(self, port: str) -> None:
        self.ip("link", "set", _port(port), "master", BRIDGE)


def _port(host: str) -> str:
    return f"port-{host}"
