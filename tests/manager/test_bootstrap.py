"""`pyswarm init` makes a root, a cluster and a first manager, whole and for their owner's eyes only."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from lib.builders import FakeClock

from pyswarm.manager.bootstrap import bootstrap
from pyswarm.manager.ca.tokens import role_of_token
from pyswarm.manager.initial_objects import initial_objects_file, read_initial_objects
from pyswarm.proto.csr import check_issued
from pyswarm.proto.entropy import SeededEntropy
from pyswarm.proto.errors import FailedPrecondition, InvalidArgument, Locked
from pyswarm.proto.identity import NodeIdentity, identity_of
from pyswarm.proto.model.objects import Cluster, Node, Object
from pyswarm.proto.model.states import Availability, Role
from pyswarm.proto.paths import NodePaths
from pyswarm.proto.rpc.tls import read_certificates
from pyswarm.proto.unlock_key import parse_unlock_key


@pytest.fixture
def paths(tmp_path: Path) -> NodePaths:
    return NodePaths(tmp_path)


def _bootstrap(paths: NodePaths, **options: Any) -> dict[str, Any]:
    return bootstrap(paths, options, FakeClock(1_700_000_000.0), SeededEntropy(1))


def test_what_a_first_manager_needs_is_there_and_fits_together(paths: NodePaths):
    made = _bootstrap(
        paths, advertise_addr="10.0.0.1", availability="drain", cert_expiry_seconds=7200, task_history_limit=0
    )
    root, certificate, key = read_certificates(paths.certificates)
    assert identity_of(certificate) == NodeIdentity(made["node_id"], Role.MANAGER, made["cluster_id"])
    check_issued(certificate.decode(), key_pem=key.decode(), root_pem=root.decode())
    file = paths.manager / "bootstrap.msgpack"
    assert file.stat().st_mode & 0o777 == 0o600
    cluster, node = msgspec.msgpack.decode(file.read_bytes(), type=list[Object])
    assert isinstance(cluster, Cluster)
    assert isinstance(node, Node)
    assert cluster.root_ca.certificate_pem.encode() == root
    assert role_of_token(cluster.root_ca, cluster.root_ca.join_tokens.manager) is Role.MANAGER
    assert (cluster.spec.node_cert_expiry_seconds, cluster.spec.task_history_retention_limit) == (7200, 0)
    assert (node.role, node.spec.role, node.spec.availability) == (Role.MANAGER, Role.MANAGER, Availability.DRAIN)
    assert cluster.root_ca.key_pem.encode() not in b"".join(p.read_bytes() for p in paths.certificates.iterdir())


@pytest.mark.parametrize(
    "options",
    [
        {"cert_expiry_seconds": 60},
        {"heartbeat_seconds": 0.01},
        {"availability": "sometimes"},
        {"task_history_limit": "many"},
        {"cert_expiry_seconds": float("inf")},
    ],
)
def test_options_that_make_no_sense_make_nothing(paths: NodePaths, options: dict[str, Any]):
    with pytest.raises(InvalidArgument):
        _bootstrap(paths, **options)
    assert not paths.state.exists()


def test_a_machine_that_is_a_node_keeps_its_key(paths: NodePaths):
    paths.state.mkdir(parents=True)
    paths.node_file.write_text("{}")
    with pytest.raises(FailedPrecondition, match="a node already"):
        _bootstrap(paths)
    assert not paths.certificates.exists()


def test_a_cluster_that_is_locked_from_the_beginning_has_its_key_nowhere_on_the_disk(paths: NodePaths):
    made = _bootstrap(paths, advertise_addr="10.0.0.1", autolock=True)
    key = parse_unlock_key(made["unlock_key"])
    written = b"".join(file.read_bytes() for file in paths.state.rglob("*") if file.is_file())
    assert key not in written
    assert made["unlock_key"].encode() not in written
    with pytest.raises(Locked):
        read_initial_objects(initial_objects_file(paths), unlock_key=b"w" * 32)
    cluster, _ = read_initial_objects(initial_objects_file(paths), unlock_key=key)
    assert isinstance(cluster, Cluster)
    assert (cluster.spec.autolock, cluster.unlock_key) == (True, key)
    assert cluster.root_ca.key_pem.encode() not in written


def test_without_autolock_there_is_no_unlock_key(paths: NodePaths):
    made = _bootstrap(paths, advertise_addr="10.0.0.1", autolock=False)
    assert "unlock_key" not in made
    cluster, _ = read_initial_objects(initial_objects_file(paths), unlock_key=b"")
    assert isinstance(cluster, Cluster)
    assert (cluster.spec.autolock, cluster.unlock_key) == (False, b"")
