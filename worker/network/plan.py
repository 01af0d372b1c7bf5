"""Decide the packet filter's rules for the ports that local tasks publish (pure).

The whole table is rendered anew each time and replaced in one transaction, so it can be read, compared and tested as
text, and a restarted worker needs to know nothing of what was there.
"""

from collections.abc import Iterable

from msgspec import Struct

TABLE = "pyswarm"
BRIDGE = "pyswarm0"


class Published(Struct, frozen=True, order=True):
    """One published port of one running task."""

    protocol: str
    published_port: int
    address: str
    target_port: int


def ruleset(subnet: str, published: Iterable[Published]) -> str:
    """Return an nft script that replaces the node's table: masquerading, and each port dealt out to its local tasks."""
    backends: dict[tuple[str, int], list[Published]] = {}
    for port in sorted(published):
        backends.setdefault((port.protocol, port.published_port), []).append(port)
    deal = "\n".join(f"    {_deal(key, backends[key])}" for key in sorted(backends))
    return f"""\
add table ip {TABLE}
delete table ip {TABLE}
table ip {TABLE} {{
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
{deal}
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
{deal}
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {subnet} oifname != "{BRIDGE}" masquerade
    oifname "{BRIDGE}" ct status dnat fib saddr type local masquerade
    oifname "{BRIDGE}" ip saddr {subnet} ct status dnat masquerade
  }}
}}
"""


def _deal(key: tuple[str, int], backends: list[Published]) -> str:
    """The rule for one port: to its only task, or round robin over several."""
    protocol, port = key
    match = f"fib daddr type local {protocol} dport {port} dnat ip to "
    if len(backends) == 1:
        return f"{match}{backends[0].address}:{backends[0].target_port}"
    entries = ", ".join(f"{i} : {b.address} . {b.target_port}" for i, b in enumerate(backends))
    return f"{match}numgen inc mod {len(backends)} map {{ {entries} }}"


def host_link(task_id: str) -> str:
    """Return the name of the host's end of a task's wire: at most 15 characters, and telling whose it is."""
    return f"psw{task_id[:12]}"


def hardware_address_of(address: str) -> str:
    """Return the hardware address that belongs to an IPv4 address on the bridge: locally administered, always the same.

    Whoever takes over an address answers under the same hardware address, so that no neighbour's memory of the former
    owner is wrong.
    """
    return "02:42:" + ":".join(f"{int(part):02x}" for part in address.split("."))
