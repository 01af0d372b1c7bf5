"""Make a one-manager cluster out of what this manager has on its disk: the quorum is lost and will not come back.

    echo '{"raft_id": "…", "advertise_addr": "10.0.0.1"}' | python -m pyswarm.manager.recover --root ROOT

A one-shot that pyswarmd runs for `pyswarm init --force-new-cluster`, with the manager stopped (docs/guides/
operating-managers.md). Cluster id, certificate authority, services, tasks and workers stay; the other managers are
removed and their certificates refused. The state as it was is kept beside it until the next time.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from pyswarm.manager.orchestrator.nodes import keep_only_manager
from pyswarm.manager.raft.port import Member
from pyswarm.manager.raft.recovery import plant, read_all
from pyswarm.manager.sealing.keys import open_sealer
from pyswarm.manager.store.apply import Applied, Entry, decode_outcome, encode_entry
from pyswarm.manager.store.changes import Change
from pyswarm.manager.store.store import Store
from pyswarm.proto import one_shot
from pyswarm.proto.certificate_files import sync_directory
from pyswarm.proto.clock import SYSTEM_CLOCK, Clock
from pyswarm.proto.entropy import SYSTEM_ENTROPY, Entropy
from pyswarm.proto.errors import FailedPrecondition, Internal
from pyswarm.proto.model.objects import ManagerStatus
from pyswarm.proto.model.states import Reachability
from pyswarm.proto.paths import API_PORT, RAFT_PORT, NodePaths
from pyswarm.proto.unlock_key import parse_unlock_key

REPLACED = "raft.replaced"
"""Where the state goes that a new one takes the place of."""


def recover(paths: NodePaths, options: dict[str, Any], clock: Clock, entropy: Entropy) -> dict[str, Any]:
    """Replace the consensus state of this manager by one whose only member it is.

    Raises FailedPrecondition on a node that is no manager or has no state, Locked when none of the `unlock_keys` among
    the options opens it; nothing has changed then.
    """
    node = _this_manager(paths)
    directory = paths.manager / "raft"
    _undo_half_exchange(directory)
    unlock_keys = [parse_unlock_key(text) for text in options.get("unlock_keys", ())]
    sealer = open_sealer(paths.manager / "sealing", unlock_keys=unlock_keys)
    store = Store()
    index, term = read_all(directory, sealer=sealer, machine=store)
    address = str(options.get("advertise_addr") or node["advertise_addr"])
    # A new id: what the other members still say is for the old one, and finds nobody.
    member = Member(str(options["raft_id"]), node["node_id"], f"{address}:{RAFT_PORT}", f"{address}:{API_PORT}")
    removed = make_only_manager(store, member, index=index + 1, clock=clock, entropy=entropy)
    exchange_state(directory, lambda new: plant(
        new, sealer=sealer, member=member, machine=store, index=index + 1, term=term + 1, entropy=entropy
    ))  # fmt: skip
    answer = {"node_id": member.node_id, "raft_id": member.raft_id, "advertise_addr": address}
    return {**answer, "removed": removed}


def make_only_manager(store: Store, member: Member, *, index: int, clock: Clock, entropy: Entropy) -> list[str]:
    """Have the entry at `index` make `member` the store's only manager; return the hostnames of those removed."""
    seen = store.view
    status = ManagerStatus(raft_id=member.raft_id, addr=member.api_addr, reachability=Reachability.REACHABLE)
    plan = keep_only_manager(seen, member.node_id, status, now=clock.now())
    write_entry(store, plan.changes, index=index, entropy=entropy)
    gone = [node for node in seen.nodes() if store.view.node(node.id) is None]
    return sorted(node.description.hostname or node.id for node in gone)


def write_entry(store: Store, changes: tuple[Change, ...], *, index: int, entropy: Entropy) -> None:
    """Apply changes as the entry at `index` of a log that nobody else has. Raises Internal when they do not apply."""
    outcome = decode_outcome(store.apply(index, encode_entry(Entry(entropy.new_id(), 1, 1, changes))))
    if not isinstance(outcome, Applied):
        raise Internal(f"the state could not be changed: {outcome}")


def exchange_state(directory: Path, write: Any) -> None:
    """Have `write(new directory)` write a state, then let it take the place of `directory`, which is kept aside."""
    aside, replaced = directory.with_name("raft.new"), directory.with_name(REPLACED)
    shutil.rmtree(aside, ignore_errors=True)
    try:
        write(aside)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    if directory.exists():
        shutil.rmtree(replaced, ignore_errors=True)
        directory.rename(replaced)
    aside.rename(directory)
    sync_directory(directory.parent)


def _undo_half_exchange(directory: Path) -> None:
    """A crash between the two renames left the old state aside: begin again with it."""
    replaced = directory.with_name(REPLACED)
    if not directory.exists() and replaced.exists():
        replaced.rename(directory)


def _this_manager(paths: NodePaths) -> dict[str, Any]:
    try:
        node: dict[str, Any] = json.loads(paths.node_file.read_text())
    except FileNotFoundError:
        node = {}
    if node.get("role") != "manager":
        raise FailedPrecondition(
            "this node is not a manager",
            remedy="Run it on a manager that is left. Without one, restore a backup: `pyswarm restore FILE`.",
        )
    return node


def main() -> None:
    """Entry point: JSON options on standard input, JSON answer on standard output."""
    one_shot.run(
        lambda paths, options: recover(paths, options, SYSTEM_CLOCK, SYSTEM_ENTROPY),
        description="make a one-manager cluster of this manager's state",
    )


if __name__ == "__main__":
    main()
