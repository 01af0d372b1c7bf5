"""Cut a long list of changes into parts that each fit one entry (pure).

Only for changes that need not take effect together: each part applies or is refused by itself. writer.py writes parts
side by side; whoever needs all or nothing gives `Writer.write` one list, and is told when it is too large.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from pyswarm.manager.store.changes import Change
from pyswarm.manager.store.conflict import Conflict
from pyswarm.proto.errors import InvalidArgument

CHANGES_PER_PART: Final = 200
"""Objects changed by one part at most (as SwarmKit's batches): what is applied in one go holds up everything else."""

PART_BYTES: Final = 512 * 1024
"""Encoded changes in one part at most, one large change excepted: far below what an entry may hold."""

ENTRY_BYTES_MAX: Final = 1_572_864
"""Largest entry, and so the largest list of changes that can take effect together. What consensus accepts."""

_encoder = msgspec.msgpack.Encoder()


class EntryTooLarge(InvalidArgument):
    """A list of changes does not fit one entry; nothing was written."""

    def __init__(self, *, changes: int, size: int) -> None:
        super().__init__(
            f"{changes} changes of {size} bytes together exceed the {ENTRY_BYTES_MAX} bytes that one write may have",
            remedy="Make it smaller: fewer objects at once, or less in each (labels, environment, configs, secrets).",
        )


class Overtaken(Struct, frozen=True):
    """A part of which nothing was written, because an object in it had moved."""

    changes: tuple[Change, ...]
    conflict: Conflict


class BatchOutcome(Struct, frozen=True):
    """What became of a list written in parts: the highest version made (0: none), and the parts to decide again."""

    version: int
    overtaken: tuple[Overtaken, ...] = ()


def parts(
    changes: Sequence[Change], *, changes_max: int = CHANGES_PER_PART, bytes_max: int = PART_BYTES
) -> Iterator[tuple[Change, ...]]:
    """Yield `changes` in their order, in parts of at most `changes_max` and, if each fits, `bytes_max` encoded."""
    for start in range(0, len(changes), changes_max):
        some = tuple(changes[start : start + changes_max])
        # One look at all of them, and at each one only when they do not fit.
        if len(_encoder.encode(some)) <= bytes_max:
            yield some
        else:
            yield from _by_bytes(some, bytes_max)


def _by_bytes(changes: Sequence[Change], bytes_max: int) -> Iterator[tuple[Change, ...]]:
    part: list[Change] = []
    size = 0
    for change in changes:
        added = len(_encoder.encode(change))
        if part and size + added > bytes_max:
            yield tuple(part)
            part, size = [], 0
        part.append(change)
        size += added
    yield tuple(part)
