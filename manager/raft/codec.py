"""The messages between members, and their bytes: msgpack of typed records, nothing else is ever decoded.

Every message carries the sender's term. An entry is (command, index, term), in the order in which the core keeps
it; commands are opaque here (commands.py). What the messages mean: guard.py.
"""

import msgspec
from msgspec import Struct

from pyswarm.manager.raft.port import Member
from pyswarm.proto.errors import InvalidArgument

FRAME_BYTES_MAX = 12 * 1024 * 1024
"""Largest frame on a stream: the largest batch of entries (4 MiB and one entry more), with room."""

LENGTH_BYTES = 4

Entry = tuple[bytes, int, int]
"""Command, index, term."""


UNREADABLE = (msgspec.MsgspecError, ValueError, OverflowError, RecursionError)
"""All that decoding bytes of unknown origin raises: text that is no UTF-8 is a plain ValueError."""


class BadMessage(InvalidArgument):
    """A peer sent what no version of ours sends; its connection is closed."""

    remedy = "All managers of a cluster must run compatible versions."


class Hello(Struct, frozen=True, array_like=True, tag="hello"):
    """First on every stream: who dials, and which raft id it expects to find."""

    protocol: int
    sender: Member
    receiver_raft_id: str


class Removed(Struct, frozen=True, array_like=True, tag="removed"):
    """The only word ever said to who dialled: the cluster has removed your node. The stream ends with it."""

    node_id: str


class Append(Struct, frozen=True, array_like=True, tag="append"):
    """Entries behind (`prev_index`, `prev_term`). `sequence` counts what this leader sent to this follower."""

    term: int
    sequence: int
    commit: int
    prev_index: int
    prev_term: int
    entries: tuple[Entry, ...] = ()


class AppendReply(Struct, frozen=True, array_like=True, tag="append-reply"):
    """`is_success`: the follower holds all before `next_index`, durably, as the leader of `term` sent it.
    Otherwise: go on from `next_index`. `sequence` is that of the append it answers."""

    term: int
    sequence: int
    next_index: int
    is_success: bool


class Heartbeat(Struct, frozen=True, array_like=True, tag="heartbeat"):
    """A sign of life that asks for one; `round` numbers what reads wait for."""

    term: int
    round: int


class HeartbeatReply(Struct, frozen=True, array_like=True, tag="heartbeat-reply"):
    term: int
    round: int


class VoteRequest(Struct, frozen=True, array_like=True, tag="vote-request"):
    """`is_transfer`: the leader itself asked for this election, so its presence is no reason to refuse."""

    term: int
    last_index: int
    last_term: int
    is_transfer: bool = False


class Vote(Struct, frozen=True, array_like=True, tag="vote"):
    term: int


class PreVoteRequest(Struct, frozen=True, array_like=True, tag="pre-vote-request"):
    """Would you vote for me in `term`? Changes nothing at either end."""

    term: int
    last_index: int
    last_term: int


class PreVote(Struct, frozen=True, array_like=True, tag="pre-vote"):
    term: int
    is_granted: bool


class TermNotice(Struct, frozen=True, array_like=True, tag="term-notice"):
    """You sent something of an older term than mine."""

    term: int


class TimeoutNow(Struct, frozen=True, array_like=True, tag="timeout-now"):
    """The leader hands over: stand for election at once."""

    term: int


class SnapshotPiece(Struct, frozen=True, array_like=True, tag="snapshot-piece"):
    """Piece `number` (from 0) of the snapshot sent as `stream`; piece 0 is its header."""

    term: int
    stream: int
    number: int
    is_last: bool
    data: bytes


class SnapshotReply(Struct, frozen=True, array_like=True, tag="snapshot-reply"):
    """`received` pieces of `stream` have come, in order. `installed_index` is not 0 once the follower's log holds,
    durably, everything up to it."""

    term: int
    stream: int
    received: int
    installed_index: int = 0


Message = (
    Append
    | AppendReply
    | Heartbeat
    | HeartbeatReply
    | VoteRequest
    | Vote
    | PreVoteRequest
    | PreVote
    | TermNotice
    | TimeoutNow
    | SnapshotPiece
    | SnapshotReply
)

_encoder = msgspec.msgpack.Encoder()
_decoder: "msgspec.msgpack.Decoder[Hello | Removed | Message]" = msgspec.msgpack.Decoder(Hello | Removed | Message)


def encode_frame(message: Hello | Removed | Message) -> bytes:
    """Return the message behind its length."""
    # Not `encode_into`: its buffer grows by reallocation, which for a large message costs more than all of the rest.
    content = _encoder.encode(message)
    return len(content).to_bytes(LENGTH_BYTES, "big") + content


def decode(data: bytes | memoryview) -> Hello | Removed | Message:
    """Raises BadMessage."""
    try:
        return _decoder.decode(data)
    except UNREADABLE as error:
        raise BadMessage(f"a message between managers cannot be read: {error}") from error


class FrameReader:
    """Cut a stream into frames; keeps at most one incomplete frame."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Return the frames that `data` completes. Raises BadMessage for a frame that is too large."""
        self._buffer += data
        frames = []
        start = 0
        while len(self._buffer) - start >= LENGTH_BYTES:
            length = int.from_bytes(self._buffer[start : start + LENGTH_BYTES], "big")
            if length > FRAME_BYTES_MAX:
                raise BadMessage(f"a frame of {length} bytes exceeds {FRAME_BYTES_MAX}")
            end = start + LENGTH_BYTES + length
            if end > len(self._buffer):
                break
            frames.append(bytes(self._buffer[start + LENGTH_BYTES : end]))
            start = end
        del self._buffer[:start]
        return frames
