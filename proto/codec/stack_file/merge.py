"""Several files → one tree, key by key; the later file wins.

Mappings merge, lists are joined without repeating a value, a command is replaced as a whole. Ports and
volumes are joined here and settled in `endpoints.py`, which knows when two of them are the same.
"""

from pyswarm.proto.codec.stack_file.document import Node, Scalar, Sequence, Table

_REPLACED = frozenset({"command", "entrypoint", "test", "pre_stop", "canary"})
_PAIRS = frozenset({"environment", "labels"})


def merge_tables(base: Table, later: Table) -> Table:
    """Return both; nothing is checked here, since each value keeps its place for a later complaint."""
    entries = dict(base.entries)
    keys = dict(base.keys)
    for key, value in later.entries.items():
        entries[key] = _merged(key, entries[key], value) if key in entries else value
        keys[key] = later.keys[key]
    return Table(entries, keys, later.place)


def _merged(key: str, base: Node, later: Node) -> Node:
    if isinstance(later, Scalar) and later.is_null and not isinstance(base, Scalar):
        return base
    if key in _REPLACED:
        return later
    if key in _PAIRS:
        base, later = _as_table(base), _as_table(later)
    if isinstance(base, Table) and isinstance(later, Table):
        return merge_tables(base, later)
    if isinstance(base, Sequence) and isinstance(later, Sequence):
        seen = {item.text for item in later.items if isinstance(item, Scalar)}
        kept = tuple(item for item in base.items if not (isinstance(item, Scalar) and item.text in seen))
        return Sequence(kept + later.items, later.place)
    return later


def _as_table(node: Node) -> Node:
    """Return `- NAME=value` lists as mappings, so that both spellings merge; anything else as it is."""
    if not isinstance(node, Sequence) or not all(isinstance(item, Scalar) for item in node.items):
        return node
    entries: dict[str, Node] = {}
    keys = {}
    for item in node.items:
        assert isinstance(item, Scalar)
        name, equals, value = item.text.partition("=")
        entries[name] = Scalar(value, item.place, is_plain=not equals)
        keys[name] = item.place
    return Table(entries, keys, node.place)
