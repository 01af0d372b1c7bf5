"""What an operator's change of the cluster's settings makes of the unlock key."""

import pytest
from lib.builders import a_cluster
from msgspec.structs import replace

from pyswarm.manager.orchestrator.cluster import update_cluster
from pyswarm.manager.store.changes import Update
from pyswarm.proto.errors import FailedPrecondition, OutOfSequence
from pyswarm.proto.model.objects import Cluster
from pyswarm.proto.model.spec import ClusterSpec

KEY, FRESH = b"k" * 32, b"f" * 32


def changed(before: bytes, *, autolock: bool, rotate: bool = False, version: int = 0) -> Cluster:
    cluster = replace(a_cluster(version=4, spec=ClusterSpec(autolock=bool(before))), unlock_key=before)
    plan = update_cluster(cluster, version, ClusterSpec(autolock=autolock), fresh_key=FRESH, rotate_unlock_key=rotate)
    (change,) = plan.changes
    assert isinstance(change, Update)
    assert isinstance(change.object, Cluster)
    assert FRESH not in plan.why.encode()
    return change.object


@pytest.mark.parametrize(
    ("before", "autolock", "rotate", "after"),
    [
        pytest.param(b"", True, False, FRESH, id="turning the lock on makes a key"),
        pytest.param(KEY, True, False, KEY, id="another change keeps it"),
        pytest.param(KEY, True, True, FRESH, id="rotating exchanges it"),
        pytest.param(KEY, False, False, b"", id="turning the lock off forgets it"),
        pytest.param(b"", False, False, b"", id="without a lock there is none"),
    ],
)
def test_the_unlock_key_is_there_while_the_spec_says_so(before: bytes, autolock: bool, rotate: bool, after: bytes):
    made = changed(before, autolock=autolock, rotate=rotate)
    assert (made.spec.autolock, made.unlock_key) == (autolock, after)


@pytest.mark.parametrize(("before", "autolock"), [(b"", False), (KEY, False), (b"", True)])
def test_there_is_nothing_to_rotate_without_a_lock(before: bytes, autolock: bool):
    with pytest.raises(FailedPrecondition, match="autolock is not turned on"):
        changed(before, autolock=autolock, rotate=True)


def test_a_change_of_what_was_changed_meanwhile_is_refused():
    with pytest.raises(OutOfSequence):
        changed(KEY, autolock=False, version=3)
    assert changed(KEY, autolock=False, version=4).unlock_key == b""
