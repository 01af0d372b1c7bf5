"""Somebody who receives logs, for tests: real sockets of a syslog and of the journal."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

WAIT_SECONDS = 20.0


class Receiver:
    """What arrived on a datagram socket."""

    def __init__(self, own: socket.socket) -> None:
        self.socket = own

    async def next(self) -> bytes:
        async with asyncio.timeout(WAIT_SECONDS):
            return await asyncio.get_running_loop().sock_recv(self.socket, 1 << 20)


@asynccontextmanager
async def datagrams_at(place: Path | tuple[str, int]) -> AsyncIterator[Receiver]:
    """Receive datagrams at a path or an address."""
    family = socket.AF_UNIX if isinstance(place, Path) else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as own:
        own.bind(str(place) if isinstance(place, Path) else place)
        yield Receiver(own)


def journal_fields(entry: bytes) -> dict[str, bytes]:
    """Read one entry of the journal's native protocol."""
    fields = {}
    while entry:
        name, _, rest = entry.partition(b"\n")
        if b"=" in name:
            key, _, value = name.partition(b"=")
            fields[key.decode()], entry = value, rest
        else:
            length = int.from_bytes(rest[:8], "little")
            fields[name.decode()] = rest[8 : 8 + length]
            assert rest[8 + length : 9 + length] == b"\n"
            entry = rest[9 + length :]
    return fields
