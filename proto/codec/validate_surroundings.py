"""Judge what a container is to see around it: name servers, other hosts, kernel settings, limits (pure).

Part of validate.py, which is the way in. Parsing what people write for them is here as well, so that flags and stack
files take the same forms.
"""

import ipaddress
import re
from collections.abc import Iterable, Iterator
from typing import Final

from pyswarm.proto.codec.problems import Problem
from pyswarm.proto.errors import InvalidArgument
from pyswarm.proto.model.spec import ContainerSpec, Ulimit

ULIMITS: Final = frozenset(
    """core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack""".split()  # noqa: SIM905
)
_IPC_SYSCTLS: Final = frozenset(
    """kernel.msgmax kernel.msgmnb kernel.msgmni kernel.sem kernel.shmall kernel.shmmax kernel.shmmni
    kernel.shm_rmid_forced""".split()  # noqa: SIM905
)
_SYSCTL = re.compile(r"[a-z0-9_]+(?:[./][a-zA-Z0-9_-]+)+")
OOM_SCORE_MAX: Final = 1000
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?")


def surroundings_problems(spec: ContainerSpec) -> Iterator[Problem]:
    """Yield what is wrong with what a container is to see around it."""
    for server in spec.dns_servers:
        if not _is_address(server):
            yield Problem(f"name server {server!r} is no address", "Give the address of a name server.")
    for domain in spec.dns_search:
        if domain != "." and not _NAME.fullmatch(domain):
            yield Problem(f"search domain {domain!r} is no domain", "Use letters, digits, dashes and dots.")
    for option in spec.dns_options:
        if not option or any(c.isspace() or not c.isprintable() for c in option):
            yield Problem(f"{option!r} is no option of a resolver", "See resolv.conf(5): ndots:2.")
    for host in spec.extra_hosts:
        name, _, address = host.partition(":")
        if not _NAME.fullmatch(name) or not _is_address(address):
            yield Problem(f"extra host {host!r} is none", "Write NAME:ADDRESS.")
    for key, value in spec.sysctls.items():
        if not is_namespaced_sysctl(key):
            yield Problem(
                f"sysctl {key!r} is not the container's own",
                "Use net.*, fs.mqueue.* or those of shared memory and messages; set others on the machines.",
            )
        elif not value or not value.isprintable():
            yield Problem(f"sysctl {key} has no proper value", "Write NAME=VALUE.")
    yield from _ulimit_problems(spec.ulimits)
    if abs(spec.oom_score_adj) > OOM_SCORE_MAX:
        yield Problem(f"the OOM score is adjusted by {spec.oom_score_adj}", "Give a number from -1000 to 1000.")
    for group in spec.groups:
        if not group or not group.isprintable() or ":" in group:
            yield Problem(f"{group!r} is no group", "Give its name or number.")


def _ulimit_problems(ulimits: Iterable[Ulimit]) -> Iterator[Problem]:
    seen: set[str] = set()
    for limit in ulimits:
        if limit.name not in ULIMITS:
            yield Problem(f"there is no limit called {limit.name!r}", f"Limits are {', '.join(sorted(ULIMITS))}.")
        if limit.name in seen:
            yield Problem(f"the limit {limit.name} is set twice", "Set each limit once.")
        seen.add(limit.name)
        if min(limit.soft, limit.hard) < -1:
            yield Problem(f"the limit {limit.name} is negative", "Give a number, or -1 for no limit.")
        elif limit.hard != -1 and (limit.soft == -1 or limit.soft > limit.hard):
            yield Problem(f"the soft limit {limit.name} is above the hard one", "Write SOFT:HARD, the larger last.")


def is_namespaced_sysctl(key: str) -> bool:
    """Whether a setting belongs to the container's network or IPC namespace, not to the machine."""
    if _SYSCTL.fullmatch(key) is None or ".." in key or "/" in key:
        return False
    return key.startswith(("net.", "fs.mqueue.")) or key in _IPC_SYSCTLS


def parse_ulimit(text: str) -> Ulimit:
    """Return the limit in `nofile=1024:2048`, or `nofile=1024` for both. Raises InvalidArgument."""
    name, _, values = text.partition("=")
    soft, colon, hard = values.partition(":")
    try:
        return Ulimit(name.strip().lower(), int(soft), int(hard if colon else soft))
    except ValueError as error:
        raise InvalidArgument(f"limit {text!r} is none", remedy="Write NAME=SOFT[:HARD].") from error


def parse_sysctls(texts: Iterable[str]) -> dict[str, str]:
    """Return `net.core.somaxconn=1024` texts as a mapping. Raises InvalidArgument."""
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise InvalidArgument(f"sysctl {text!r} has no value", remedy="Write NAME=VALUE.")
        found[key.strip()] = value.strip()
    return found


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return False
    return True
