"""What a manager's state amounted to at fixed versions, and what it means when another's was not the same (pure).

Every manager applies the same entries, so at one version their digests are equal: if not, an apply was not
deterministic, a restore lost something, or memory failed. Checkpoints are taken every so many versions, more often than
snapshots, so that whatever enters a snapshot has been compared. Who asks the others: manager/agreement.py.
"""

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from msgspec import Struct

CHECKPOINT_VERSIONS: Final = 1_000
CHECKPOINTS_MAX: Final = 64
"""A manager that lags is compared as long as it is not further behind than this many checkpoints."""


class Checkpoint(Struct, frozen=True):
    version: int
    digest: str


class Checkpoints:
    """The latest checkpoints of one manager, oldest first."""

    def __init__(self) -> None:
        self._kept: deque[Checkpoint] = deque(maxlen=CHECKPOINTS_MAX)

    def is_due(self, before: int, now: int) -> bool:
        """Whether the step from one version to the next is one after which every manager takes a checkpoint."""
        return before // CHECKPOINT_VERSIONS != now // CHECKPOINT_VERSIONS

    def add(self, checkpoint: Checkpoint) -> None:
        self._kept.append(checkpoint)

    def clear(self) -> None:
        self._kept.clear()

    def __iter__(self) -> Iterator[Checkpoint]:
        return iter(tuple(self._kept))


class Disagreement(Struct, frozen=True):
    version: int
    differing: tuple[str, ...]
    """Node ids of the managers whose state at `version` is another than ours."""
    is_outvoted: bool
    """Whether a majority of all managers agrees on another state than ours: then ours is the wrong one."""


def find_disagreement(
    own: Sequence[Checkpoint], others: Mapping[str, Sequence[Checkpoint]], *, managers: int
) -> Disagreement | None:
    """Compare at every version that others have reached as well; return the newest at which somebody differs.

    `others` maps node ids to checkpoints. None when nobody is known to differ.
    """
    found = {node: {c.version: c.digest for c in checkpoints} for node, checkpoints in others.items()}
    for mine in sorted(own, key=lambda c: c.version, reverse=True):
        theirs = {node: digests[mine.version] for node, digests in found.items() if mine.version in digests}
        differing = tuple(sorted(node for node, digest in theirs.items() if digest != mine.digest))
        if differing:
            votes = Counter(theirs[node] for node in differing)
            return Disagreement(mine.version, differing, is_outvoted=max(votes.values()) > managers // 2)
    return None
