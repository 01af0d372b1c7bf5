"""Make nodes what their spec says: promote and demote, one at a time (pure decision, small edge).

The order matters (swarm mistake 50). Promotion: the stored role first, then the certificate (the node renews it
when it is told), then the node joins the consensus group by itself. Demotion: out of the group first, then the role,
then the certificate. A leader that is to be demoted hands leadership on and leaves the rest to its successor.
"""

from collections.abc import Collection

from msgspec.structs import replace

from pyswarm.manager.raft.port import Consensus
from pyswarm.manager.store.changes import Plan, Update
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.manager.store.writer import Writer
from pyswarm.proto.errors import FailedPrecondition
from pyswarm.proto.log import get_logger
from pyswarm.proto.model.objects import Node
from pyswarm.proto.model.states import Role

log = get_logger(__name__)


def check_demotion(seen: Snapshot, node_id: str, reachable: Collection[str]) -> None:
    """Raise FailedPrecondition when the managers that stay could not form a quorum of reachable members.

    `reachable` are raft ids; counted are the members left after the removal (swarm mistake 11).
    """
    managers = [n for n in seen.nodes() if n.manager_status is not None and n.spec.role is Role.MANAGER]
    rest = [n for n in managers if n.id != node_id]
    if not rest:
        raise FailedPrecondition(
            "can't demote the last manager of the cluster",
            remedy="Promote another node first: `pyswarm node promote NODE`.",
        )
    alive = sum(1 for n in rest if n.manager_status is not None and n.manager_status.raft_id in reachable)
    if alive < len(rest) // 2 + 1:
        raise FailedPrecondition(
            f"can't demote this manager: only {alive} of the {len(rest)} that stay are reachable, which is no quorum",
            remedy="Bring the unreachable managers back, or demote those first.",
        )


def next_role_change(seen: Snapshot) -> Node | None:
    """Return a node whose role is not what its spec says; promotions first, so that demotions find a quorum."""
    differing = [n for n in seen.nodes() if n.spec.role is not Role.UNSET and n.spec.role is not n.role]
    return min(differing, key=lambda n: (n.spec.role is not Role.MANAGER, n.id), default=None)


async def change_role(node: Node, *, consensus: Consensus, writer: Writer) -> None:
    """Take the step that this node's role change needs now. Raises SwarmError when it must be tried again."""
    if node.spec.role is Role.MANAGER:
        await writer.update(lambda seen: _with_role(seen, node.id, Role.MANAGER))
        log.info("node promoted", node=node.id)
        return
    member = next((m for m in consensus.members() if m.node_id == node.id), None)
    if member is not None and member.raft_id == consensus.self_member.raft_id:
        await consensus.transfer_leadership()
        return
    if member is not None:
        await consensus.remove_member(member.raft_id)
    await writer.update(lambda seen: _with_role(seen, node.id, Role.WORKER))
    log.info("node demoted", node=node.id)


def _with_role(seen: Snapshot, node_id: str, role: Role) -> Plan:
    node = seen.node(node_id)
    if node is None or node.role is role:
        return Plan()
    status = node.manager_status if role is Role.MANAGER else None
    return Plan((Update(replace(node, role=role, manager_status=status)),), why=f"its spec says {role.name.lower()}")
