"""A manager's configuration: what pyswarmd wrote about the node, and what the administrator set.

Reads `node.json` and `config.toml` (docs/reference/seams.md) once, at start.
"""

import json
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyswarm.proto.errors import FailedPrecondition, InvalidArgument
from pyswarm.proto.paths import API_PORT, BOOTSTRAP_PORT, RAFT_PORT, NodePaths


@dataclass(frozen=True)
class ManagerConfig:
    """`join_remote` is set until this manager has become a member of an existing group."""

    paths: NodePaths
    node_id: str
    cluster_id: str
    raft_id: str
    advertise_addr: str
    listen_addr: str
    join_remote: str
    is_first: bool
    log_level: str = "INFO"
    heartbeat_seconds: float = 0.1
    election_seconds: tuple[float, float] = (0.4, 0.8)
    managers: tuple[str, ...] = field(default=())

    @property
    def api_addr(self) -> str:
        return f"{self.advertise_addr}:{API_PORT}"

    @property
    def raft_addr(self) -> str:
        return f"{self.advertise_addr}:{RAFT_PORT}"

    @property
    def api_listen(self) -> str:
        return f"{self.listen_addr}:{API_PORT}"

    @property
    def bootstrap_listen(self) -> str:
        return f"{self.listen_addr}:{BOOTSTRAP_PORT}"

    @property
    def raft_listen(self) -> tuple[str, int]:
        return (self.listen_addr, RAFT_PORT)

    @property
    def sealing(self) -> Path:
        """Where this manager's data keys are."""
        return self.paths.manager / "sealing"


def load_config(paths: NodePaths) -> ManagerConfig:
    """Read the node's configuration. Raises FailedPrecondition or InvalidArgument naming the file."""
    node = _node_file(paths.node_file)
    if node.get("role") != "manager":
        raise FailedPrecondition(
            f"this node is a {node.get('role')}, not a manager",
            remedy="pyswarmd starts the manager when the node is promoted.",
        )
    settings = _config_file(paths.config_file)
    bootstrap = node.get("bootstrap") or {}
    raft = settings.get("raft", {})
    low, high = raft.get("election-seconds", (0.4, 0.8))
    heartbeat = raft.get("heartbeat-seconds", 0.1)
    if not 0 < heartbeat * 3 < low < high:
        raise InvalidArgument(
            f"{paths.config_file}: [raft] heartbeat-seconds {heartbeat} does not fit election-seconds [{low}, {high}]",
            remedy="The shorter election timeout must be more than three heartbeats and less than the longer one.",
        )
    return ManagerConfig(
        paths=paths,
        node_id=node["node_id"],
        cluster_id=node["cluster_id"],
        raft_id=node["raft_id"],
        advertise_addr=node["advertise_addr"],
        listen_addr=node.get("listen_addr") or "0.0.0.0",
        join_remote=bootstrap.get("remote", "") if bootstrap.get("mode") == "join" else "",
        is_first=bootstrap.get("mode") == "init",
        log_level=settings.get("log-level", "info"),
        heartbeat_seconds=heartbeat,
        election_seconds=(low, high),
        managers=tuple(m["addr"] for m in node.get("managers", ())),
    )


def _node_file(path: Path) -> dict[str, Any]:
    try:
        stored: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise FailedPrecondition(
            "this node is not part of a cluster", remedy='Use "pyswarm init" or "pyswarm join" first.'
        ) from None
    except json.JSONDecodeError as error:
        raise InvalidArgument(f"{path} is damaged: {error}", remedy="Leave the cluster and join again.") from error
    return stored


def _config_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except tomllib.TOMLDecodeError as error:
        raise InvalidArgument(f"{path}: {error}", remedy="Correct the file and start again.") from error
