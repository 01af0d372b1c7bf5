"""`node ls` and `node inspect --pretty`."""

from pyswarm.manager.cli.view.facts import render_facts, rfc3339
from pyswarm.manager.cli.view.table import Column, Row, column
from pyswarm.proto.codec.generic_resources import as_text
from pyswarm.proto.codec.units import format_bytes, format_nano_cpus
from pyswarm.proto.model.objects import Node
from pyswarm.proto.model.states import Reachability

NODE_COLUMNS = (
    Column("ID", lambda row: f"{row['ID']} {'*' if row['Self'] else ' '}"),
    column("HOSTNAME", "Hostname"),
    column("STATUS", "Status"),
    column("AVAILABILITY", "Availability"),
    column("MANAGER STATUS", "ManagerStatus"),
    column("ENGINE VERSION", "EngineVersion"),
)


def node_row(node: Node, *, self_id: str) -> Row:
    """Return the node as a row; `self_id` is the node that answered."""
    return {
        "ID": node.id,
        "Hostname": node.description.hostname,
        "Status": node.status.state.name.title(),
        "Availability": node.spec.availability.name.title(),
        "ManagerStatus": manager_status(node),
        "EngineVersion": node.description.engine_version,
        "Self": node.id == self_id,
        "TLSStatus": "Ready",
    }


def manager_status(node: Node) -> str:
    """Return Leader, Reachable, Unreachable, or "" for a worker."""
    status = node.manager_status
    if status is None:
        return ""
    if status.leader:
        return "Leader"
    return "Unknown" if status.reachability is Reachability.UNSET else status.reachability.name.title()


def node_pretty(node: Node) -> str:
    """Return one node for people."""
    description, resources, status = node.description, node.description.resources, node.status
    manager = node.manager_status
    return render_facts(
        [
            ("ID", node.id),
            ("Labels", dict(sorted(node.spec.labels.items()))),
            ("Hostname", description.hostname),
            ("Joined at", rfc3339(node.created_at)),
            ("Role", node.role.name.title()),
            (
                "Status",
                {
                    "State": status.state.name.title(),
                    "Message": status.message,
                    "Availability": node.spec.availability.name.title(),
                    "Address": status.addr,
                },
            ),
            (
                "Manager Status",
                {
                    "Address": manager.addr,
                    "Raft Status": manager.reachability.name.title(),
                    "Leader": "Yes" if manager.leader else "No",
                }
                if manager is not None
                else {},
            ),
            (
                "Platform",
                {"Operating System": description.platform.os, "Architecture": description.platform.architecture},
            ),
            (
                "Resources",
                {
                    "CPUs": format_nano_cpus(resources.nano_cpus),
                    "Memory": format_bytes(resources.memory_bytes),
                    "Processes": str(resources.pids or ""),
                    "Generic": ", ".join(map(as_text, resources.generic)),
                },
            ),
            ("Engine Version", description.engine_version),
            ("Engine Labels", dict(sorted(description.engine_labels.items()))),
        ]
    )
