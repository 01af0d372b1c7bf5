"""The few rtnetlink requests that this node's links take, encoded by hand and sent many at a time.

A library that encodes anything takes far longer over a message than the kernel takes to obey it, and every container
costs several. Encoding is pure; `Door` is the socket. Formats: rtnetlink(7), linux/rtnetlink.h, linux/if_link.h,
linux/veth.h.
"""

import errno
import os
import socket
import struct
from collections.abc import Sequence
from types import TracebackType

_NEWLINK, _DELLINK, _NEWADDR, _NEWROUTE = 16, 17, 20, 24
_ERROR = 2
_REQUEST, _ACK, _EXCLUSIVE, _CREATE = 0x1, 0x4, 0x200, 0x400
_NEW = _CREATE | _EXCLUSIVE
_NESTED = 0x8000

_LINK_ADDRESS, _LINK_NAME, _LINK_MASTER, _LINK_INFO, _LINK_NAMESPACE = 1, 3, 10, 18, 28
_INFO_KIND, _INFO_DATA, _VETH_PEER = 1, 2, 1
_ADDRESS, _LOCAL, _GATEWAY = 1, 2, 5
_TABLE_MAIN, _PROTOCOL_STATIC, _UNICAST = 254, 4, 1
_UP = 0x1

LOOPBACK_INDEX = 1
"""The loopback's index in every network namespace."""

EXISTS = (errno.EEXIST,)
GONE = (errno.ENODEV,)
"""Refusals that mean that there is nothing to do."""

_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ANSWER_BYTES = 64 * 1024

Request = tuple[int, int, bytes]
"""(message type, flags, body) of a request."""


def new_bridge(name: str) -> Request:
    info = _text(_INFO_KIND, "bridge")
    return _NEWLINK, _NEW, _link() + _text(_LINK_NAME, name) + _attribute(_LINK_INFO | _NESTED, info)


def hardware_address(name: str, address: str) -> Request:
    """Give a link a hardware address, like `02:42:ac:1e:00:01`, and put it up."""
    return _NEWLINK, 0, _link(up=True) + _text(_LINK_NAME, name) + _hardware_address(address)


def new_veth(name: str, address: str, *, index: int, peer: str, peer_namespace: int) -> Request:
    """Make a link `name`, up, with this hardware address and index.

    Its other end is `peer` in the namespace open at that descriptor.
    """
    other = _link() + _text(_LINK_NAME, peer) + _number(_LINK_NAMESPACE, peer_namespace)
    info = _text(_INFO_KIND, "veth") + _attribute(_INFO_DATA | _NESTED, _attribute(_VETH_PEER | _NESTED, other))
    own = _link(index=index, up=True) + _text(_LINK_NAME, name) + _hardware_address(address)
    return _NEWLINK, _NEW, own + _attribute(_LINK_INFO | _NESTED, info)


def link_up(index: int) -> Request:
    return _NEWLINK, 0, _link(index=index, up=True)


def port_up(name: str, *, bridge: int) -> Request:
    """Put a link into a bridge, and up."""
    return _NEWLINK, 0, _link(up=True) + _text(_LINK_NAME, name) + _number(_LINK_MASTER, bridge)


def del_link(name: str) -> Request:
    return _DELLINK, 0, _link() + _text(_LINK_NAME, name)


def new_address(index: int, address: str, prefix_length: int) -> Request:
    packed = socket.inet_aton(address)
    body = struct.pack("=BBBBI", socket.AF_INET, prefix_length, 0, 0, index)
    return _NEWADDR, _NEW, body + _attribute(_LOCAL, packed) + _attribute(_ADDRESS, packed)


def default_route(gateway: str) -> Request:
    body = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, _TABLE_MAIN, _PROTOCOL_STATIC, 0, _UNICAST, 0)
    return _NEWROUTE, _NEW, body + _attribute(_GATEWAY, socket.inet_aton(gateway))


def encode(requests: Sequence[Request]) -> bytes:
    """Return the requests as one datagram, numbered from 1; each is to be acknowledged."""
    return b"".join(
        _HEADER.pack(_HEADER.size + len(body), kind, flags | _REQUEST | _ACK, number, 0) + body
        for number, (kind, flags, body) in enumerate(requests, start=1)
    )


def decode_errors(datagram: bytes) -> list[tuple[int, int]]:
    """Return (number of the request, errno or 0) for each acknowledgement in an answer of the kernel."""
    found = []
    at = 0
    while at + _HEADER.size <= len(datagram):
        length, kind, _, number, _ = _HEADER.unpack_from(datagram, at)
        if kind == _ERROR:
            (negative,) = struct.unpack_from("=i", datagram, at + _HEADER.size)
            found.append((number, -negative))
        at += max(_aligned(length), _HEADER.size)
    return found


def _link(*, index: int = 0, up: bool = False) -> bytes:
    flags = _UP if up else 0
    return _LINK.pack(socket.AF_UNSPEC, 0, index, flags, flags)


def _attribute(kind: int, value: bytes) -> bytes:
    padding = b"\0" * (_aligned(len(value)) - len(value))
    return struct.pack("=HH", 4 + len(value), kind) + value + padding


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")


def _hardware_address(address: str) -> bytes:
    return _attribute(_LINK_ADDRESS, bytes(int(part, 16) for part in address.split(":")))


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("=I", value))


def _aligned(length: int) -> int:
    return (length + 3) & ~3


class Door:
    """A netlink socket in the network namespace of the thread that made it; it stays there."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))

    def ask(self, requests: Sequence[Request], *, accept: Sequence[int] = ()) -> None:
        """Have the kernel obey all requests, in order. Raises OSError with the first refusal but those to `accept`."""
        self._socket.send(encode(requests))
        missing = set(range(1, len(requests) + 1))
        refusals = []
        while missing:
            for number, code in decode_errors(self._socket.recv(_ANSWER_BYTES)):
                missing.discard(number)
                if code and code not in accept:
                    refusals.append((number, code))
        if refusals:
            number, code = min(refusals)
            kind = requests[number - 1][0]
            raise OSError(code, f"rtnetlink request {number} (type {kind}): {os.strerror(code)}")

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> "Door":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
