"""Keep this manager's key file wrapped as the cluster object says, for as long as the manager runs.

The cluster object carries the unlock key (or none), and every manager rewraps its own file as the object replicates:
with one that is newer than what wraps it now (keys.py). Turning the lock on also exchanges the data key, because the
present one lay open on this disk; the journal's engine does that, and forgets it when no file needs it any more.

pyswarmd is told the key, and keeps it in its memory alone: a manager daemon that crashed is started again without
anybody's help. Before the file changes it is told both keys, so that a crash in between locks nobody out.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from pyswarm.manager.sealing.keys import Kek, KeyFile
from pyswarm.manager.store.store import Overrun, Store
from pyswarm.proto.log import get_logger
from pyswarm.proto.model.objects import Cluster

log = get_logger(__name__)

TellKeys = Callable[[Sequence[bytes]], Awaitable[None]]
"""Have pyswarmd keep these unlock keys, and no others, for this manager's next start."""


class Autolock:
    def __init__(
        self, keys: KeyFile, *, store: Store, rotate_data_key: Callable[[], Awaitable[int]], tell: TellKeys
    ) -> None:
        self._keys = keys
        self._store = store
        self._rotate_data_key = rotate_data_key
        self._tell = tell

    async def run(self) -> None:
        """Follow the cluster object until cancelled.

        Raises:
            OSError: the key file cannot be written; what is on the disk is the file as it was.
        """
        await self._tell(_in_force(self._keys.kek))
        while True:
            seen, commits = self._store.view_and_watch({"cluster"})
            with commits:
                try:
                    await self.follow(seen.cluster)
                    async for commit in commits:
                        await self.follow(commit.snapshot.cluster)
                except Overrun:
                    log.info("reading the cluster object anew: changes were missed")

    async def follow(self, cluster: Cluster | None) -> None:
        """Wrap the key file as `cluster` says, unless it is wrapped so or by a newer word."""
        if cluster is not None:
            await self._take(Kek(cluster.unlock_key, cluster.version))
        if self._keys.needs_rotation:
            await self._rotate_data_key()

    async def _take(self, kek: Kek) -> None:
        before = self._keys.kek
        if not kek.supersedes(before):
            return
        await self._tell([*_in_force(before), *_in_force(kek)])
        await asyncio.to_thread(self._keys.rewrap, kek)
        await self._tell(_in_force(kek))
        log.info("this manager's keys are wrapped anew", locked=bool(kek.key), version=kek.version)


def _in_force(kek: Kek) -> list[bytes]:
    return [kek.key] if kek.key else []
