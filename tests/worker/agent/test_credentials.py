"""Renewal: in time, at once for another role, whole or not at all."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509
from lib.builders import FakeClock, a_node
from lib.ca_manager import CAManager
from lib.cluster_ca import DAY, ClusterCA
from msgspec.structs import replace

from pyswarm.manager.store.changes import Create, Delete, Plan, Update
from pyswarm.proto.entropy import SeededEntropy
from pyswarm.proto.errors import NotFound, ResourceExhausted
from pyswarm.proto.identity import NodeIdentity
from pyswarm.proto.model.states import Role
from pyswarm.proto.rpc.client import ManagerPool
from pyswarm.proto.rpc.tls import channel_credentials, read_certificates
from pyswarm.worker.agent.credentials import EARLIEST, LATEST, Credentials, renewal_moment


class Node:
    def __init__(self, directory: Path, manager: CAManager) -> None:
        self.directory = manager.ca.issue(directory / "node" / "certificates", "w1", Role.WORKER)
        self.clock = FakeClock(manager.ca.now)
        self.roles: asyncio.Queue[Role] = asyncio.Queue(10)
        self.pool = ManagerPool([manager.api], lambda: channel_credentials(self.directory))
        self.credentials = Credentials(
            self.directory, pool=self.pool, clock=self.clock, entropy=SeededEntropy(1), on_renewal=self.roles.put
        )


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[CAManager]:
    async with CAManager(tmp_path).serving() as serving:
        await serving.writer.write([Create(a_node("w1"))])
        yield serving


@pytest.fixture
async def node(tmp_path: Path, manager: CAManager) -> AsyncIterator[Node]:
    node = Node(tmp_path, manager)
    yield node
    await node.pool.close()


async def test_a_renewal_brings_a_new_key_and_certificate_and_says_so(node: Node):
    before = read_certificates(node.directory)
    assert await node.credentials.renew() is Role.WORKER
    after = read_certificates(node.directory)
    assert before[0] == after[0]
    assert before[1] != after[1]
    assert before[2] != after[2]
    assert node.roles.get_nowait() is Role.WORKER
    assert [p.name for p in node.directory.parent.iterdir()] == ["certificates"]
    assert await node.credentials.renew() is Role.WORKER, "the new certificate opens the next connection"


async def test_the_certificate_carries_the_stored_role_not_the_wish(manager: CAManager, node: Node):
    """Demotion: the node keeps its manager's certificate until it has left the consensus group (swarm mistake 50)."""
    stored = manager.store.view.node("w1")
    assert stored is not None
    wish = replace(stored, spec=replace(stored.spec, role=Role.MANAGER))
    await manager.writer.update(lambda seen: Plan((Update(wish),)))
    assert await node.credentials.renew() is Role.WORKER
    stored = manager.store.view.node("w1")
    assert stored is not None
    promoted = replace(stored, role=Role.MANAGER)
    await manager.writer.update(lambda seen: Plan((Update(promoted),)))
    assert await node.credentials.renew() is Role.MANAGER
    assert node.credentials.identity == NodeIdentity("w1", Role.MANAGER, "ours")


async def test_a_removed_node_gets_no_certificate_and_keeps_what_it_has(manager: CAManager, node: Node):
    before = read_certificates(node.directory)
    await manager.writer.update(lambda seen: Plan((Delete("node", "w1"),)))
    with pytest.raises(NotFound, match="not part of this cluster"):
        await node.credentials.renew()
    assert read_certificates(node.directory) == before
    assert node.roles.empty()


async def test_a_manager_without_a_quorum_certifies_nobody(manager: CAManager, node: Node):
    manager.consensus.lose_quorum()
    before = read_certificates(node.directory)
    with pytest.raises(Exception, match=r"quorum|leader|reach"):
        await node.credentials.renew()
    assert read_certificates(node.directory) == before


async def test_a_certificate_that_cannot_be_written_leaves_the_old_pair(node: Node):
    before = read_certificates(node.directory)
    # A file where the directory of the new certificate belongs.
    node.directory.with_name("certificates.new").write_text("in the way")
    with pytest.raises(ResourceExhausted, match="cannot be written"):
        await node.credentials.renew()
    assert read_certificates(node.directory) == before


@pytest.mark.timeout(30)
async def test_a_certificate_past_its_moment_is_renewed_without_being_asked(node: Node):
    node.clock.advance(LATEST * DAY + 3600)
    async with asyncio.timeout(20):
        async with asyncio.TaskGroup() as group:
            running = group.create_task(node.credentials.run())
            assert await node.roles.get() is Role.WORKER
            running.cancel()


def test_the_moment_lies_in_the_second_half_of_the_validity_and_differs_from_node_to_node(tmp_path: Path):
    ca = ClusterCA()
    certificate = x509.load_pem_x509_certificate(read_certificates(ca.issue(tmp_path / "c", "w1"))[1])
    moments = [renewal_moment(certificate, SeededEntropy(seed).uniform(EARLIEST, LATEST)) for seed in range(100)]
    whole = DAY + 3600
    begin = certificate.not_valid_before_utc.timestamp()
    assert all(EARLIEST <= (moment - begin) / whole <= LATEST for moment in moments)
    assert len(set(moments)) == 100
