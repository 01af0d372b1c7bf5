"""Restoring a backup of an autolocked cluster, and recovering a locked manager's state: under the key or not at all."""

import json
from pathlib import Path
from typing import Any

import pytest
from lib.builders import FakeClock

from pyswarm.manager.bootstrap import bootstrap
from pyswarm.manager.initial_objects import initial_objects_file, read_initial_objects
from pyswarm.manager.raft.fake import SingleNodeConsensus
from pyswarm.manager.recover import recover
from pyswarm.manager.restore import restore
from pyswarm.manager.sealing.keys import open_sealer
from pyswarm.manager.store.changes import Create
from pyswarm.manager.store.store import Store
from pyswarm.manager.store.writer import Writer
from pyswarm.proto.backup_file import BackupFacts, BackupWriter, new_key, parse_key
from pyswarm.proto.entropy import SeededEntropy
from pyswarm.proto.errors import Locked
from pyswarm.proto.paths import NodePaths
from pyswarm.proto.unlock_key import format_unlock_key, parse_unlock_key

CLOCK = FakeClock(1_700_000_000.0)


async def a_backup(directory: Path) -> tuple[dict[str, Any], str]:
    """Return the options that restore a backup of an autolocked cluster, and its unlock key."""
    paths = NodePaths(directory / "first")
    made = bootstrap(paths, {"advertise_addr": "10.0.0.1", "autolock": True}, CLOCK, SeededEntropy(1))
    key = parse_unlock_key(made["unlock_key"])
    store = Store()
    objects = read_initial_objects(initial_objects_file(paths), unlock_key=key)
    writer = Writer(SingleNodeConsensus(store), store, clock=CLOCK, entropy=SeededEntropy(2))
    await writer.write([Create(each) for each in objects])
    backup_key = new_key()
    version, pieces = store.backup()
    file = BackupWriter(directory / "backup", parse_key(backup_key), BackupFacts(made["cluster_id"], version, 1.0, "9"))
    for piece in pieces:
        file.add(piece)
    file.finish()
    options = {"file": str(directory / "backup"), "key": backup_key, "raft_id": "r1", "advertise_addr": "10.0.0.9"}
    return options, made["unlock_key"]


async def test_a_restored_cluster_is_locked_under_the_key_it_had(tmp_path: Path):
    options, unlock_key = await a_backup(tmp_path)
    paths = NodePaths(tmp_path / "second")
    made = restore(paths, options, CLOCK, SeededEntropy(3))
    assert made["unlock_key"] == unlock_key
    for keys in ([], [b"w" * 32]):
        with pytest.raises(Locked):
            open_sealer(paths.manager / "sealing", unlock_keys=keys)
    open_sealer(paths.manager / "sealing", unlock_keys=[parse_unlock_key(unlock_key)])


async def test_a_locked_manager_becomes_the_only_one_with_its_key_and_is_untouched_without(tmp_path: Path):
    options, unlock_key = await a_backup(tmp_path)
    paths = NodePaths(tmp_path / "second")
    made = restore(paths, options, CLOCK, SeededEntropy(3))
    node = {"node_id": made["node_id"], "role": "manager", "advertise_addr": "10.0.0.9"}
    paths.node_file.write_text(json.dumps(node))
    before = _content(paths.manager)
    for keys in ([], [format_unlock_key(b"w" * 32)]):
        with pytest.raises(Locked):
            recover(paths, {"raft_id": "r2", "unlock_keys": keys}, CLOCK, SeededEntropy(4))
        assert _content(paths.manager) == before
    assert recover(paths, {"raft_id": "r2", "unlock_keys": [unlock_key]}, CLOCK, SeededEntropy(4))["raft_id"] == "r2"
    with pytest.raises(Locked):
        open_sealer(paths.manager / "sealing", unlock_keys=[])


def _content(directory: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in directory.rglob("*") if file.is_file()}
