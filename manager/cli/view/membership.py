"""What `init`, `join`, `join-token` and `unlock-key` say."""

from collections.abc import Sequence

from pyswarm.proto.paths import API_PORT


def how_to_unlock(key: str) -> str:
    return (
        "To unlock a swarm manager after it restarts, run the `pyswarm unlock`\n"
        f"command and provide the following key:\n\n    {key}\n\n"
        "Remember to store this key in a password manager, since without it you\n"
        "will not be able to restart the manager."
    )


def initialized(node_id: str, worker_token: str, address: str) -> str:
    """Return the text that tells how to add nodes to a cluster just made."""
    return (
        f"Swarm initialized: current node ({node_id}) is now a manager.\n\n"
        f"{how_to_join('worker', worker_token, endpoint(address))}\n\n"
        "To add a manager to this swarm, run 'pyswarm join-token manager' and follow the instructions."
    )


def how_to_join(role: str, token: str, remote: str) -> str:
    return f"To add a {role} to this swarm, run the following command:\n\n    pyswarm join --token {token} {remote}"


def joined(role: str) -> str:
    return f"This node joined a swarm as a {role}."


def endpoint(address: str) -> str:
    """Return host:port of the cluster API at an address."""
    return f"[{address}]:{API_PORT}" if ":" in address else f"{address}:{API_PORT}"


def only_manager(node_id: str, removed: Sequence[str]) -> str:
    """Return what `init --force-new-cluster` says in the end."""
    gone = f"Removed: {', '.join(removed)}. " if removed else ""
    return f"""Node {node_id} is now the only manager of its cluster; services, workers and their tasks stay.

{gone}A machine that was removed must run `pyswarm leave --force` before it joins again.
To have more managers, run `pyswarm join-token manager` and follow the instructions."""


def restored(node_id: str, services: int, nodes: int, removed: Sequence[str], *, is_autolocked: bool) -> str:
    """Return what `restore` says in the end."""
    locked = "\nIts managers are locked when they start, with the unlock key of the backup." if is_autolocked else ""
    gone = f"Removed: {', '.join(removed)}. " if removed else ""
    return f"""Cluster restored: this node ({node_id}) is its only manager.
It has {services} services and {nodes} nodes.{locked}

{gone}Workers of the cluster come back by themselves if this machine has the address of one of its managers;
others join again, after `pyswarm leave --force`.
To have more managers, run `pyswarm join-token manager` and follow the instructions."""
