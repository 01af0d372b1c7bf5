"""How nodes get the role their spec says: in which order, and never at the cost of the quorum."""

import pytest
from lib.builders import a_cluster, a_node
from msgspec.structs import replace

from pyswarm.manager.leader.roles import change_role, check_demotion, next_role_change
from pyswarm.manager.raft.fake import FAKE_MEMBER, SingleNodeConsensus
from pyswarm.manager.raft.port import Member
from pyswarm.manager.store.changes import Create
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.manager.store.store import Store
from pyswarm.manager.store.writer import Writer
from pyswarm.proto.clock import SYSTEM_CLOCK
from pyswarm.proto.entropy import SYSTEM_ENTROPY
from pyswarm.proto.errors import FailedPrecondition, Unavailable
from pyswarm.proto.model.objects import Node
from pyswarm.proto.model.states import Role

OTHER = Member("raft-m2", "m2", "127.0.0.1:7947", "127.0.0.1:2378")


def with_wish(node: Node, role: Role) -> Node:
    return replace(node, spec=replace(node.spec, role=role))


class Consensus(SingleNodeConsensus):
    """Writes go on while it is stuck; nobody leaves."""

    is_stuck = False

    async def remove_member(self, raft_id: str) -> None:
        if self.is_stuck:
            raise Unavailable("no majority would be left")
        await super().remove_member(raft_id)


class Group:
    """A leader and the manager m2, in a store."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.store = Store()
        self.consensus = Consensus(self.store)
        self.writer = Writer(self.consensus, self.store, clock=SYSTEM_CLOCK, entropy=SYSTEM_ENTROPY)

    async def change(self) -> None:
        await change_role(self.stored, consensus=self.consensus, writer=self.writer)

    async def fill(self, *members: Member) -> "Group":
        await self.writer.write([Create(a_cluster(version=0)), Create(replace(self.node, version=0))])
        for member in members:
            await self.consensus.add_member(member)
        return self

    @property
    def stored(self) -> Node:
        node = self.store.view.node(self.node.id)
        assert node is not None
        return node


@pytest.mark.parametrize(
    ("managers", "reachable", "is_allowed"),
    [
        pytest.param(3, {"m1", "m2", "m3"}, True, id="all are there"),
        pytest.param(3, {"m1", "m2"}, True, id="the one to go is the one that is away"),
        pytest.param(3, {"m1", "m3"}, False, id="one of the two that stay is away"),
        pytest.param(5, {"m1", "m2", "m5"}, False, id="of four that stay two are there"),
        pytest.param(5, {"m1", "m2", "m3"}, True, id="of four that stay three are there"),
        pytest.param(1, {"m1"}, False, id="the last one"),
    ],
)
def test_a_demotion_leaves_a_quorum_of_managers_that_can_be_reached(
    managers: int, reachable: set[str], is_allowed: bool
):
    """Swarm mistake 11: counted are those that stay, and of them those that are there."""
    nodes = [a_node(f"m{n}", role=Role.MANAGER) for n in range(1, managers + 1)]
    seen = Snapshot.of(a_cluster(), *nodes, version=1)
    raft_ids = {f"raft-{name}" for name in reachable}
    if is_allowed:
        check_demotion(seen, f"m{managers}", raft_ids)
    else:
        with pytest.raises(FailedPrecondition, match="can't demote"):
            check_demotion(seen, f"m{managers}", raft_ids)


async def test_a_demoted_manager_leaves_the_group_before_its_role_changes():  # swarm mistake 50
    group = await Group(with_wish(a_node("m2", role=Role.MANAGER), Role.WORKER)).fill(OTHER)
    group.consensus.is_stuck = True
    with pytest.raises(Unavailable):
        await group.change()
    # It could not leave the group, so it still is what it was: its certificate must not change yet.
    assert (group.stored.role, OTHER in group.consensus.members()) == (Role.MANAGER, True)
    group.consensus.is_stuck = False
    await group.change()
    assert (group.stored.role, group.consensus.members()) == (Role.WORKER, (FAKE_MEMBER,))
    assert group.stored.manager_status is None


async def test_a_promoted_node_gets_its_role_and_joins_the_group_by_itself():  # swarm mistake 50
    group = await Group(with_wish(a_node("m2"), Role.MANAGER)).fill()
    await group.change()
    assert (group.stored.role, group.consensus.members()) == (Role.MANAGER, (FAKE_MEMBER,))


async def test_a_leader_that_is_demoted_hands_leadership_on_and_keeps_its_role_until_then():
    leader = with_wish(a_node(FAKE_MEMBER.node_id, role=Role.MANAGER), Role.WORKER)
    group = await Group(leader).fill(OTHER)
    await group.change()
    assert group.consensus.leadership.leader == OTHER
    assert group.stored.role is Role.MANAGER


def test_promotions_come_before_demotions():
    demoted = with_wish(a_node("a", role=Role.MANAGER), Role.WORKER)
    promoted = with_wish(a_node("z"), Role.MANAGER)
    assert next_role_change(Snapshot.of(demoted, promoted, version=1)) == promoted
    assert next_role_change(Snapshot.of(a_node("a"), version=1)) is None
