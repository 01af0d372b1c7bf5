"""Whatever bytes arrive, a member decodes a message or refuses them: nothing else happens, and it goes on."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from lib.raft_lab import RaftLab, raft_lab

from pyswarm.manager.raft.codec import (
    LENGTH_BYTES,
    Append,
    AppendReply,
    BadMessage,
    FrameReader,
    Hello,
    SnapshotPiece,
    VoteRequest,
    decode,
    encode_frame,
)
from pyswarm.manager.raft.commands import MemberChange, change_in, check, encode_change
from pyswarm.manager.raft.port import Member
from pyswarm.manager.raft.transport import PROTOCOL
from pyswarm.proto.errors import NotLeader, OutcomeUnknown, Unavailable
from pyswarm.proto.rpc.tls import raft_ssl_contexts

EXIT_BY_PICKLE = b"cos\n_exit\n(I3\ntR."
"""A pickle that ends the process which reads it."""

ADDRESSES = ("127.0.0.1:9", "nowhere", "127.0.0.1:x", "127.0.0.1:99999999", "\u0000:1", "." * 300 + ":1", "")

bytes_from_anywhere = st.one_of(
    st.binary(max_size=200),
    st.sampled_from([EXIT_BY_PICKLE, b"\x80\x04" + EXIT_BY_PICKLE, b"\x91" * 1500]),
)
numbers = st.one_of(st.integers(-2, 50), st.sampled_from([2**31, 2**62, 2**63 - 1, 2**63, 2**64 - 1]))
small = st.integers(0, 50)
commands = st.one_of(
    bytes_from_anywhere,
    bytes_from_anywhere.map(lambda junk: b"\x00\x00" + junk),
    bytes_from_anywhere.map(lambda junk: b"\x02" + junk),
    st.just(b"\x02" + encode_change(MemberChange("add", Member("r", "n", "a", "b"))).replace(b"\xa1r", b"\xa1\xff")),
)
tags = st.sampled_from(
    [
        "append", "append-reply", "heartbeat", "heartbeat-reply", "vote-request", "vote", "pre-vote-request",
        "pre-vote", "term-notice", "timeout-now", "snapshot-piece", "snapshot-reply", "hello", "nothing",
    ]
)  # fmt: skip
values = st.one_of(
    numbers,
    st.booleans(),
    bytes_from_anywhere,
    st.lists(st.tuples(commands, numbers, numbers), max_size=3),
    st.none(),
)
almost_messages = st.tuples(tags, st.lists(values, max_size=7)).map(lambda m: msgspec.msgpack.encode([m[0], *m[1]]))
whole_messages = st.one_of(
    st.builds(Append, small, small, small, small, small, st.lists(st.tuples(commands, small, small)).map(tuple)),
    st.builds(AppendReply, small, small, small, st.booleans()),
    st.builds(VoteRequest, small, small, small, st.booleans()),
    st.builds(SnapshotPiece, small, small, small, st.booleans(), bytes_from_anywhere),
).map(lambda message: encode_frame(message)[LENGTH_BYTES:])


def mutilated(message: bytes, place: int, byte: int) -> bytes:
    return message[: place % (len(message) + 1)] + bytes([byte]) + message[place % (len(message) + 1) + 1 :]


contents = st.one_of(
    bytes_from_anywhere,
    almost_messages,
    whole_messages,
    st.builds(mutilated, whole_messages, st.integers(0, 300), st.integers(0, 255)),
)


@given(contents)
def test_any_bytes_are_a_message_or_are_refused(content: bytes) -> None:
    try:
        message = decode(content)
    except BadMessage:
        return
    assert decode(encode_frame(message)[LENGTH_BYTES:]) == message


@given(commands)
def test_any_entry_is_a_command_or_is_refused(command: bytes) -> None:
    try:
        check(command)
        change_in(command)
    except BadMessage:
        pass


@given(st.lists(contents, max_size=5), st.integers(1, 50))
def test_frames_are_cut_the_same_however_the_stream_arrives(sent: list[bytes], step: int) -> None:
    stream = b"".join(len(content).to_bytes(LENGTH_BYTES, "big") + content for content in sent)
    reader = FrameReader()
    found = [frame for at in range(0, len(stream), step) for frame in reader.feed(stream[at : at + step])]
    assert found == sent


async def say(lab: RaftLab, directory: Path, frames: Sequence[bytes], *, address: str) -> None:
    """Say something to the member as a manager of its cluster, until it hangs up or all is said."""
    (member,) = lab.members
    host, _, port = member.member.raft_addr.rpartition(":")
    sender = Member("raft-9", "node-9", address, address)
    _, context = raft_ssl_contexts(directory)
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
    try:
        writer.write(encode_frame(Hello(PROTOCOL, sender, member.member.raft_id)))
        for frame in frames:
            writer.write(len(frame).to_bytes(LENGTH_BYTES, "big") + frame)
        await writer.drain()
        writer.write_eof() if writer.can_write_eof() else writer.close()
        async with asyncio.timeout(5):
            await reader.read()
    except (ConnectionError, OSError):
        pass  # it hung up, as it may
    finally:
        writer.close()


async def still_writes(lab: RaftLab) -> bool:
    leader = await lab.leader()
    try:
        await leader.engine.propose(b"still here")
    except (NotLeader, OutcomeUnknown, Unavailable):
        return False
    return True


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(contents, max_size=8), st.sampled_from(ADDRESSES))
@example([encode_frame(Append(1, 1, 0, 1, 0))[LENGTH_BYTES:]], "nowhere").via("a stranger that leads in our term")
def test_a_member_that_is_told_anything_by_anybody_with_a_certificate_goes_on(
    directory: Path, frames: list[bytes], address: str
) -> None:
    async def told() -> None:
        async with raft_lab(directory / str(len(list(directory.iterdir()))), 1) as lab:
            peer = lab.certificates.issue(directory / "peer", "node-9")
            await say(lab, peer, frames, address=address)
            # A newer term deposes it, until it is elected again: nobody else stands.
            async with asyncio.timeout(10):
                while not await still_writes(lab):
                    pass

    asyncio.run(told())


def test_a_membership_change_that_cannot_be_read_is_refused_as_part_of_an_append() -> None:
    change = encode_change(MemberChange("add", Member("r", "n", "a", "b"))).replace(b"\xa1r", b"\xa1\xff")
    append = decode(encode_frame(Append(1, 1, 0, 1, 0, ((b"\x02" + change, 2, 1),)))[LENGTH_BYTES:])
    assert isinstance(append, Append)
    with pytest.raises(BadMessage, match="cannot be read"):
        check(append.entries[0][0])
