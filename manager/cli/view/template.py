"""The part of Go's templates that people use with `--format`.

    {{.Name}}  {{.Spec.Name}}  {{json .}}  {{json .Spec}}  {{index .Spec.Labels "zone"}}
    {{upper .Name}}  {{lower .Name}}  {{title .Name}}  {{- .Name -}}

Loops, conditions and pipes are refused by name: `--format json` and a real language do that better.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from pyswarm.proto.errors import InvalidArgument

_ACTION = re.compile(r"(\s*)\{\{(-\s)?\s*(.*?)\s*(\s-)?\}\}(\s*)", re.DOTALL)
_WORD = re.compile(r'"(?:[^"\\]|\\.)*"|\S+')
_FUNCTIONS: Mapping[str, Callable[[str], str]] = {"upper": str.upper, "lower": str.lower, "title": str.title}
_REMEDY = 'Use {{.Field}}, {{json .}}, {{index .Field "key"}}, or --format json.'


def render(template: str, value: Any) -> str:
    """Return `template` with its actions replaced by fields of `value`. Raises InvalidArgument."""

    def replaced(match: re.Match[str]) -> str:
        before = "" if match[2] else match[1]
        after = "" if match[4] else match[5]
        return before + _evaluate(match[3], value) + after

    text = _ACTION.sub(replaced, template)
    if "{{" in _ACTION.sub("", template):
        raise InvalidArgument(f"template {template!r} has an action that is not closed", remedy=_REMEDY)
    return text


def unescape(template: str) -> str:
    """Return the template with `\\t` and `\\n`, as typed in a shell, made real."""
    return template.replace("\\t", "\t").replace("\\n", "\n")


def fields(template: str) -> list[str]:
    """Return the last name of each action's path, for a table's head."""
    paths = [_WORD.findall(match[3]) for match in _ACTION.finditer(template)]
    return [words[-1].rpartition(".")[2] if words else "" for words in paths]


def _evaluate(action: str, value: Any) -> str:
    words = _WORD.findall(action)
    if len(words) == 1 and words[0].startswith("."):
        return _text(_field(words[0], value))
    if len(words) == 2 and words[0] == "json" and words[1].startswith("."):
        return json.dumps(_field(words[1], value), ensure_ascii=False)
    if len(words) == 2 and words[0] in _FUNCTIONS and words[1].startswith("."):
        return _FUNCTIONS[words[0]](_text(_field(words[1], value)))
    if len(words) == 3 and words[0] == "index" and words[2].startswith('"'):
        found = _field(words[1], value)
        return _text(found.get(json.loads(words[2]), "")) if isinstance(found, Mapping) else ""
    raise InvalidArgument(f"template action {{{{{action}}}}} is not supported", remedy=_REMEDY)


def _field(path: str, value: Any) -> Any:
    for name in path.split(".")[1:]:
        if not name:
            continue
        if not isinstance(value, Mapping) or name not in value:
            known = f"There are: {', '.join(value)}." if isinstance(value, Mapping) else _REMEDY
            raise InvalidArgument(f"template: there is no field {path}", remedy=known)
        value = value[name]
    return value


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value, ensure_ascii=False)
    return "" if value is None else str(value)
