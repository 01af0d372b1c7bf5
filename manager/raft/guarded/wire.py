"""Messages between managers as msgpack frames (pure). No pickle: commands travel as (kind, payload)."""

from typing import Any

import msgspec

from pyswarm.manager.raft.guarded.commands import ForeignCommand, join, split

FRAME_BYTES_MAX = 64 * 1024 * 1024


class BadFrame(ValueError):
    """Bytes that are no message of ours."""


def encode(message: dict[str, Any]) -> bytes:
    if "entries" in message:
        entries = [[*split(command), index, term] for command, index, term in message["entries"]]
        message = {**message, "entries": entries}
    return msgspec.msgpack.encode(message)


def decode(data: bytes) -> dict[str, Any]:
    """Return the message in a frame. Raises BadFrame."""
    try:
        message = msgspec.msgpack.decode(data)
        if not isinstance(message, dict) or not isinstance(message.get("type"), str):
            raise BadFrame("not a message")
        if "entries" in message:
            message["entries"] = [
                (join(kind, payload), index, term) for kind, payload, index, term in message["entries"]
            ]
        if message.get("serialized"):
            message["serialized"] = tuple(message["serialized"])
    except (msgspec.DecodeError, ForeignCommand, ValueError, TypeError) as error:
        raise BadFrame(str(error)) from error
    return message
