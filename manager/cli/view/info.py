"""`pyswarm info`."""

from collections.abc import Mapping, Sequence
from typing import Any

from pyswarm.manager.cli.view.facts import Fact, render_facts


def node_info(status: Mapping[str, Any]) -> dict[str, Any]:
    """Return what pyswarmd's status says of this node."""
    role = status.get("role") or ""
    return {
        "LocalNodeState": _state(status),
        "NodeID": status.get("node_id") or "",
        "ClusterID": status.get("cluster_id") or "",
        "Role": role,
        "ControlAvailable": role == "manager",
        "NodeAddr": status.get("advertise_addr") or "",
        "RemoteManagers": [
            {"NodeID": manager.get("node_id", ""), "Addr": manager.get("addr", "")}
            for manager in status.get("managers") or ()
        ],
        "Daemons": [
            {
                "Name": daemon.get("name", ""),
                "Pid": daemon.get("pid") or 0,
                "Running": bool(daemon.get("running")),
                "Restarts": daemon.get("restarts") or 0,
            }
            for daemon in status.get("daemons") or ()
        ],
    }


def _state(status: Mapping[str, Any]) -> str:
    if status.get("locked"):
        return "locked"
    return "active" if status.get("node_id") else "inactive"


def manager_info(
    *,
    node_id: str,
    cluster_id: str,
    leader_node_id: str,
    leader_addr: str,
    is_leader: bool,
    term: int,
    applied_version: int,
    managers: int,
    nodes: int,
    server_version: str,
) -> dict[str, Any]:
    """Return what a manager says of the cluster."""
    return {
        "NodeID": node_id,
        "ClusterID": cluster_id,
        "Role": "manager",
        "ControlAvailable": True,
        "Managers": managers,
        "Nodes": nodes,
        "IsLeader": is_leader,
        "LeaderNodeID": leader_node_id,
        "LeaderAddr": leader_addr,
        "Term": term,
        "AppliedVersion": applied_version,
        "ServerVersion": server_version,
    }


def info_text(found: Mapping[str, Any]) -> str:
    """Return the same for people."""
    state = str(found.get("LocalNodeState", "active"))
    cluster = {
        "NodeID": str(found.get("NodeID", "")),
        "Is Manager": "true" if found.get("ControlAvailable") else "false" if found.get("NodeID") else "",
        "ClusterID": str(found.get("ClusterID", "")),
        "Managers": str(found.get("Managers", "")),
        "Nodes": str(found.get("Nodes", "")),
        "Leader": _leader(found),
        "Term": str(found.get("Term", "")),
        "Applied Version": str(found.get("AppliedVersion", "")),
        "Node Address": str(found.get("NodeAddr", "")),
    }
    facts: list[Fact] = [
        ("Server Version", str(found.get("ServerVersion", ""))),
        ("Swarm", state),
        ("Cluster", cluster if found.get("NodeID") else {}),
        ("Manager Addresses", [manager["Addr"] for manager in found.get("RemoteManagers", ())]),
        ("Daemons", _daemons(found.get("Daemons", ()))),
        ("Error", str(found.get("Error", ""))),
    ]
    return render_facts(facts)


def _leader(found: Mapping[str, Any]) -> str:
    if found.get("IsLeader"):
        return "this node"
    leader, address = found.get("LeaderNodeID", ""), found.get("LeaderAddr", "")
    if leader:
        return f"{leader} ({address})" if address else str(leader)
    return "none is known" if "Managers" in found else ""


def _daemons(daemons: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    return {
        daemon["Name"]: (f"running, pid {daemon['Pid']}" if daemon["Running"] else "not running")
        + (f", restarted {daemon['Restarts']} times" if daemon["Restarts"] else "")
        for daemon in daemons
    }
