"""A manager whose node was removed from the cluster is told so by whom is left, and takes no part any more."""

import asyncio
from pathlib import Path

import pytest
from lib.raft_lab import eventually, raft_lab

from pyswarm.manager.raft.codec import Removed, encode_frame
from pyswarm.manager.raft.port import Member
from pyswarm.proto.errors import NodeRemoved
from pyswarm.proto.rpc.tls import raft_ssl_contexts


async def test_members_whose_nodes_were_removed_learn_it_from_who_is_left_and_make_no_group_of_their_own(
    tmp_path: Path,
) -> None:
    async with raft_lab(tmp_path, 3) as lab:
        left, *gone = lab.members
        await left.stop()
        leader = await lab.leader()
        await leader.engine.propose(b"two of three go on")
        left.removed_nodes = {member.member.node_id for member in gone}
        await left.start()
        for member in gone:
            await eventually(lambda m=member: m.engine.removal is not None)  # type: ignore[misc]
            assert not member.engine.leadership.is_leader
            assert member.engine.leadership.leader is None
            for refused in (
                member.engine.propose(b"x"), member.engine.read_barrier(), member.engine.transfer_leadership(),
            ):  # fmt: skip
                with pytest.raises(NodeRemoved, match="says manager node-1"):
                    await refused
            with pytest.raises(NodeRemoved):
                member.engine.report()

        # Nor when nobody is there to say it again.
        await left.stop()
        for member in gone:
            await member.stop()
            await member.start()
            assert member.engine.removal is not None
            with pytest.raises(NodeRemoved, match=r"says manager node-1[\s\S]*leave --force"):
                await member.engine.propose(b"x")


async def test_a_removal_that_names_another_node_is_no_removal_of_this_one(tmp_path: Path) -> None:
    async with raft_lab(tmp_path, 1) as lab:
        (member,) = lab.members
        peer = lab.certificates.issue(tmp_path / "peer", "node-9")
        server_context, _ = raft_ssl_contexts(peer)
        said = asyncio.get_running_loop().create_future()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(4)
            writer.write(encode_frame(Removed("node-2")))
            writer.close()
            await writer.wait_closed()
            if not said.done():
                said.set_result(None)

        async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=server_context) as server:
            host, port = server.sockets[0].getsockname()
            member.engine._transport.add_peer(Member("raft-9", "node-9", f"{host}:{port}", "x:1"))
            async with asyncio.timeout(10):
                await said
            await member.engine.propose(b"still here")
            member.engine._transport.drop_peer("raft-9")
        assert member.engine.removal is None
