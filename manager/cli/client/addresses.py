"""Which of this machine's addresses other nodes shall use."""

import array
import fcntl
import ipaddress
import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple

from pyswarm.proto.errors import FailedPrecondition, InvalidArgument
from pyswarm.proto.paths import API_PORT

_SIOCGIFCONF = 0x8912
_IFREQ_BYTES = 40
_INTERFACES_MAX = 1024
_CONTAINER_INTERFACES = ("pyswarm", "docker", "br-", "veth", "virbr", "cni")
"""Interfaces with these prefixes belong to containers: never how other nodes reach this one."""


class InterfaceAddress(NamedTuple):
    interface: str
    address: str


def advertise_address(wanted: str, addresses: Sequence[InterfaceAddress]) -> str:
    """Return the address to advertise: `wanted` as an address or an interface's name, else the only one there is.

    Pure. Raises InvalidArgument or FailedPrecondition, listing the candidates.
    """
    candidates = [a for a in addresses if _is_candidate(a)]
    shown = ", ".join(f"{a.address} ({a.interface})" for a in candidates)
    if wanted:
        on_interface = [a for a in addresses if a.interface == wanted]
        if len(on_interface) > 1:
            raise InvalidArgument(
                f"interface {wanted} has {len(on_interface)} addresses: {', '.join(a.address for a in on_interface)}",
                remedy="Give one of them: --advertise-addr ADDRESS.",
            )
        return on_interface[0].address if on_interface else _checked(wanted, shown)
    if len(candidates) == 1:
        return candidates[0].address
    if not candidates:
        raise FailedPrecondition(
            "this machine has no address that other nodes could reach",
            remedy="Bring up a network interface, or give an address: --advertise-addr ADDRESS.",
        )
    raise FailedPrecondition(
        f"could not choose an IP address to advertise since this machine has several: {shown}",
        remedy="Specify one with --advertise-addr.",
    )


def with_port(address: str, default_port: int = API_PORT) -> str:
    """Return `address` with a port, the default one when it has none. Raises InvalidArgument."""
    if _is_ipv6(address.strip("[]")):
        return f"[{address.strip('[]')}]:{default_port}"
    host, colon, port = address.rpartition(":")
    if not colon:
        host, port = address, str(default_port)
    is_port = port.isascii() and port.isdigit() and 1 <= int(port[:6]) <= 65535
    if not is_port or not host or (":" in host and not _is_ipv6(host.strip("[]"))):
        raise InvalidArgument(f'"{address}" is not an address', remedy="Write HOST or HOST:PORT.")
    return f"{host}:{port}"


def _is_ipv6(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == 6
    except ValueError:
        return False


def listen_address(wanted: str) -> str:
    """Return the address to listen on, without its port. Raises InvalidArgument."""
    return _checked(wanted, "") if wanted else "0.0.0.0"


def machine_addresses() -> list[InterfaceAddress]:
    """Return this machine's IPv4 addresses, in the kernel's order."""
    buffer = array.array("B", bytes(_IFREQ_BYTES * _INTERFACES_MAX))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        request = struct.pack("iL", len(buffer), buffer.buffer_info()[0])
        filled = struct.unpack("iL", fcntl.ioctl(asking, _SIOCGIFCONF, request))[0]
    entries = (buffer[start : start + _IFREQ_BYTES].tobytes() for start in range(0, filled, _IFREQ_BYTES))
    return [InterfaceAddress(entry[:16].split(b"\0")[0].decode(), socket.inet_ntoa(entry[20:24])) for entry in entries]


def _is_candidate(found: InterfaceAddress) -> bool:
    address = ipaddress.ip_address(found.address)
    is_ours = found.interface.startswith(_CONTAINER_INTERFACES)
    return not (address.is_loopback or address.is_link_local or is_ours)


def _checked(wanted: str, candidates: str) -> str:
    """Return the address in `wanted`, which may name the one port that there is."""
    host, colon, port = wanted.rpartition(":")
    if not colon or (":" in host.strip("[]") and not host.startswith("[")):
        host, port = wanted, str(API_PORT)
    if port != str(API_PORT):
        raise InvalidArgument(
            f"port {port} cannot be chosen", remedy=f"The cluster's port is {API_PORT}: leave it out."
        )
    try:
        return str(ipaddress.ip_address(host.strip("[]")))
    except ValueError as error:
        remedy = f"This machine has: {candidates}." if candidates else "Write an IP address."
        raise InvalidArgument(f'"{wanted}" is neither an IP address nor an interface', remedy=remedy) from error
