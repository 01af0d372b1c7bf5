"""One door to links, addresses and routes: netlink through pyroute2."""

import os
from contextlib import suppress
from pathlib import Path

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from pyswarm.worker.network import namespaces
from pyswarm.worker.network.plan import BRIDGE, bridge_mac

_EEXIST = 17
_INSIDE = "eth0"


class Links:
    """The links of this node. Methods block for a moment: call them from a worker thread, one at a time."""

    def __init__(self) -> None:
        self._netlink = IPRoute()

    def close(self) -> None:
        self._netlink.close()

    def ensure_bridge(self, address: str, prefix_length: int) -> None:
        """Make the node's bridge with its address, and have the kernel forward; may be repeated."""
        if self._index(BRIDGE) is None:
            self._netlink.link("add", ifname=BRIDGE, kind="bridge")
        index = self._must_index(BRIDGE)
        try:
            self._netlink.addr("add", index=index, address=address, prefixlen=prefix_length)
        except NetlinkError as error:
            if error.code != _EEXIST:
                raise
        # An address of its own: else the bridge takes the lowest of its ports', and every container loses its
        # gateway for a while when that port's container ends.
        self._netlink.link("set", index=index, address=bridge_mac(address), state="up")
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        # Lets the machine itself reach published ports at 127.0.0.1.
        Path(f"/proc/sys/net/ipv4/conf/{BRIDGE}/route_localnet").write_text("1")

    def wire(self, name: str, namespace: Path, address: str, prefix_length: int, gateway: str) -> None:
        """Join a namespace to the bridge by a pair of links, the inner one `eth0` with `address`; may be repeated."""
        if self._index(name) is None:
            descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
            try:
                self._netlink.link("add", ifname=name, kind="veth", peer={"ifname": _INSIDE, "net_ns_fd": descriptor})
            finally:
                os.close(descriptor)
        self._netlink.link("set", index=self._must_index(name), master=self._must_index(BRIDGE), state="up")
        namespaces.inside(namespace, lambda: _configure(address, prefix_length, gateway))

    def cut(self, name: str) -> None:
        """Remove a link and its peer, if it is there."""
        index = self._index(name)
        if index is not None:
            with suppress(NetlinkError):  # its namespace may be going at this very moment
                self._netlink.link("del", index=index)

    def names(self, prefix: str) -> list[str]:
        """Return the names of this node's links that begin with `prefix`, sorted."""
        names = (link.get_attr("IFLA_IFNAME") for link in self._netlink.get_links())
        return sorted(name for name in names if name and name.startswith(prefix))

    def _index(self, name: str) -> int | None:
        found = self._netlink.link_lookup(ifname=name)
        return int(found[0]) if found else None

    def _must_index(self, name: str) -> int:
        index = self._index(name)
        if index is None:
            raise OSError(f"link {name} has vanished")
        return index


def _configure(address: str, prefix_length: int, gateway: str) -> None:
    """Set up loopback and `eth0`; runs inside the namespace."""
    with IPRoute() as netlink:
        for name in ("lo", _INSIDE):
            netlink.link("set", index=netlink.link_lookup(ifname=name)[0], state="up")
        index = netlink.link_lookup(ifname=_INSIDE)[0]
        for what, arguments in (
            (netlink.addr, {"index": index, "address": address, "prefixlen": prefix_length}),
            (netlink.route, {"dst": "default", "gateway": gateway}),
        ):
            try:
                what("add", **arguments)
            except NetlinkError as error:
                if error.code != _EEXIST:
                    raise
