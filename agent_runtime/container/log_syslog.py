"""Lines for a syslog: the formats that Docker offers (pure), and the socket they go through."""

import asyncio
import errno
import os
import socket
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from pyswarm.agent_runtime.container.log_format import Line
from pyswarm.proto.codec.log_settings import LogSettings, SyslogAddress

OWN_SOCKETS = ("/dev/log", "/var/run/syslog", "/var/run/log")
_SEVERITY = {"stdout": 6, "stderr": 3}  # informational, error


def syslog_message(line: Line, settings: LogSettings, *, tag: str, host: str, pid: int) -> bytes:
    """Return one message in the wanted format; without one, as programs of the machine itself write them."""
    priority = settings.facility * 8 + _SEVERITY[line.stream]
    moment = datetime.fromtimestamp(line.timestamp, UTC)
    if settings.format.startswith("rfc5424"):
        precision = "microseconds" if settings.format == "rfc5424micro" else "seconds"
        when = moment.isoformat(timespec=precision).replace("+00:00", "Z")
        head = f"<{priority}>1 {when} {host} {tag} {pid} {tag} - "
    else:
        when = f"{moment:%b} {moment.day:2d} {moment:%H:%M:%S}"
        # A machine's own syslog knows its name; another one has to be told.
        name = f"{host} " if settings.format or (settings.address and settings.address.host) else ""
        head = f"<{priority}>{when} {name}{tag}[{pid}]: "
    return head.encode() + line.data


class SyslogSink:
    """A syslog as `log_relay` sends to it: the wanted address, or the machine's own."""

    def __init__(self, settings: LogSettings, tag: str) -> None:
        self._settings = settings
        self._tag = tag
        self._host = socket.gethostname()
        self._socket: socket.socket | None = None

    async def open(self) -> None:
        address = self._settings.address
        if address is not None and address.host:
            self._socket = await _connect_host(address)
        elif address is not None:
            self._socket = await _connect_path(address.path)
        else:
            own = next((path for path in OWN_SOCKETS if os.path.exists(path)), OWN_SOCKETS[0])
            self._socket = await _connect_path(own)

    async def send(self, lines: Sequence[Line]) -> None:
        assert self._socket is not None, "it was opened"
        loop = asyncio.get_running_loop()
        messages = [
            syslog_message(line, self._settings, tag=self._tag, host=self._host, pid=os.getpid()) for line in lines
        ]
        if self._socket.type == socket.SOCK_STREAM:
            await loop.sock_sendall(self._socket, b"".join(message + b"\n" for message in messages))
            return
        for message in messages:
            await loop.sock_sendall(self._socket, message)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


async def _connect_host(address: SyslogAddress) -> socket.socket:
    loop = asyncio.get_running_loop()
    kind = socket.SOCK_STREAM if address.kind == "tcp" else socket.SOCK_DGRAM
    found = await loop.getaddrinfo(address.host, address.port, type=kind)
    family, _, protocol, _, place = found[0]
    return await _connected(socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol), place)


async def _connect_path(path: str) -> socket.socket:
    """Return a connection of the kind that the other side has."""
    try:
        return await _connected(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK), path)
    except OSError as error:
        if error.errno != errno.EPROTOTYPE:
            raise
    return await _connected(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK), path)


async def _connected(connection: socket.socket, place: Any) -> socket.socket:
    try:
        await asyncio.get_running_loop().sock_connect(connection, place)
    except BaseException as error:
        connection.close()
        if isinstance(error, OSError):
            raise OSError(
                error.errno, f"cannot reach the syslog at {place}: {os.strerror(error.errno or 0)}"
            ) from error
        raise
    return connection
