"""What this machine is, for the scheduler: hostname, platform, capacity, and what its administrator says of it."""

import os
import platform
import socket
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from pyswarm.proto.codec.generic_resources import parse_inventory
from pyswarm.proto.errors import InvalidArgument
from pyswarm.proto.model.objects import NodeDescription
from pyswarm.proto.model.resources import GenericResource, Platform, Resources
from pyswarm.proto.version import VERSION


class DeclaredNode(NamedTuple):
    """What the administrator says of the machine in `config.toml`."""

    engine_labels: Mapping[str, str] = MappingProxyType({})
    generic: tuple[GenericResource, ...] = ()


NOTHING_DECLARED = DeclaredNode()


def declared_in(settings: Mapping[str, Any]) -> DeclaredNode:
    """Read `labels = ["disk=ssd"]` and `node-generic-resources = ["gpu=GPU-7a1c"]`, as in Docker's daemon.json.

    Raises InvalidArgument for what cannot be read.
    """
    labels = {}
    for text in _texts(settings, "labels"):
        name, _, value = text.partition("=")
        if not name:
            raise InvalidArgument(f"config.toml: {text!r} is no label", remedy='Write labels = ["NAME=VALUE"].')
        labels[name] = value
    return DeclaredNode(labels, parse_inventory(_texts(settings, "node-generic-resources")))


def _texts(settings: Mapping[str, Any], key: str) -> list[str]:
    found = settings.get(key, [])
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise InvalidArgument(f"config.toml: {key} is no list of texts", remedy=f'Write {key} = ["NAME=VALUE"].')
    return found


def describe_node(declared: DeclaredNode = NOTHING_DECLARED) -> NodeDescription:
    """Return the node's description. Capacity is the whole machine's; nothing is held back for the system."""
    return NodeDescription(
        hostname=socket.gethostname(),
        platform=Platform(architecture=platform.machine(), os=platform.system().lower()),
        resources=Resources(
            nano_cpus=len(os.sched_getaffinity(0)) * 1_000_000_000,
            memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            pids=_processes_max(),
            generic=declared.generic,
        ),
        engine_version=VERSION,
        engine_labels=declared.engine_labels,
    )


def _processes_max() -> int:
    """Return how many processes the kernel allows at once."""
    limits = [Path("/proc/sys/kernel/pid_max"), Path("/proc/sys/kernel/threads-max")]
    return min(int(limit.read_text()) for limit in limits)
