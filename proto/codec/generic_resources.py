"""Read and write generic resources: `gpu=2`, `gpu=GPU-7a1c`, as Docker's command line spells them (pure).

A number after the equals sign counts pieces; a word names one. A node says which pieces it has; a service reserves a
number of a kind and is told which ones it got. Nothing is enforced: the pieces are counted, not fenced off.
"""

import re
from collections.abc import Iterable
from typing import Final

from pyswarm.proto.errors import InvalidArgument
from pyswarm.proto.model.resources import GenericResource

_KIND: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9_.-]*")
_NAME: Final = re.compile(r"[a-zA-Z0-9_.:/-]+")
_COUNT_MAX: Final = 1_000_000


def parse_reservation(text: str) -> GenericResource:
    """Return how many of a kind are reserved: `gpu=2`. Raises InvalidArgument."""
    kind, count = _parts(text)
    if not count.isdigit():
        raise InvalidArgument(
            f"generic resource {text!r}: {count!r} is not a number of pieces",
            remedy="A service reserves a number: gpu=2. Which pieces it gets is chosen where it runs.",
        )
    return _counted(text, kind, count)


def parse_inventory(texts: Iterable[str]) -> tuple[GenericResource, ...]:
    """Return what a node has, from texts as `gpu=GPU-7a1c` and `licence=3`. Raises InvalidArgument.

    A kind is either named or counted: with both, nobody could tell what a task has got.
    """
    found: dict[tuple[str, str], GenericResource] = {}
    for text in texts:
        kind, value = _parts(text)
        resource = _counted(text, kind, value) if value.isdigit() else GenericResource(kind, name=value)
        if (kind, resource.name) in found:
            raise InvalidArgument(f"generic resource {text!r} is listed twice", remedy="List every piece once.")
        found[kind, resource.name] = resource
    for kind in {kind for kind, _ in found}:
        if len({bool(name) for other, name in found if other == kind}) > 1:
            raise InvalidArgument(
                f"generic resource {kind} is both named and counted",
                remedy="Name every piece of a kind, or count them.",
            )
    return tuple(found[key] for key in sorted(found))


def as_text(resource: GenericResource) -> str:
    return f"{resource.kind}={resource.name or resource.count}"


def _parts(text: str) -> tuple[str, str]:
    kind, equals, value = text.partition("=")
    kind, value = kind.strip(), value.strip()
    if not equals or not _KIND.fullmatch(kind) or not _NAME.fullmatch(value):
        raise InvalidArgument(f"{text!r} is no generic resource", remedy="Write KIND=NUMBER, for example gpu=2.")
    return kind, value


def _counted(text: str, kind: str, count: str) -> GenericResource:
    if not 1 <= int(count) <= _COUNT_MAX:
        raise InvalidArgument(f"generic resource {text!r}: no such number", remedy=f"Give 1 to {_COUNT_MAX} pieces.")
    return GenericResource(kind, int(count))
