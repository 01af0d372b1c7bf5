"""Where a node keeps its files and sockets, and which ports it uses.

Everything lies under one root directory (`--root`, `PYSWARM_ROOT`, default `/`), so that several nodes
can live on one machine, each in its own network namespace.

    <root>/etc/pyswarm/config.toml              the administrator's settings of this node
    <root>/var/lib/pyswarm/node.json            this node's identity and role (written by pyswarmd)
    <root>/var/lib/pyswarm/certificates/        root-ca.crt node.crt node.key
    <root>/var/lib/pyswarm/manager/             sealed journal and snapshots
    <root>/var/lib/pyswarm/worker/              the agent's journal
    <root>/var/lib/pyswarm/runtime/             content store, layers, containers
    <root>/var/log/pyswarm/<daemon>.log
    <root>/run/pyswarm/{pyswarmd,manager,runtime}.sock
"""

import os
from dataclasses import dataclass
from pathlib import Path

API_PORT = 2377
BOOTSTRAP_PORT = 2378
RAFT_PORT = 7946


@dataclass(frozen=True)
class NodePaths:
    root: Path

    @classmethod
    def from_environment(cls, root: str | None = None) -> "NodePaths":
        return cls(Path(root or os.environ.get("PYSWARM_ROOT") or "/"))

    @property
    def config_file(self) -> Path:
        return self.root / "etc/pyswarm/config.toml"

    @property
    def state(self) -> Path:
        return self.root / "var/lib/pyswarm"

    @property
    def node_file(self) -> Path:
        return self.state / "node.json"

    @property
    def certificates(self) -> Path:
        return self.state / "certificates"

    @property
    def manager(self) -> Path:
        return self.state / "manager"

    @property
    def worker(self) -> Path:
        return self.state / "worker"

    @property
    def runtime(self) -> Path:
        return self.state / "runtime"

    @property
    def logs(self) -> Path:
        return self.root / "var/log/pyswarm"

    @property
    def run(self) -> Path:
        return self.root / "run/pyswarm"

    @property
    def supervisor_socket(self) -> Path:
        return self.run / "pyswarmd.sock"

    @property
    def manager_socket(self) -> Path:
        return self.run / "manager.sock"

    @property
    def runtime_socket(self) -> Path:
        return self.run / "runtime.sock"
