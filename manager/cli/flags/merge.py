"""Change a list of a spec as `-add` and `-rm` flags say (pure)."""

from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

T = TypeVar("T")


def merged(
    values: Iterable[T], added: Iterable[T], removed: Iterable[Hashable], identity: Callable[[T], Hashable]
) -> tuple[T, ...]:
    """Return the values without the removed and the replaced ones, then the added ones."""
    new = list(added)
    gone = {*removed, *(identity(value) for value in new)}
    return (*(value for value in values if identity(value) not in gone), *new)
