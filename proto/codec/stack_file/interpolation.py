"""$VARIABLES in values, with the forms that Compose files know.

    $NAME ${NAME}      the value, or nothing with a warning
    ${NAME:-text}      text when unset or empty        ${NAME-text}   text when unset
    ${NAME:?why}       refused when unset or empty     ${NAME?why}    refused when unset
    $$                 a dollar sign

Defaults may hold variables themselves. Keys are left alone, as Docker leaves them.
"""

import re
from collections.abc import Mapping

from pyswarm.proto.codec.stack_file.document import Node, Place, Scalar, Sequence, Table, failure

_NAME = re.compile(r"[_a-zA-Z][_a-zA-Z0-9]*")
_REMEDY = "Write ${NAME}, ${NAME:-default} or ${NAME:?why}; a dollar sign itself is $$."
_NESTING_MAX = 16


class Interpolation:
    """Replaces variables from `environment`; collects a warning for each that is not set."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.warnings: list[str] = []

    def tree(self, node: Node) -> Node:
        """Return the node with every value below it interpolated. Raises InvalidStackFile."""
        if isinstance(node, Scalar):
            if "$" not in node.text:
                return node
            # What came out of a variable is text: whoever wants a number reads it from there.
            return Scalar(self.text(node.text, node.place), node.place, is_plain=False)
        if isinstance(node, Sequence):
            return Sequence(tuple(self.tree(item) for item in node.items), node.place, node.extent)
        return Table({key: self.tree(value) for key, value in node.entries.items()}, node.keys, node.place, node.extent)

    def text(self, text: str, place: Place, depth: int = 0) -> str:
        """Return `text` with its variables replaced."""
        if depth > _NESTING_MAX:
            raise failure(place, "variables nested too deeply", _REMEDY)
        result = []
        position = 0
        while (dollar := text.find("$", position)) >= 0:
            result.append(text[position:dollar])
            value, position = self._variable(text, dollar + 1, place, depth)
            result.append(value)
        return "".join([*result, text[position:]])

    def _variable(self, text: str, start: int, place: Place, depth: int) -> tuple[str, int]:
        """Return the value of what follows the dollar sign, and where it ends."""
        if text.startswith("$", start):
            return "$", start + 1
        if text.startswith("{", start):
            end = _closing_brace(text, start + 1)
            if end < 0:
                raise failure(place, f"invalid interpolation: ${text[start:]} has no closing brace", _REMEDY)
            return self._braced(text[start + 1 : end], place, depth), end + 1
        match = _NAME.match(text, start)
        if match is None:
            raise failure(place, f"invalid interpolation: ${text[start : start + 10]}", _REMEDY)
        return self._value_or_warning(match[0], place), match.end()

    def _braced(self, expression: str, place: Place, depth: int) -> str:
        match = _NAME.match(expression)
        if match is None:
            raise failure(place, f"invalid interpolation: ${{{expression}}}", _REMEDY)
        name, rest = match[0], expression[match.end() :]
        if not rest:
            return self._value_or_warning(name, place)
        value = self._environment.get(name)
        empty_counts = not rest.startswith(":")
        operator, argument = rest[: 1 if empty_counts else 2], rest[1 if empty_counts else 2 :]
        is_given = value is not None and (empty_counts or value != "")
        if operator in ("-", ":-"):
            return value if is_given and value is not None else self.text(argument, place, depth + 1)
        if operator in ("?", ":?"):
            if is_given and value is not None:
                return value
            why = self.text(argument, place, depth + 1)
            raise failure(
                place,
                f"required variable {name} is {'not set' if value is None else 'empty'}{f': {why}' if why else ''}",
                f"Set it in the environment: {name}=… pyswarm stack deploy …",
            )
        raise failure(place, f"invalid interpolation: ${{{expression}}}", _REMEDY)

    def _value_or_warning(self, name: str, place: Place) -> str:
        value = self._environment.get(name)
        if value is None:
            self.warnings.append(f"{place}: variable {name} is not set: using an empty text")
            return ""
        return value


def _closing_brace(text: str, start: int) -> int:
    depth = 1
    for position in range(start, len(text)):
        if text.startswith("${", position):
            depth += 1
        elif text[position] == "}":
            depth -= 1
            if depth == 0:
                return position
    return -1
