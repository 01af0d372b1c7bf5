"""`{{.Service.Name}}` and the like in a container's environment, hostname and mounts (pure).

Swarm's placeholders (SwarmKit template/context.go), filled in on the node that runs the task. Go's template language is
not interpreted: a placeholder is one name between double braces, and any other is refused when the service is written.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from pyswarm.proto.codec.problems import Problem

PLACEHOLDERS: Final = (
    ".Service.ID",
    ".Service.Name",
    ".Node.ID",
    ".Node.Hostname",
    ".Node.Platform.OS",
    ".Node.Platform.Architecture",
    ".Task.ID",
    ".Task.Name",
    ".Task.Slot",
)

_BRACES = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)


def placeholder_problems(what: str, text: str) -> Iterator[Problem]:
    """Yield what is wrong with the placeholders in `text`."""
    for found in _BRACES.findall(text):
        if found.strip() not in PLACEHOLDERS:
            yield Problem(
                f"{what}: the placeholder {{{{{found}}}}} is unknown", f"Known are {', '.join(PLACEHOLDERS)}."
            )


def names_in(text: str) -> list[str]:
    """Return the names between double braces."""
    return [found.strip() for found in _BRACES.findall(text)]


def has_placeholder(text: str) -> bool:
    return _BRACES.search(text) is not None


def filled_in(text: str, values: Mapping[str, str]) -> str:
    """Return `text` with each placeholder replaced by its value; `values` has one for all of `PLACEHOLDERS`.

    One that is unknown stays as it is: it was refused when the service was written.
    """
    return _BRACES.sub(lambda match: values.get(match[1].strip(), match[0]), text)
