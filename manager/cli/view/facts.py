"""`--pretty`: one object as names and values, sections indented; what is empty is left out."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

Fact = tuple[str, str | Sequence[str] | Mapping[str, str]]
_WIDTH = 19


def render_facts(facts: Sequence[Fact]) -> str:
    """Return `Name: value` lines, with values one below the other."""
    lines = []
    for name, value in facts:
        if isinstance(value, str):
            lines += [_line(name, value)] if value else []
        elif isinstance(value, Mapping):
            given = {key: text for key, text in value.items() if text}
            lines += [f"{name}:", *(_line(f" {key}", text) for key, text in given.items())] if given else []
        elif value:
            lines += [f"{name}:", *(f" {text}" for text in value)]
    return "\n".join(lines)


def rfc3339(moment: float) -> str:
    """Return a moment (seconds since the epoch) as Docker writes it in JSON, in UTC."""
    if not moment:
        return "0001-01-01T00:00:00Z"
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _line(name: str, value: str) -> str:
    return f"{name + ':':<{_WIDTH}} {value}"
