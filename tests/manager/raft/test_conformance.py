"""The engine, alone and in a group of three over real TLS, and the fake: one suite for all."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from lib.consensus_suite import ConsensusSuite, Group
from lib.raft_lab import LabMember, Ledger, RaftLab, raft_lab

from pyswarm.manager.raft.fake import SingleNodeConsensus
from pyswarm.manager.raft.port import Member


class TestFake(ConsensusSuite):
    @pytest.fixture
    async def group(self) -> AsyncIterator[Group]:
        async def new_member() -> Member:
            return Member("raft-2", "node-2", "127.0.0.2:7946", "127.0.0.2:2377")

        ledger = Ledger()
        fake = SingleNodeConsensus(ledger)
        yield Group(fake, ledger, new_member)
        await fake.close()


class TestEngineAlone(ConsensusSuite):
    @pytest.fixture
    async def group(self, tmp_path: Path) -> AsyncIterator[Group]:
        async with raft_lab(tmp_path, 1) as lab:
            yield await group_of(lab)


class TestEngineOfThree(ConsensusSuite):
    @pytest.fixture
    async def group(self, tmp_path: Path) -> AsyncIterator[Group]:
        async with raft_lab(tmp_path, 3) as lab:
            yield await group_of(lab)


async def group_of(lab: RaftLab) -> Group:
    async def new_member() -> Member:
        joiner = LabMember(lab, str(len(lab.members) + 1))
        lab.members.append(joiner)
        await joiner.start()
        return joiner.member

    leader = await lab.leader()
    return Group(leader.engine, leader.ledger, new_member)
