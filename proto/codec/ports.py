"""Published ports and mounts in their short spellings, shared by the stack file and the command line (pure)."""

import re

from pyswarm.proto.errors import InvalidArgument
from pyswarm.proto.model.spec import PortConfig

_SHORT = re.compile(
    r"(?:(?P<published>[0-9]{1,5}(?:-[0-9]{1,5})?)?:)?(?P<target>[0-9]{1,5}(?:-[0-9]{1,5})?)(?:/(?P<protocol>[a-z]+))?",
    re.IGNORECASE | re.ASCII,
)
PROTOCOLS = ("tcp", "udp")
PORT_MAX = 65535
_REMEDY = "Write [PUBLISHED:]TARGET[/tcp|udp], for example 8080:80 or 9000-9002:9000-9002/udp."


def parse_short_port(text: str) -> tuple[PortConfig, ...]:
    """Return the ports in `8080:80`, `80`, `53:53/udp` or `8080-8082:80-82`, in ingress mode.

    A range of published ports with one target publishes that target on each of them, as Docker does.
    """
    match = _SHORT.fullmatch(text.strip())
    if match is None:
        if text.count(":") >= 2:
            raise InvalidArgument(
                f'port "{text}" names an address', remedy="A published port answers on every address of the node."
            )
        raise InvalidArgument(f'"{text}" is not a port', remedy=_REMEDY)
    protocol = check_protocol(match["protocol"] or "tcp")
    targets = _range(match["target"], text)
    published = _range(match["published"], text) if match["published"] else range(1)
    if match["published"] is None:
        return tuple(PortConfig(protocol=protocol, target_port=target) for target in targets)
    if len(targets) == 1:
        targets = range(targets[0], targets[0] + 1)
        return tuple(PortConfig(protocol=protocol, target_port=targets[0], published_port=p) for p in published)
    if len(targets) != len(published):
        raise InvalidArgument(f'port "{text}" has ranges of different length', remedy=_REMEDY)
    return tuple(
        PortConfig(protocol=protocol, target_port=target, published_port=p)
        for target, p in zip(targets, published, strict=True)
    )


def check_protocol(text: str) -> str:
    protocol = text.lower()
    if protocol not in PROTOCOLS:
        raise InvalidArgument(f'protocol "{text}" is not supported', remedy="Use tcp or udp.")
    return protocol


def _range(text: str, whole: str) -> range:
    first, dash, last = text.partition("-")
    start, end = int(first), int(last) if dash else int(first)
    if not 1 <= start <= end <= PORT_MAX:
        raise InvalidArgument(
            f'port "{whole}" is not between 1 and {PORT_MAX}, or its range runs backwards', remedy=_REMEDY
        )
    return range(start, end + 1)
