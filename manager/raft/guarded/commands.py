"""Commands as PySyncObj holds them in memory, and as (kind, payload) everywhere else (pure).

The core keeps a command as a type byte and a pickle. We build those bytes here, from constants and a payload, and take
them apart by position: what comes from the network or the disk is only ever a kind and a payload, so nothing foreign
is unpickled.
"""

import pickle
import struct

REGULAR, NO_OP, MEMBERSHIP = 0, 1, 2

_NO_OP = bytes([NO_OP])
# Pickle protocol 3 of the tuple (0, (payload,)): call replicated method number 0 with one argument.
_HEAD = bytes([REGULAR]) + b"\x80\x03K\x00B"
_TAIL = b"\x85\x86."
_LENGTH = struct.Struct("<I")
_PREFIX = len(_HEAD) + _LENGTH.size


class ForeignCommand(ValueError):
    """Bytes that were not built here."""


def regular(payload: bytes) -> bytes:
    """Return the command that hands `payload` to the state machine."""
    return b"".join((_HEAD, _LENGTH.pack(len(payload)), payload, _TAIL))


def membership(action: str, raft_id: str) -> bytes:
    """Return the command that adds ("add") or removes ("rem") a voter."""
    assert action in ("add", "rem"), action
    return bytes([MEMBERSHIP]) + pickle.dumps([action, raft_id], protocol=2)


def split(command: bytes) -> tuple[int, bytes]:
    """Return (kind, payload) of a command built here. A membership's payload is `add:ID` or `rem:ID`.

    Raises ForeignCommand for anything else.
    """
    kind = command[0]
    if kind == NO_OP and len(command) == 1:
        return NO_OP, b""
    if kind == REGULAR and command.startswith(_HEAD) and command.endswith(_TAIL):
        return REGULAR, command[_PREFIX : -len(_TAIL)]
    if kind == MEMBERSHIP:
        # Built from our own strings a moment ago, or by `join` below from text that was checked.
        action, raft_id = pickle.loads(command[1:])
        return MEMBERSHIP, f"{action}:{raft_id}".encode()
    raise ForeignCommand(f"a command of kind {kind} was not built by this program")


def join(kind: int, payload: bytes) -> bytes:
    """Return the core's command for a kind and payload from the network or the disk. Raises ForeignCommand."""
    if kind == REGULAR:
        return regular(payload)
    if kind == NO_OP:
        return _NO_OP
    if kind == MEMBERSHIP:
        action, _, raft_id = payload.decode().partition(":")
        if action in ("add", "rem") and raft_id.isalnum():
            return membership(action, raft_id)
    raise ForeignCommand(f"no command of kind {kind}")
