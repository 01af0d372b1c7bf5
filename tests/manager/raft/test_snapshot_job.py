"""A snapshot that is under way when its member stops is waited for, and how it ended is looked at."""

import asyncio
import gc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pyswarm.manager.raft.commands import NOOP_COMMAND
from pyswarm.manager.raft.disk import RealDisk
from pyswarm.manager.raft.snapshot_job import SnapshotJob
from pyswarm.manager.raft.snapshots import SnapshotStore
from pyswarm.manager.sealing.sealer import Sealer


class Full(RealDisk):
    def write(self, descriptor: int, data: bytes | bytearray, offset: int) -> None:
        raise OSError(28, "No space left on device")


async def test_one_that_fails_while_its_member_stops_leaves_nothing_unlooked_at(tmp_path: Path) -> None:
    unexpected: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unexpected.append(context))
    store = SnapshotStore(tmp_path, Sealer(b"d" * 32), disk=Full())
    store.prepare()
    with ThreadPoolExecutor(1) as executor:
        job = SnapshotJob(
            store=store,
            executor=executor,
            pieces=lambda: [b"piece"],
            members_at=lambda _: (),
            removed_at=lambda _: (),
            members_now=tuple,
            finished=lambda _: None,
        )
        job.serialize("", ((NOOP_COMMAND, 5, 1), (NOOP_COMMAND, 4, 1), None))
        assert job.is_running
        await job.settle()
        del job
    gc.collect()
    await asyncio.sleep(0)
    assert unexpected == []
