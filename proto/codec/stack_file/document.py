"""YAML text → a tree whose every node knows its file, line and column.

Stricter than YAML where YAML surprises: duplicate keys are refused, and nothing is turned into a number,
date or boolean here, since only the reader of a key knows what it should be (`22:22` is a port, not 1342).
Bounded: depth, and size after aliases are expanded, so that no file can exhaust memory.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from pyswarm.proto.errors import InvalidStackFile

DEPTH_MAX = 64
NODES_MAX = 100_000
"""Nodes of one document once every alias is expanded."""

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "seq", "map"))


@dataclass(frozen=True)
class Place:
    """Where something stands; lines and columns count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Extent:
    """How many nodes there are below and including one, aliases expanded, and how deep they nest."""

    size: int = 1
    height: int = 1


@dataclass(frozen=True)
class Scalar:
    """`is_plain` is False for what was quoted, and so is surely text."""

    text: str
    place: Place
    is_plain: bool = True

    @property
    def is_null(self) -> bool:
        return self.is_plain and self.text in _NULLS


@dataclass(frozen=True)
class Sequence:
    items: tuple["Node", ...]
    place: Place
    extent: Extent = Extent()


@dataclass(frozen=True)
class Table:
    """A YAML mapping; `keys` says where each key stands."""

    entries: Mapping[str, "Node"]
    keys: Mapping[str, Place]
    place: Place
    extent: Extent = Extent()


Node = Scalar | Sequence | Table


def failure(place: Place, message: str, remedy: str = "") -> InvalidStackFile:
    return InvalidStackFile(f"{place}: {message}", remedy=remedy)


def parse_document(text: str, file: str) -> Table:
    """Return the one mapping in `text`. Raises InvalidStackFile naming the place."""
    try:
        loader = yaml.SafeLoader(text)
    except yaml.reader.ReaderError as error:
        raise _unreadable(error, text, file) from error
    try:
        root = _Composer(loader, file).document()
    except yaml.reader.ReaderError as error:
        raise _unreadable(error, text, file) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(file, mark.line + 1, mark.column + 1) if mark else Place(file, 1, 1)
        problem = " ".join(part for part in (error.context, error.problem) if part)
        raise failure(place, f"malformed YAML on line {place.line}: {problem}", _yaml_remedy(problem)) from error
    except (ValueError, OverflowError) as error:
        # The scanner turns "\\UFFFFFFFF" into a character without checking that there is one.
        place = Place(file, loader.line + 1, loader.column + 1)
        message = f"malformed YAML on line {place.line}: an escape that names no character"
        raise failure(place, message, "Check the escapes after this place.") from error
    finally:
        loader.dispose()
    if not isinstance(root, Table):
        raise failure(
            root.place, "a stack file is a mapping with `services:`", "Start with `services:` at the left margin."
        )
    return root


def _unreadable(error: yaml.reader.ReaderError, text: str, file: str) -> InvalidStackFile:
    before = text[: error.position]
    place = Place(file, before.count("\n") + 1, error.position - before.rfind("\n"))
    return failure(
        place,
        f"malformed YAML on line {place.line}: character U+{error.character:04X} is not allowed",
        "Remove or escape it.",
    )


def _yaml_remedy(problem: str) -> str:
    if "\\t" in problem:
        return "YAML is indented with spaces: replace the tab."
    return "Check the indentation, the colons and the quotes around this place."


class _Composer:
    """Builds the tree from the parser's events: the parser itself does not recurse, so depth is ours to bound."""

    def __init__(self, loader: yaml.SafeLoader, file: str) -> None:
        self._loader = loader
        self._file = file
        self._anchors: dict[str, Node] = {}

    def document(self) -> Node:
        self._next()  # the stream starts
        event = self._next()
        if isinstance(event, yaml.StreamEndEvent):
            raise failure(Place(self._file, 1, 1), "the file is empty", "Write `services:` with at least one service.")
        root = self._node(self._next(), 0)
        self._next()  # the document ends
        after = self._next()
        if not isinstance(after, yaml.StreamEndEvent):
            raise failure(self._place(after), "a second YAML document", "Put it into a file of its own: -c A -c B.")
        return root

    def _next(self) -> Any:
        return self._loader.get_event()  # type: ignore[no-untyped-call]

    def _place(self, event: Any) -> Place:
        return Place(self._file, event.start_mark.line + 1, event.start_mark.column + 1)

    def _node(self, event: Any, depth: int) -> Node:
        place = self._place(event)
        if depth > DEPTH_MAX:
            raise _too_deep(place)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(str(event.anchor), place)
        if event.tag not in (None, "!") and event.tag not in _TAGS:
            raise failure(place, f"the YAML tag {event.tag} is not supported", "Remove the tag.")
        node: Node
        if isinstance(event, yaml.ScalarEvent):
            node = Scalar(event.value, place, is_plain=event.style is None and event.tag is None)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self._sequence(place, depth)
        else:
            node = self._table(place, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _alias(self, anchor: str, place: Place) -> Node:
        node = self._anchors.get(anchor)
        if node is None:
            raise failure(place, f"unknown alias *{anchor}", f"Define it before its use: &{anchor}.")
        return node

    def _sequence(self, place: Place, depth: int) -> Sequence:
        items: list[Node] = []
        extent = Extent()
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            item = self._node(event, depth + 1)
            extent = _grown(extent, item, place)
            items.append(item)
        return Sequence(tuple(items), place, extent)

    def _table(self, place: Place, depth: int) -> Table:
        entries: dict[str, Node] = {}
        keys: dict[str, Place] = {}
        merged: list[Table] = []
        extent = Extent()
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            value = self._node(self._next(), depth + 1)
            extent = _grown(extent, value, place)
            if not isinstance(key, Scalar) or key.is_null:
                raise failure(key.place, "a key must be text", "Quote it if it is meant as text.")
            if key.text == "<<" and key.is_plain:
                merged += _merge_sources(value, key.place)
                continue
            if key.text in entries:
                first = keys[key.text]
                raise failure(
                    key.place, f"duplicate key {key.text}", f"It is also on line {first.line}: remove one of them."
                )
            entries[key.text] = value
            keys[key.text] = key.place
        for source in merged:
            for name, value in source.entries.items():
                if name not in entries:
                    entries[name] = value
                    keys[name] = source.keys[name]
        return Table(entries, keys, place, extent)


def _too_deep(place: Place) -> InvalidStackFile:
    return failure(place, f"nested deeper than {DEPTH_MAX} levels", "Flatten the file.")


def _grown(extent: Extent, child: Node, place: Place) -> Extent:
    below = Extent() if isinstance(child, Scalar) else child.extent
    grown = Extent(extent.size + below.size, max(extent.height, below.height + 1))
    if grown.size > NODES_MAX:
        raise failure(place, f"more than {NODES_MAX} values once aliases are expanded", "Use fewer aliases.")
    if grown.height > DEPTH_MAX:
        raise _too_deep(place)
    return grown


def _merge_sources(value: Node, place: Place) -> list[Table]:
    sources = value.items if isinstance(value, Sequence) else (value,)
    tables = [source for source in sources if isinstance(source, Table)]
    if len(tables) != len(sources):
        raise failure(place, "`<<` merges mappings only", "Write `<<: *anchor` with the anchor on a mapping.")
    return tables
