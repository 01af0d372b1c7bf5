"""The last commits, for followers that come back: they resume where they were instead of listing everything again.

Bounded by the number of events in it, however they are spread over commits. What has been dropped is known by its
version only: whoever resumes from before it is told so (`VersionTooOld`) and never fed a gap. Each manager keeps its
own, in memory; after a restart or a restore it begins anew.
"""

from collections import deque
from collections.abc import Iterator
from itertools import dropwhile
from typing import Final

from pyswarm.manager.store.watch import Commit
from pyswarm.proto.errors import VersionTooOld

HISTORY_EVENTS: Final = 16_384
"""Events kept: some minutes of an ordinary cluster. A commit's snapshot costs what has changed since."""


class History:
    """Commits in their order, all of those after `floor`."""

    def __init__(self, floor: int = 0, *, events_max: int = HISTORY_EVENTS) -> None:
        self.floor = floor
        """The version from which one can resume at the earliest."""
        self._events_max = events_max
        self._commits: deque[Commit] = deque()
        self._events = 0

    def append(self, commit: Commit) -> None:
        """Keep `commit`, and drop the oldest as far as there are too many."""
        self._commits.append(commit)
        self._events += len(commit.events)
        while self._events > self._events_max:
            oldest = self._commits.popleft()
            self._events -= len(oldest.events)
            self.floor = oldest.version

    def after(self, version: int) -> Iterator[Commit]:
        """Return the commits after `version`, oldest first.

        Raises:
            VersionTooOld: some of them have been dropped.
        """
        if version < self.floor:
            raise VersionTooOld(
                f"version {version} is too old to watch from: this manager remembers what came after {self.floor}"
            )
        return dropwhile(lambda commit: commit.version <= version, iter(self._commits))
