"""Typed access to the tree: each getter says what it wanted, and where it found something else.

A `Section` is a mapping with the path that led to it, so that complaints read
`web.yaml:7:15: services.web.deploy.replicas must be a whole number, not "many"`.
"""

import shlex
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import TypeVar

from pyswarm.proto.codec.stack_file.document import Node, Place, Scalar, Sequence, Table, failure
from pyswarm.proto.codec.stack_file.vocabulary import Vocabulary
from pyswarm.proto.codec.units import parse_bytes, parse_duration, parse_nano_cpus
from pyswarm.proto.errors import InvalidArgument, InvalidStackFile

T = TypeVar("T")

_TRUE = frozenset({"true", "yes", "on", "y"})
_FALSE = frozenset({"false", "no", "off", "n"})
_BOOLEANS = frozenset({"true", "false"})
_DIGITS_MAX = 18


class Section:
    """One mapping of the file. A key that is absent or null gives the getter's default."""

    def __init__(self, table: Table, path: str) -> None:
        self.table = table
        self.path = path
        self.place = table.place

    def check_keys(self, vocabulary: Vocabulary, warnings: list[str]) -> None:
        """Refuse what is unknown or not carried out; warn of what is known to be without effect."""
        for key, value in self.table.entries.items():
            place, name = self.table.keys[key], self.name(key)
            if key in vocabulary.supported or key.startswith("x-"):
                continue
            if key in vocabulary.ignored:
                warnings.append(f"{place}: {name} is ignored: {vocabulary.ignored[key]}")
            elif key not in vocabulary.refused:
                raise failure(place, f"unknown key {name}", did_you_mean(key, vocabulary.all_keys))
            elif not _is_empty(value):
                raise failure(place, f"{name} is not supported", vocabulary.refused[key])

    def name(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def get(self, key: str) -> Node | None:
        node = self.table.entries.get(key)
        return None if node is None or (isinstance(node, Scalar) and node.is_null) else node

    def wrong(self, key: str, node: Node, wanted: str, remedy: str = "") -> InvalidStackFile:
        message = f"{self.name(key)} must be {wanted}, not {describe(node)}"
        return failure(node.place, message, remedy or f"Give {key.rpartition('.')[2]} {wanted}.")

    def section(self, key: str) -> "Section":
        """Return the mapping under `key`, an empty one when there is none."""
        node = self.get(key)
        if node is None:
            return Section(Table({}, {}, self.table.keys.get(key, self.place)), self.name(key))
        if not isinstance(node, Table):
            raise self.wrong(key, node, "a mapping")
        return Section(node, self.name(key))

    def items(self, key: str) -> tuple[Node, ...]:
        node = self.get(key)
        if node is None:
            return ()
        if not isinstance(node, Sequence):
            raise self.wrong(key, node, "a list")
        return node.items

    def text(self, key: str, default: str = "") -> str:
        node = self.get(key)
        return default if node is None else self.text_of(key, node)

    def texts(self, key: str) -> tuple[str, ...]:
        return tuple(self.text_of(key, item) for item in self.items(key))

    def text_of(self, key: str, node: Node) -> str:
        """Return a scalar's text. Booleans are refused, since `yes` and `true` are not the same text."""
        if not isinstance(node, Scalar) or node.is_null:
            raise self.wrong(key, node, "text")
        if node.is_plain and node.text.lower() in _BOOLEANS:
            raise self.wrong(key, node, "text", f'Quote it if it is meant as text: "{node.text}".')
        return node.text

    def choice(self, key: str, choices: Mapping[str, T], default: T) -> T:
        """Return what `choices` has for the text under `key`."""
        node = self.get(key)
        if node is None:
            return default
        if not isinstance(node, Scalar) or node.text not in choices:
            known = ", ".join(choices)
            guess = did_you_mean(node.text, choices) if isinstance(node, Scalar) else ""
            raise self.wrong(key, node, f"one of {known}", guess)
        return choices[node.text]

    def whole(self, key: str, default: int = 0, *, least: int = 0) -> int:
        node = self.get(key)
        if node is None:
            return default
        text = node.text.strip() if isinstance(node, Scalar) else ""
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdigit() and len(digits) <= _DIGITS_MAX):
            raise self.wrong(key, node, "a whole number")
        if int(text) < least:
            raise self.wrong(key, node, f"at least {least}")
        return int(text)

    def flag(self, key: str) -> bool:
        node = self.get(key)
        if node is None:
            return False
        text = node.text.strip().lower() if isinstance(node, Scalar) else ""
        if text not in _TRUE | _FALSE:
            raise self.wrong(key, node, "true or false")
        return text in _TRUE

    def ratio(self, key: str) -> float:
        node = self.get(key)
        if node is None:
            return 0.0
        try:
            value = float(node.text) if isinstance(node, Scalar) else -1.0
        except ValueError:
            value = -1.0
        if not 0.0 <= value <= 1.0:
            raise self.wrong(key, node, "a number from 0 to 1")
        return value

    def duration(self, key: str, default: float = 0.0) -> float:
        return self._measured(key, parse_duration, default)

    def size(self, key: str) -> int:
        return self._measured(key, parse_bytes, 0)

    def cpus(self, key: str) -> int:
        return self._measured(key, parse_nano_cpus, 0)

    def _measured(self, key: str, parse: Callable[[str], T], default: T) -> T:
        node = self.get(key)
        if node is None:
            return default
        if not isinstance(node, Scalar):
            raise self.wrong(key, node, "a single value")
        try:
            return parse(node.text)
        except InvalidArgument as error:
            raise failure(node.place, f"{self.name(key)}: {error.message}", error.remedy) from error

    def words(self, key: str) -> tuple[str, ...]:
        """Return a command: a list as it is, a line split as a shell would."""
        node = self.get(key)
        if node is None:
            return ()
        if isinstance(node, Sequence):
            return self.texts(key)
        if not isinstance(node, Scalar):
            raise self.wrong(key, node, "a list or a line of text")
        try:
            return tuple(shlex.split(node.text))
        except ValueError as error:
            raise failure(
                node.place, f"{self.name(key)}: {str(error).lower()}", "Close the quotation, or write a list."
            ) from error

    def pairs(self, key: str) -> tuple[tuple[str, str | None, Place], ...]:
        """Return `NAME: value` or `- NAME=value` as (name, value, place); None where no value is given."""
        node = self.get(key)
        if node is None:
            return ()
        if isinstance(node, Table):
            return tuple(
                (name, self._pair_value(key, name, value), value.place) for name, value in node.entries.items()
            )
        if not isinstance(node, Sequence):
            raise self.wrong(key, node, "a mapping or a list")
        pairs = []
        for item in node.items:
            name, equals, value = self.text_of(key, item).partition("=")
            if not name:
                raise self.wrong(key, item, "NAME=value")
            pairs.append((name, value if equals else None, item.place))
        return tuple(pairs)

    def _pair_value(self, key: str, name: str, value: Node) -> str | None:
        if isinstance(value, Scalar) and value.is_null:
            return None
        return self.text_of(f"{key}.{name}", value)


def describe(node: Node) -> str:
    """Return what a value is, for the end of a complaint."""
    if isinstance(node, Table):
        return "a mapping"
    if isinstance(node, Sequence):
        return "a list"
    if node.is_null:
        return "empty"
    return f'"{node.text if len(node.text) <= 60 else node.text[:57] + "..."}"'


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a remedy naming the nearest known word, or all of them when none is near and they are few."""
    candidates = sorted(known)
    near = get_close_matches(word.lower(), candidates, n=1, cutoff=0.6)
    if near:
        return f"Did you mean {near[0]}?"
    return f"Known here: {', '.join(candidates)}." if len(candidates) <= 30 else "Remove it, or check its spelling."


def _is_empty(node: Node) -> bool:
    if isinstance(node, Table):
        return not node.entries
    return not node.items if isinstance(node, Sequence) else node.is_null
