"""What this machine is, for the scheduler: hostname, platform, capacity."""

import os
import platform
import socket

from pyswarm.proto.model.objects import NodeDescription
from pyswarm.proto.model.resources import Platform, Resources
from pyswarm.proto.version import VERSION


def describe_node() -> NodeDescription:
    """Return the node's description. Capacity is the whole machine's; nothing is held back for the system."""
    return NodeDescription(
        hostname=socket.gethostname(),
        platform=Platform(architecture=platform.machine(), os=platform.system().lower()),
        resources=Resources(
            nano_cpus=len(os.sched_getaffinity(0)) * 1_000_000_000,
            memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        ),
        engine_version=VERSION,
    )
