"""Read affinities between services: `service==cache`, `service!=web@node.labels.zone` (pure).

Near to (`==`) or away from (`!=`) the tasks of the services that are called so, or that carry a label
(`service.labels.tier==db`). Near means on the same node, or behind `@` where a label of the node has the same value.
Only the syntax is judged here; matching nodes is the scheduler's filter.
"""

import re
from collections.abc import Collection
from functools import lru_cache
from typing import Final

from msgspec import Struct

from pyswarm.proto.codec.constraint import parse_preference
from pyswarm.proto.errors import InvalidArgument

_LABEL_PREFIX: Final = "service.labels."
_VALUE: Final = re.compile(r"[a-zA-Z0-9_.:/-]+")
_REMEDY: Final = (
    "An affinity reads service==NAME or service!=NAME; instead of a service's name a label of it (service.labels.tier"
    "==db), and behind it what it is to share instead of the node: @node.labels.zone."
)


class Affinity(Struct, frozen=True):
    """`label` is the service's label that has the value, "" for its name; `domain` the node's label, "" the node."""

    label: str
    is_near: bool
    value: str
    domain: str


@lru_cache(maxsize=4096)
def parse_affinity(text: str) -> Affinity:
    """Return the affinity; raise `InvalidArgument` saying what is wrong with it."""
    rule, at, domain = text.partition("@")
    operator = "==" if "==" in rule else "!="
    subject, found, value = (part.strip() for part in rule.partition(operator))
    if not found or not _VALUE.fullmatch(value):
        raise InvalidArgument(f"{text!r} is no affinity", remedy=_REMEDY)
    label = subject.removeprefix(_LABEL_PREFIX) if subject.startswith(_LABEL_PREFIX) else ""
    if not label and subject != "service":
        raise InvalidArgument(f"affinity {text!r}: a service has no {subject!r}", remedy=_REMEDY)
    if at:
        try:
            domain = parse_preference(domain.strip())
        except InvalidArgument as error:
            raise InvalidArgument(f"affinity {text!r}: {domain!r} names no label of a node", remedy=_REMEDY) from error
    return Affinity(label, operator == "==", value, domain)


def with_stack_name(text: str, *, stack: str, services: Collection[str]) -> str:
    """Return the affinity with a service of the same stack file called by its full name: `db` is `shop_db`."""
    affinity = parse_affinity(text)
    if affinity.label or affinity.value not in services:
        return text
    rule, at, domain = text.partition("@")
    operator = "==" if affinity.is_near else "!="
    return f"{rule.partition(operator)[0]}{operator}{stack}_{affinity.value}{at}{domain}"
