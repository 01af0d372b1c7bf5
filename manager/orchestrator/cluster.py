"""Decide what an operator's change of the cluster's settings does to the cluster object (pure).

The unlock key is there exactly while the spec says autolock: made when the lock is turned on, and anew on request.
"""

from msgspec.structs import replace

from pyswarm.manager.store.changes import Plan, Update
from pyswarm.proto.errors import FailedPrecondition, OutOfSequence
from pyswarm.proto.model.objects import Cluster
from pyswarm.proto.model.spec import ClusterSpec


def update_cluster(
    cluster: Cluster, version: int, spec: ClusterSpec, *, fresh_key: bytes, rotate_unlock_key: bool
) -> Plan:
    """Return the change to `spec`.

    Args:
        version: that the operator saw, or 0 for whatever it is.
        fresh_key: 32 random bytes, used if an unlock key is needed.

    Raises:
        OutOfSequence: the cluster object was changed since.
        FailedPrecondition: there is no unlock key to rotate.
    """
    if version and cluster.version != version:
        raise OutOfSequence(f"the cluster object is at version {cluster.version}, not {version}")
    if rotate_unlock_key and not (spec.autolock and cluster.unlock_key):
        raise FailedPrecondition(
            "cannot rotate the unlock key because autolock is not turned on",
            remedy="Turn it on with `pyswarm update --autolock`, which makes a key.",
        )
    key = cluster.unlock_key
    if not spec.autolock:
        key = b""
    elif rotate_unlock_key or not key:
        key = fresh_key
    changed = replace(cluster, spec=spec, unlock_key=key)
    return Plan((Update(changed),), why="the operator changed the cluster's settings")
