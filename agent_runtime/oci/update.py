"""`update`: change the limits of a container, from a resources object or from runc's flags."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from pyswarm.agent_runtime.bundle import runtime_spec
from pyswarm.agent_runtime.bundle.spec_linux import Resources
from pyswarm.agent_runtime.bundle.validate import InvalidConfig
from pyswarm.agent_runtime.bundle.validate_linux import validate_resources
from pyswarm.agent_runtime.oci.cgroup import ContainerCgroup
from pyswarm.agent_runtime.oci.lifecycle import refuse_unless
from pyswarm.agent_runtime.oci.state import Container, Root
from pyswarm.agent_runtime.oci.status import CREATED, PAUSED, RUNNING, status_of
from pyswarm.proto.errors import InvalidArgument

_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def _integer(text: str) -> int:
    return int(text)


def _bytes(text: str) -> int:
    lower = text.lower()
    unit = lower[-1:] if lower[-1:].isalpha() else ""
    return int(lower.removesuffix(unit)) * _UNITS[unit]


FLAGS: dict[str, tuple[str, str, Callable[[str], Any]]] = {
    "blkio-weight": ("blockIO", "weight", _integer), "cpu-period": ("cpu", "period", _integer),
    "cpu-quota": ("cpu", "quota", _integer), "cpu-burst": ("cpu", "burst", _integer),
    "cpu-share": ("cpu", "shares", _integer), "cpu-rt-period": ("cpu", "realtimePeriod", _integer),
    "cpu-rt-runtime": ("cpu", "realtimeRuntime", _integer), "cpu-idle": ("cpu", "idle", _integer),
    "cpuset-cpus": ("cpu", "cpus", str), "cpuset-mems": ("cpu", "mems", str),
    "memory": ("memory", "limit", _bytes), "memory-reservation": ("memory", "reservation", _bytes),
    "memory-swap": ("memory", "swap", _bytes), "kernel-memory": ("memory", "kernel", _bytes),
    "kernel-memory-tcp": ("memory", "kernelTCP", _bytes), "pids-limit": ("pids", "limit", _integer),
}  # fmt: skip
"""runc's flags: which member of `resources` each one sets."""


def update(root: Root, container: Container, arguments: argparse.Namespace) -> None:
    """Change the limits. Raises InvalidConfig, InvalidArgument, leaving what the kernel took before the fault."""
    refuse_unless(status_of(root, container), (CREATED, RUNNING, PAUSED), "update", container.id)
    ContainerCgroup.needed(container.cgroup, "limit it").apply(wanted_resources(arguments))


def wanted_resources(arguments: argparse.Namespace) -> Resources:
    """Return what the command line asks for. Raises InvalidConfig, InvalidArgument."""
    if arguments.resources:
        try:
            path = arguments.resources
            content = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
            resources = runtime_spec.decode_resources(content)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise InvalidConfig("resources", str(error)) from error
    else:
        found: dict[str, dict[str, Any]] = {}
        for flag, (group, member, convert) in FLAGS.items():
            text = getattr(arguments, flag.replace("-", "_"))
            if text is not None:
                try:
                    found.setdefault(group, {})[member] = convert(text)
                except (ValueError, KeyError):
                    raise InvalidArgument(f"--{flag} {text!r} is no number", remedy="Give a number.") from None
        resources = msgspec.convert(found, Resources)
    validate_resources(resources, at="resources")
    return resources
