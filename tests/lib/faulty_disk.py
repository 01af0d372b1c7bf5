"""A real disk whose syncs can be held up, and whose writes can be made to fail as a full or broken disk's do."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyswarm.manager.raft.disk import RealDisk


class FaultyDisk(RealDisk):
    def __init__(self) -> None:
        self._may_sync = threading.Event()
        self._may_sync.set()
        self._errno = 0
        self.held = 0
        """Syncs that were held up so far."""

    @property
    def has_system_descriptors(self) -> bool:  # type: ignore[override]
        """Only as long as it is well: nobody but this class can hold a sync up or fail it."""
        return self._may_sync.is_set() and not self._errno

    @contextmanager
    def stalled(self) -> Iterator[None]:
        """No sync returns within; those under way return at the end."""
        self._may_sync.clear()
        try:
            yield
        finally:
            self._may_sync.set()

    def fail_with(self, errno: int) -> None:
        """Let every write and sync fail from now on; 0 ends it."""
        self._errno = errno

    def create(self, path: Path, size: int) -> int:
        self._may_fail()
        return super().create(path, size)

    def write(self, descriptor: int, data: bytes | bytearray, offset: int) -> None:
        self._may_fail()
        super().write(descriptor, data, offset)

    def sync(self, descriptor: int) -> None:
        if not self._may_sync.is_set():
            self.held += 1
            assert self._may_sync.wait(60), "a test forgot to end a stall"
        self._may_fail()
        super().sync(descriptor)

    def _may_fail(self) -> None:
        if self._errno:
            raise OSError(self._errno, os.strerror(self._errno))
