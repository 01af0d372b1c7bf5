"""Lines for systemd's journal, by its native protocol: one datagram of fields for each line."""

import asyncio
import os
import socket
from collections.abc import Mapping, Sequence

from pyswarm.agent_runtime.container.log_format import Line

SOCKET = "/run/systemd/journal/socket"
_PRIORITY = {"stdout": "6", "stderr": "3"}


def journal_message(line: Line, fields: Mapping[str, str]) -> bytes:
    """Return one entry. Pure."""
    entry = b"".join(_field(name, value.encode()) for name, value in fields.items())
    when = str(round(line.timestamp * 1_000_000)).encode()
    return (
        entry
        + _field("PRIORITY", _PRIORITY[line.stream].encode())
        + _field("SYSLOG_TIMESTAMP_USEC", when)
        + _field("MESSAGE", line.data)
    )


def _field(name: str, value: bytes) -> bytes:
    """A value with a newline in it needs its length."""
    if b"\n" in value:
        return name.encode() + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"
    return name.encode() + b"=" + value + b"\n"


def field_name(text: str) -> str:
    """Return a label's or a variable's name as the journal allows it: capitals, digits, underscores."""
    kept = "".join(c if c.isascii() and c.isalnum() else "_" for c in text.upper()).lstrip("_0123456789")
    return kept[:64]


class JournalSink:
    """The journal as `log_relay` sends to it. `fields` come with every line."""

    def __init__(self, fields: Mapping[str, str], path: str = SOCKET) -> None:
        self._fields = fields
        self._path = path
        self._socket: socket.socket | None = None

    async def open(self) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            connection.connect(self._path)
        except OSError as error:
            connection.close()
            raise OSError(
                error.errno, f"cannot reach the journal at {self._path}: {os.strerror(error.errno or 0)}"
            ) from error
        self._socket = connection

    async def send(self, lines: Sequence[Line]) -> None:
        assert self._socket is not None, "it was opened"
        loop = asyncio.get_running_loop()
        for line in lines:
            await loop.sock_sendall(self._socket, journal_message(line, self._fields))

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
