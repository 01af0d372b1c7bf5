"""The core's view of snapshots: three hooks that write in a thread and read what was restored already.

The core asks for a snapshot and then asks, at every tick, whether it is finished. The pieces come from an immutable
view that is taken at once; writing them takes as long as it takes, beside the loop.
"""

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from typing import Any

from pyswarm.manager.raft.core import SERIALIZER_STATE, RaftNode
from pyswarm.manager.raft.pace import Pace
from pyswarm.manager.raft.port import Member
from pyswarm.manager.raft.snapshots import SnapshotHeader, SnapshotStore
from pyswarm.proto.log import get_logger

log = get_logger(__name__)


class SnapshotJob:
    def __init__(
        self,
        *,
        store: SnapshotStore,
        executor: Executor,
        pieces: Callable[[], Iterable[bytes]],
        members_at: Callable[[int], tuple[Member, ...]],
        removed_at: Callable[[int], tuple[str, ...]],
        members_now: Callable[[], tuple[Member, ...]],
        finished: Callable[[SnapshotHeader], None],
    ) -> None:
        self._store = store
        self._executor = executor
        self._pieces = pieces
        self._members_at = members_at
        self._removed_at = removed_at
        self._members_now = members_now
        self._finished = finished
        self._writing: asyncio.Future[None] | None = None
        self._pace = Pace()
        self._header: SnapshotHeader | None = None
        self.restored: SnapshotHeader | None = None
        """What the state machine was restored from last: what the core must begin with."""

    @property
    def is_running(self) -> bool:
        return self._writing is not None

    def serialize(self, _path: str, data: Any) -> None:
        """Begin to write a snapshot of what is applied now."""
        last, before, _cluster = data
        self._header = header = SnapshotHeader(
            tuple(before), tuple(last), self._members_at(last[1]), self._removed_at(last[1])
        )
        pieces = self._pieces()
        loop = asyncio.get_running_loop()
        self._writing = loop.run_in_executor(self._executor, self._write, header, pieces)

    def _write(self, header: SnapshotHeader, pieces: Iterable[bytes]) -> None:
        self._pace.begin()
        self._store.write(header, pieces, self._pace.rest)

    def check(self) -> int:
        """Say how far it is; success and failure are said once."""
        if self._writing is None:
            return int(SERIALIZER_STATE.NOT_SERIALIZING)
        if not self._writing.done():
            return int(SERIALIZER_STATE.SERIALIZING)
        writing, self._writing = self._writing, None
        assert self._header is not None
        error = None if writing.cancelled() else writing.exception()
        if error is not None or writing.cancelled():
            # The log goes on growing and the next attempt may succeed; a full disk stops the journal itself.
            log.error("raft snapshot not written", index=self._header.index, reason=str(error))
            return int(SERIALIZER_STATE.FAILED)
        log.info("raft snapshot written", index=self._header.index)
        self._finished(self._header)
        return int(SERIALIZER_STATE.SUCCESS)

    def deserialize(self, _path: str) -> tuple[Any, Any, set[RaftNode]]:
        """Return where the core goes on from; the state machine stands there already."""
        header = self.restored
        assert header is not None, "the core loads what was restored"
        return header.last, header.before, {RaftNode(m) for m in self._members_now()}

    async def settle(self) -> None:
        """Wait for a snapshot under way; one that fails now is missed by nobody, and told all the same."""
        self._pace.hurry()
        writing = self._writing
        if writing is not None:
            await asyncio.wait({writing})
            if not writing.cancelled() and (error := writing.exception()) is not None:
                log.warning("raft snapshot not written", reason=str(error))
