"""Collect everything that is wrong with a spec and tell it at once (pure)."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from pyswarm.proto.errors import InvalidArgument


class Problem(NamedTuple):
    """What is wrong, what to do, and the error class to raise when it is the only problem."""

    message: str
    remedy: str
    error: type[InvalidArgument] = InvalidArgument


def raise_if_any(subject: str, problems: Iterable[Problem]) -> None:
    """Raise one `InvalidArgument` that tells all `problems` of `subject`, if there are any."""
    found = list(dict.fromkeys(problems))
    if not found:
        return
    remedy = " ".join(dict.fromkeys(p.remedy for p in found))
    if len(found) == 1:
        raise found[0].error(f"{subject}: {found[0].message}", remedy=remedy)
    lines = "".join(f"\n  - {p.message}" for p in found)
    raise InvalidArgument(f"{subject} has {len(found)} problems:{lines}", remedy=remedy)


def caught(parse: Callable[[str], object], text: str) -> Iterator[Problem]:
    """Yield what `parse` raises for `text`, as a problem."""
    try:
        parse(text)
    except InvalidArgument as error:
        yield Problem(error.message, error.remedy, type(error))


def negative(name: str, value: float) -> Iterator[Problem]:
    """Yield a problem when `value` is negative, infinite or not a number."""
    if not math.isfinite(value) or value < 0:
        yield Problem(f"{name} is {value:g}", f"{name[0].upper()}{name[1:]} must be a number of at least 0.")
