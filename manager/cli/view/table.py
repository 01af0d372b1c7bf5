"""Rows → the text of a list: a table, JSON lines, a template, or ids alone."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from pyswarm.manager.cli.view.template import fields, render, unescape

Row = Mapping[str, Any]
"""One object by Docker's field names."""

_GAP = 3
_WIDTH_MIN = 10
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")


class Column(NamedTuple):
    header: str
    cell: Callable[[Row], str]


def column(header: str, key: str) -> Column:
    return Column(header, lambda row: str(row[key]))


def render_list(
    rows: Sequence[Row], columns: Sequence[Column], *, format_: str = "", quiet: bool = False, id_key: str = "ID"
) -> str:
    """Return the list as text without a final newline; "" when there is nothing to print.

    `format_` is "" or `table` for a table, `json`, a template, or `table` followed by a template.
    """
    if quiet and not format_:
        return "\n".join(str(row[id_key]) for row in rows)
    if format_ in ("", "table"):
        return render_table([c.header for c in columns], [[c.cell(row) for c in columns] for row in rows])
    if format_ == "json":
        return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    if format_.startswith("table "):
        template = unescape(format_.removeprefix("table "))
        headers = [_header(name, columns) for name in fields(template)]
        return render_table(headers, [render(template, row).split("\t") for row in rows])
    template = unescape(format_)
    return "\n".join(render(template, row) for row in rows)


def render_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return columns as wide as their widest cell, three blanks apart, at least ten wide, as Docker's."""
    lines = [list(headers), *(list(row) for row in rows)]
    count = max(len(line) for line in lines)
    widths = [
        max(_WIDTH_MIN, _GAP + max((len(line[i]) for line in lines if i < len(line)), default=0)) for i in range(count)
    ]
    return "\n".join(
        "".join(cell.ljust(width) for cell, width in zip(line, widths, strict=False)).rstrip() for line in lines
    )


def _header(name: str, columns: Sequence[Column]) -> str:
    spaced = _CAMEL.sub(" ", name).upper()
    return next((c.header for c in columns if c.header == spaced), spaced)
