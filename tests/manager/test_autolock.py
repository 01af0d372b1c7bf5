"""A manager's key file follows the cluster object: newer keys only, through crashes, and pyswarmd knows in time."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from lib.builders import a_cluster
from msgspec.structs import replace

from pyswarm.manager.autolock import Autolock
from pyswarm.manager.raft.fake import SingleNodeConsensus
from pyswarm.manager.sealing.keys import FILE, NO_KEK, Kek, KeyFile, open_key_file
from pyswarm.manager.store.changes import Create, Update
from pyswarm.manager.store.store import Store
from pyswarm.manager.store.writer import Writer
from pyswarm.proto.clock import SYSTEM_CLOCK
from pyswarm.proto.entropy import SYSTEM_ENTROPY
from pyswarm.proto.errors import Locked
from pyswarm.proto.model.objects import Cluster

OLD, NEW, OTHER = b"o" * 32, b"n" * 32, b"x" * 32


class LockedManager:
    """A manager's key file and its follower; `told` has what pyswarmd was told, and which keys opened the file then."""

    def __init__(self, directory: Path, first: Kek = NO_KEK) -> None:
        self.directory = directory
        self.keys = open_key_file(directory, first_kek=first)
        self.store = Store()
        self.writer = Writer(SingleNodeConsensus(self.store), self.store, clock=SYSTEM_CLOCK, entropy=SYSTEM_ENTROPY)
        self.told: list[tuple[list[bytes], str]] = []
        self.rotations = 0
        self.lock = self.follower(self.keys)
        self._news = asyncio.Event()

    def follower(self, keys: KeyFile) -> Autolock:
        async def rotate_data_key() -> int:
            self.rotations += 1
            keys.sealer.rotate(SYSTEM_ENTROPY)
            return keys.sealer.key_count - 1

        return Autolock(keys, store=self.store, rotate_data_key=rotate_data_key, tell=self._tell)

    async def _tell(self, keys: Sequence[bytes]) -> None:
        self.told.append((list(keys), self.opened_by()))
        self._news.set()

    def opened_by(self) -> str:
        """Which key opens the file on the disk."""
        for name, key in (("nothing", []), ("old", [OLD]), ("new", [NEW])):
            try:
                open_key_file(self.directory, unlock_keys=key)
            except Locked:
                continue
            return name
        return "none of them"

    @asynccontextmanager
    async def running(self):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.lock.run())
            yield
            task.cancel()

    async def set_key(self, key: bytes) -> None:
        cluster = self.store.view.cluster
        if cluster is None:
            await self.writer.write((Create(replace(a_cluster(version=0), unlock_key=key)),))
        else:
            await self.writer.write((Update(replace(cluster, unlock_key=key)),))

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not holds():
                self._news.clear()
                await self._news.wait()


def cluster(version: int, key: bytes) -> Cluster:
    return replace(a_cluster(version=version), unlock_key=key)


async def test_the_file_follows_the_cluster_object(tmp_path: Path):
    manager = LockedManager(tmp_path)
    await manager.set_key(b"")
    first = manager.keys.sealer.fingerprint
    async with manager.running():
        await manager.set_key(OLD)
        await manager.until(lambda: manager.told[-1] == ([OLD], "old"))
        await manager.set_key(NEW)
        await manager.until(lambda: manager.told[-1] == ([NEW], "new"))
        assert manager.keys.sealer.fingerprint != first, "the data key that lay open is exchanged"
        assert manager.rotations == 1
        await manager.set_key(b"")
        await manager.until(lambda: manager.told[-1] == ([], "nothing"))
    assert manager.keys.kek == Kek(b"", manager.store.view.version)
    assert manager.rotations == 1


async def test_pyswarmd_has_whatever_key_a_crash_may_leave_in_force(tmp_path: Path):
    manager = LockedManager(tmp_path, Kek(OLD))
    await manager.lock.follow(cluster(5, NEW))
    assert manager.told == [([OLD, NEW], "old"), ([NEW], "new")]
    assert manager.rotations == 0, "no data key lay open"


async def test_a_manager_that_starts_tells_the_key_that_opened_its_file(tmp_path: Path):
    manager = LockedManager(tmp_path, Kek(OLD))
    async with manager.running():
        await manager.until(lambda: manager.told == [([OLD], "old")])


@pytest.mark.parametrize("older", [b"", OLD, OTHER])
async def test_an_older_word_of_the_cluster_never_brings_an_older_key_back(tmp_path: Path, older: bytes):
    manager = LockedManager(tmp_path, Kek(OLD))
    await manager.lock.follow(cluster(9, NEW))
    content = (tmp_path / FILE).read_bytes()
    restarted = open_key_file(tmp_path, unlock_keys=[NEW])
    for version in (3, 8, 9):
        await manager.follower(restarted).follow(cluster(version, older))
    assert (tmp_path / FILE).read_bytes() == content


async def test_changes_of_the_cluster_object_that_keep_the_key_write_nothing(tmp_path: Path):
    manager = LockedManager(tmp_path, Kek(OLD))
    before = (tmp_path / FILE).stat().st_ino
    await manager.lock.follow(cluster(7, OLD))
    assert (tmp_path / FILE).stat().st_ino == before
    assert manager.told == []


async def test_a_crash_between_lock_and_exchange_of_the_data_key_is_made_good(tmp_path: Path):
    manager = LockedManager(tmp_path)
    first = manager.keys.sealer.fingerprint
    manager.keys.rewrap(Kek(NEW, 5))  # and here it is killed
    restarted = open_key_file(tmp_path, unlock_keys=[NEW])
    assert restarted.sealer.fingerprint == first
    for _ in range(2):
        await manager.follower(restarted).follow(cluster(5, NEW))
    assert manager.rotations == 1
    assert restarted.sealer.fingerprint != first


async def test_a_state_that_came_as_a_whole_is_followed(tmp_path: Path):
    other = LockedManager(tmp_path / "other")
    await other.set_key(NEW)
    manager = LockedManager(tmp_path / "manager")
    async with manager.running():
        await manager.until(lambda: bool(manager.told))
        manager.store.restore(other.store.view.version, list(other.store.snapshot()))
        await manager.until(lambda: manager.told[-1] == ([NEW], "new"))
