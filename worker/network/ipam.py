"""Hand out the addresses of the node's subnet (pure)."""

import ipaddress
from collections.abc import Collection, Mapping

from pyswarm.proto.errors import ResourceExhausted


def gateway_of(subnet: ipaddress.IPv4Network) -> str:
    """Return the bridge's own address: the first of the subnet."""
    return str(subnet.network_address + 1)


def claim(subnet: ipaddress.IPv4Network, taken: Mapping[str, str] | Collection[str]) -> str:
    """Return the lowest free address. Raises ResourceExhausted when the subnet is full."""
    used = {ipaddress.IPv4Address(a) for a in (taken.values() if isinstance(taken, Mapping) else taken)}
    last = subnet.broadcast_address
    candidate = subnet.network_address + 2
    # The first gap in what is taken: no walk over the whole subnet.
    for address in sorted(used):
        if address == candidate:
            candidate += 1
    if candidate >= last:
        raise ResourceExhausted(
            f"every address of the node's subnet {subnet} is in use",
            remedy="Set a larger [network] subnet in config.toml, or run fewer tasks on this node.",
        )
    return str(candidate)
