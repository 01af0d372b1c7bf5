"""The contents of /etc/hosts, /etc/hostname and /etc/resolv.conf inside a container. Pure."""

from collections.abc import Sequence

from pyswarm.proto.errors import InvalidArgument
from pyswarm.proto.v1 import runtime_pb2 as pb

_LOOPBACK = """127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


def hosts(hostname: str, extra: Sequence[str]) -> str:
    """Return /etc/hosts; `extra` holds `name:address` (an IPv6 address may contain colons)."""
    lines = []
    for line in extra:
        name, _, address = line.partition(":")
        if not name or not address or any(c.isspace() for c in line):
            raise InvalidArgument(f"the extra host {line!r} is not `name:address`", remedy="Write web:10.0.0.5.")
        lines.append(f"{address.strip('[]')}\t{name}\n")
    own = f"127.0.1.1\t{hostname}\n" if not any(line.split("\t")[1] == f"{hostname}\n" for line in lines) else ""
    return _LOOPBACK + own + "".join(lines)


def resolv_conf(config: pb.ContainerConfig, machine: str) -> str:
    """Return /etc/resolv.conf: the servers asked for, or else those of the machine that a container can reach.

    `machine` is the machine's own file. A resolver on its loopback (systemd-resolved) does not exist inside.
    """
    servers, search, options = list(config.dns_servers), list(config.dns_search), list(config.dns_options)
    for line in machine.splitlines():
        words = line.split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver" and not config.dns_servers and not words[1].startswith(("127.", "::1")):
            servers.append(words[1])
        elif words[0] in ("search", "domain") and not config.dns_search:
            search = words[1:]
        elif words[0] == "options" and not config.dns_options:
            options = words[1:]
    lines = [f"nameserver {server}" for server in servers]
    lines += [f"search {' '.join(search)}"] * bool(search) + [f"options {' '.join(options)}"] * bool(options)
    return "".join(f"{line}\n" for line in lines)
