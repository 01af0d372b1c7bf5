"""Read placement constraints and preferences: `node.labels.zone==a`, `spread=node.labels.zone` (pure).

Only the syntax and the names are judged here; matching a node is the scheduler's filter. The syntax is
SwarmKit's (manager/constraint/constraint.go).
"""

import re
from functools import lru_cache
from typing import Final

from msgspec import Struct

from pyswarm.proto.errors import InvalidArgument

PLAIN_KEYS: Final = (
    "node.id",
    "node.hostname",
    "node.ip",
    "node.role",
    "node.platform.os",
    "node.platform.arch",
)
LABEL_PREFIXES: Final = ("node.labels.", "engine.labels.")

_KEY = re.compile(r"[a-z_][a-z0-9\-_./]*", re.IGNORECASE)
_VALUE = re.compile(r"[a-z0-9:\-_\s.*()?+\[\]\\^$|/]+", re.IGNORECASE)

_REMEDY = "A constraint reads KEY==VALUE or KEY!=VALUE; keys are {}, node.labels.NAME and engine.labels.NAME.".format(
    ", ".join(PLAIN_KEYS)
)


class Constraint(Struct, frozen=True):
    """`key` compares with `value`, equal or not. Plain keys are in lower case, label names as written."""

    key: str
    is_equal: bool
    value: str

    @property
    def label(self) -> str | None:
        """The label's name for `node.labels.` and `engine.labels.` keys, else None."""
        for prefix in LABEL_PREFIXES:
            if self.key.startswith(prefix):
                return self.key[len(prefix) :]
        return None

    def __str__(self) -> str:
        return f"{self.key}{'==' if self.is_equal else '!='}{self.value}"


@lru_cache(maxsize=4096)
def parse_constraint(text: str) -> Constraint:
    """Return the constraint; raise `InvalidArgument` saying what is wrong with it.

    Cached: the scheduler reads the same few constraints for every node and task.
    """
    # The operator that comes first counts: a value may contain the other one only behind it.
    positions = [(at, op) for op in ("==", "!=") if (at := text.find(op)) >= 0]
    if not positions:
        raise InvalidArgument(f"constraint {text!r} has neither == nor !=", remedy=_REMEDY)
    at, operator = min(positions)
    key, value = text[:at].strip(), text[at + 2 :].strip()
    if not _VALUE.fullmatch(value):
        raise InvalidArgument(f"constraint {text!r}: {value!r} is no value to compare with", remedy=_REMEDY)
    constraint = Constraint(_normal_key(text, key), operator == "==", value)
    if constraint.key == "node.role" and value.lower() not in ("manager", "worker"):
        raise InvalidArgument(f"constraint {text!r}: a node's role is manager or worker", remedy=_REMEDY)
    return constraint


def parse_preference(text: str) -> str:
    """Return the label key to spread over (`node.labels.NAME`); raise `InvalidArgument` when it is none."""
    key = text.removeprefix("spread=").strip()
    for prefix in LABEL_PREFIXES:
        if key.lower().startswith(prefix) and len(key) > len(prefix) and _KEY.fullmatch(key):
            return prefix + key[len(prefix) :]
    raise InvalidArgument(
        f"placement preference {text!r} names no label",
        remedy="Replicas can be spread over node.labels.NAME or engine.labels.NAME.",
    )


def _normal_key(text: str, key: str) -> str:
    if _KEY.fullmatch(key):
        lowered = key.lower()
        if lowered in PLAIN_KEYS:
            return lowered
        for prefix in LABEL_PREFIXES:
            if lowered.startswith(prefix) and len(key) > len(prefix):
                return prefix + key[len(prefix) :]
    raise InvalidArgument(f"constraint {text!r}: a node has no {key!r}", remedy=_REMEDY)
