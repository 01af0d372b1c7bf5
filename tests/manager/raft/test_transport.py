"""Who may speak to a member: managers of this cluster, under their own name, and nobody else."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from lib.certificates import CertificateMaker, insecure_client_context
from lib.raft_lab import LabMember, RaftLab, eventually, raft_lab

from pyswarm.manager.raft import transport
from pyswarm.manager.raft.codec import FRAME_BYTES_MAX, Heartbeat, Hello, Removed, VoteRequest, encode_frame
from pyswarm.manager.raft.port import Member
from pyswarm.manager.raft.transport import PROTOCOL
from pyswarm.proto.backoff import Backoff
from pyswarm.proto.errors import Unavailable
from pyswarm.proto.model.states import Role
from pyswarm.proto.rpc.tls import raft_ssl_contexts

STRANGER = Member("raft-9", "node-9", "127.0.0.1:9", "127.0.0.1:9")


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[RaftLab]:
    async with raft_lab(tmp_path, 1) as lab:
        yield lab


async def hung_up_on(member: LabMember, context: ssl.SSLContext | None, *said: bytes, last_word: bytes = b"") -> bool:
    """Connect, say something, and return whether the member hung up with that last word and nothing else."""
    host, _, port = member.member.raft_addr.rpartition(":")
    async with asyncio.timeout(8):
        try:
            reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
            try:
                for data in said:
                    writer.write(data)
                return await reader.read() == last_word
            finally:
                writer.close()
        except (ssl.SSLError, ConnectionError):
            return True


def client(directory: Path) -> ssl.SSLContext:
    return raft_ssl_contexts(directory)[1]


def hello(member: LabMember, sender: Member = STRANGER, *, receiver: str | None = None) -> bytes:
    return encode_frame(Hello(PROTOCOL, sender, receiver or member.member.raft_id))


DISTURBANCE = encode_frame(VoteRequest(1000, 10**6, 1000, is_transfer=True))


async def assert_undisturbed(lab: RaftLab) -> None:
    (member,) = lab.members
    assert member.engine.leadership.term == 1
    await member.engine.propose(b"still here")


async def test_a_certificate_of_another_cluster_is_refused_and_logged(
    lab: RaftLab, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = CertificateMaker("cluster-1", root_name="another root").issue(tmp_path / "other", "node-9")
    context = client(other)
    # It trusts us, so that only our side can refuse.
    context.load_verify_locations(str(lab.members[0].certificates / "root-ca.crt"))
    with caplog.at_level(logging.WARNING):
        assert await hung_up_on(lab.members[0], context, hello(lab.members[0]), DISTURBANCE)
    await eventually(lambda: "refused" in caplog.text)
    await assert_undisturbed(lab)


@pytest.mark.parametrize(
    ("role", "cluster_id", "sender", "receiver", "reason"),
    [
        pytest.param(Role.WORKER, None, STRANGER, None, "no manager", id="a worker"),
        pytest.param(Role.MANAGER, "cluster-2", STRANGER, None, "belongs to the cluster", id="another cluster's name"),
        pytest.param(
            Role.MANAGER, None, Member("raft-9", "node-1", "x:1", "x:2"), None, "claims to be", id="a false name"
        ),
        pytest.param(Role.MANAGER, None, STRANGER, "raft-0", "earlier membership", id="meant for an earlier member"),
        pytest.param(
            Role.MANAGER, None, Member("raft-1", "node-9", "x:1", "x:2"), None, "raft id", id="our own raft id"
        ),
    ],
)
async def test_who_is_not_a_manager_of_this_cluster_under_its_own_name_is_refused_and_logged(
    lab: RaftLab,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    role: Role,
    cluster_id: str | None,
    sender: Member,
    receiver: str | None,
    reason: str,
) -> None:
    directory = lab.certificates.issue(tmp_path / "peer", "node-9", role=role, cluster_id=cluster_id)
    (member,) = lab.members
    with caplog.at_level(logging.WARNING):
        said = [hello(member, sender, receiver=receiver), DISTURBANCE]
        assert await hung_up_on(member, client(directory), *said)
        await eventually(lambda: reason in caplog.text)
    await assert_undisturbed(lab)


async def test_the_certificate_of_a_removed_node_is_refused_under_any_raft_id_told_so_and_logged(
    lab: RaftLab, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = lab.certificates.issue(tmp_path / "peer", "node-9")
    lab.removed_nodes.add("node-9")
    (member,) = lab.members
    with caplog.at_level(logging.WARNING):
        told = encode_frame(Removed("node-9"))
        assert await hung_up_on(member, client(directory), hello(member), DISTURBANCE, last_word=told)
        await eventually(lambda: "was removed from the cluster" in caplog.text)
    await assert_undisturbed(lab)


@pytest.mark.parametrize(
    "said",
    [
        pytest.param([DISTURBANCE], id="no greeting"),
        pytest.param([(FRAME_BYTES_MAX + 1).to_bytes(4, "big")], id="a frame too large"),
        pytest.param([b"\0\0\0\x05\x80\x04N.x"], id="a pickle"),
    ],
)
async def test_what_no_manager_says_closes_the_connection(
    lab: RaftLab, tmp_path: Path, caplog: pytest.LogCaptureFixture, said: list[bytes]
) -> None:
    directory = lab.certificates.issue(tmp_path / "peer", "node-9")
    with caplog.at_level(logging.WARNING):
        assert await hung_up_on(lab.members[0], client(directory), *said)
        await eventually(lambda: "refused" in caplog.text)
    await assert_undisturbed(lab)


async def test_a_client_without_a_certificate_is_refused(lab: RaftLab, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert await hung_up_on(lab.members[0], insecure_client_context(), hello(lab.members[0]))
    await eventually(lambda: "refused" in caplog.text)
    await assert_undisturbed(lab)


async def test_plain_tcp_is_refused_and_logged(lab: RaftLab, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert await hung_up_on(lab.members[0], None, hello(lab.members[0]), encode_frame(Heartbeat(9, 1)))
        await eventually(lambda: "refused" in caplog.text)
    await assert_undisturbed(lab)


async def test_who_does_not_finish_the_handshake_is_hung_up_on_and_keeps_nobody_else_out(
    lab: RaftLab, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "HANDSHAKE_SECONDS", 0.2)
    (member,) = lab.members
    peer = client(lab.certificates.issue(tmp_path / "peer", "node-9"))
    with caplog.at_level(logging.WARNING):
        silent = asyncio.ensure_future(hung_up_on(member, None))
        # Another one gets through meanwhile, as far as its bad manners let it.
        assert await hung_up_on(member, peer, DISTURBANCE)
        assert await silent
        await eventually(lambda: caplog.text.count("refused") == 2)
    await assert_undisturbed(lab)


async def test_a_renewed_certificate_is_taken_up_by_the_next_connection(tmp_path: Path) -> None:
    async with raft_lab(tmp_path, 3) as lab:
        leader = await lab.leader()
        for member in lab.members:
            lab.certificates.issue(member.certificates, member.member.node_id)
        for follower in await lab.followers():
            await follower.kill()
            await follower.start()
        leader = await lab.leader()
        await leader.engine.propose(b"under new certificates")


async def test_who_comes_back_and_dials_is_dialled_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with raft_lab(tmp_path, 3) as lab:
        leader, (follower, _) = await lab.leader(), await lab.followers()
        monkeypatch.setattr(transport, "REDIAL", Backoff(first_seconds=3600, cap_seconds=3600))
        await follower.kill()
        await eventually(lambda: follower.member.raft_id not in linked(leader))
        await follower.start()
        await eventually(lambda: follower.member.raft_id in linked(leader))


def linked(member: LabMember) -> set[str]:
    return {peer.raft_id for peer in member.engine.report().peers if peer.is_linked}


async def test_certificates_are_renewed_while_writes_go_on_and_none_is_lost(tmp_path: Path) -> None:
    async with raft_lab(tmp_path, 3) as lab:
        leader = await lab.leader()
        acknowledged: list[bytes] = []
        is_renewed = False

        async def write() -> None:
            while not is_renewed:
                payload = b"%d" % len(acknowledged)
                await leader.engine.propose(payload)
                acknowledged.append(payload)

        writing = asyncio.ensure_future(write())
        for renewed in lab.members:
            lab.certificates.issue(renewed.certificates, renewed.member.node_id)
            before = len(acknowledged)
            # Every link to and from it is made anew, with the new certificate at one end or at both.
            for incoming in list(renewed.engine._transport._accepted):
                incoming.abort()
            for peer in renewed.engine._transport._peers.values():
                if peer._transport is not None:
                    peer._transport.abort()
            await eventually(lambda: len(acknowledged) > before + 20)  # noqa: B023 - awaited before the next round
            for member in lab.members:
                await eventually(lambda m=member: len(m.engine._guard.linked()) == 2)  # type: ignore[misc]
        is_renewed = True
        await writing
        for member in lab.members:
            await eventually(lambda m=member: m.ledger.entries == leader.ledger.entries)  # type: ignore[misc]
        assert [e for e in leader.ledger.entries if e in set(acknowledged)] == acknowledged


async def test_a_taken_port_is_said_with_a_remedy(lab: RaftLab) -> None:
    (running,) = lab.members
    second = LabMember(lab, "2")
    second.member = Member("raft-2", "node-2", running.member.raft_addr, running.member.api_addr)
    with pytest.raises(Unavailable) as refused:
        await second.start()
    assert refused.value.remedy
