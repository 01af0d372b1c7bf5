"""One door to links, addresses and routes."""

import os
import socket
from collections.abc import Sequence
from pathlib import Path

from pyswarm.worker.network import namespaces, rtnetlink
from pyswarm.worker.network.plan import BRIDGE, hardware_address_of
from pyswarm.worker.network.rtnetlink import EXISTS, GONE, LOOPBACK_INDEX, Door, Request

_INSIDE = "eth0"
_INSIDE_INDEX = 1000
"""Chosen by us, so that what follows can be asked in one go; beyond what a kernel's own links of a namespace take."""


class Links:
    """The links of this node. Methods block for a moment: call them from a worker thread, one at a time."""

    def __init__(self) -> None:
        self._door = Door()
        self._namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        self._door.close()
        os.close(self._namespace)

    def ensure_bridge(self, address: str, prefix_length: int) -> None:
        """Make the node's bridge with its address, and have the kernel forward; may be repeated."""
        self._door.ask([rtnetlink.new_bridge(BRIDGE)], accept=EXISTS)
        # A hardware address of its own: else the bridge takes the lowest of its ports', and every container loses its
        # gateway for a while when that port's container ends.
        self._door.ask([rtnetlink.hardware_address(BRIDGE, hardware_address_of(address))])
        index = socket.if_nametoindex(BRIDGE)
        self._door.ask([rtnetlink.new_address(index, address, prefix_length)], accept=EXISTS)
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        # Lets the machine itself reach published ports at 127.0.0.1.
        Path(f"/proc/sys/net/ipv4/conf/{BRIDGE}/route_localnet").write_text("1")

    def wire(self, name: str, namespace: Path, address: str, prefix_length: int, gateway: str) -> None:
        """Make a namespace and join it to the bridge by a pair of links, the inner one `eth0` with `address`.

        May be repeated.
        """
        inside = [
            rtnetlink.new_veth(
                _INSIDE, hardware_address_of(address), index=_INSIDE_INDEX, peer=name, peer_namespace=self._namespace
            ),
            rtnetlink.link_up(LOOPBACK_INDEX),
            rtnetlink.new_address(_INSIDE_INDEX, address, prefix_length),
            rtnetlink.default_route(gateway),
        ]
        namespaces.furnish(namespace, lambda: _ask(inside))
        self._door.ask([rtnetlink.port_up(name, bridge=socket.if_nametoindex(BRIDGE))])

    def cut(self, name: str) -> None:
        """Remove a link and its peer, if it is there."""
        self._door.ask([rtnetlink.del_link(name)], accept=GONE)


def _ask(requests: Sequence[Request]) -> None:
    """Have requests obeyed in the namespace of the thread that asks, as far as they were not before."""
    with Door() as door:
        door.ask(requests, accept=EXISTS)
