"""What stands in the log: how a batch of proposals and a membership change become the bytes of one entry (pure).

A command is one byte that the core knows (regular, no-op, membership) and a body in our own encoding. The core
wants to pickle bodies; it gets these functions in pickle's place (core.py), so nothing is ever unpickled.

That a member has moved to another address is a regular command to the core, because the voters stay the same.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import Struct

from pyswarm.manager.raft.codec import UNREADABLE, BadMessage
from pyswarm.manager.raft.port import Member

REGULAR = 0
NOOP = 1
MEMBERSHIP = 2
"""Command types of the core; 3 (its code version switch) is never used."""

NOOP_COMMAND = bytes([NOOP])
_BATCH_MARK = b"\x00"
_MOVE_MARK = b"\x01"
"""First bytes of the body of a regular command; no membership change begins with one of them."""


class MemberChange(Struct, frozen=True, array_like=True):
    kind: Literal["add", "rem", "move"]
    member: Member


_encoder = msgspec.msgpack.Encoder()
_batch_decoder = msgspec.msgpack.Decoder(tuple[bytes, ...])
_change_decoder = msgspec.msgpack.Decoder(MemberChange)


def encode_batch(payloads: Sequence[bytes]) -> bytes:
    """Return the body of a regular command that carries proposals."""
    return _BATCH_MARK + _encoder.encode(payloads)


def decode_batch(body: bytes) -> tuple[bytes, ...]:
    """Return the proposals that the body of a regular command carries; a move carries none. Raises BadMessage."""
    if body.startswith(_MOVE_MARK):
        return ()
    try:
        return _batch_decoder.decode(memoryview(body)[len(_BATCH_MARK) :])
    except UNREADABLE as error:
        raise BadMessage(f"an entry of the log cannot be read: {error}") from error


def encode_change(change: MemberChange) -> bytes:
    """Return the body of a membership command."""
    return _encoder.encode(change)


def encode_move(member: Member) -> bytes:
    """Return the body of the regular command that says where `member` is to be found from now on."""
    return _MOVE_MARK + _encoder.encode(MemberChange("move", member))


def is_batch(body: bytes) -> bool:
    return body.startswith(_BATCH_MARK)


def is_regular(body: bytes) -> bool:
    return body.startswith((_BATCH_MARK, _MOVE_MARK))


def decode_change(body: bytes) -> MemberChange:
    """Raises BadMessage."""
    try:
        return _change_decoder.decode(body)
    except UNREADABLE as error:
        raise BadMessage(f"a membership change in the log cannot be read: {error}") from error


def change_in(command: bytes) -> MemberChange | None:
    """Return the change to the members, or to the address of one, that a command makes, if it does."""
    if command[:1] == b"\x02":
        return decode_change(command[1:])
    return decode_change(command[2:]) if command[:2] == b"\x00" + _MOVE_MARK else None


def check(command: bytes) -> None:
    """Refuse what the core could not apply. Raises BadMessage."""
    kind = command[0] if command else None
    if kind == REGULAR and is_batch(command[1:2]):
        decode_batch(command[1:])
    elif kind == REGULAR and is_regular(command[1:2]):
        decode_change(command[2:])
    elif kind == MEMBERSHIP:
        decode_change(command[1:])
    elif command != NOOP_COMMAND:
        raise BadMessage(f"an entry of the log has the unknown type {kind}")
