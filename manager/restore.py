"""Make a one-manager cluster out of a backup, on a machine that belongs to no cluster.

    echo '{"file": "…", "key": "PYSWARM-BACKUP-1-…", "raft_id": "…", "advertise_addr": "10.0.0.1"}' \\
        | python -m pyswarm.manager.restore --root ROOT

A one-shot that pyswarmd runs for `pyswarm restore`. Cluster id, certificate authority, join tokens, services, secrets,
configs and the workers' nodes are those of the backup; this machine is a new node, and the only manager.
"""

from pathlib import Path
from typing import Any

from cryptography import x509

from pyswarm.manager.ca.issue import issue
from pyswarm.manager.ca.root import certificate_to_pem
from pyswarm.manager.raft.port import Member
from pyswarm.manager.raft.recovery import plant
from pyswarm.manager.recover import exchange_state, make_only_manager, write_entry
from pyswarm.manager.sealing.keys import Kek, open_key_file
from pyswarm.manager.store.changes import Create
from pyswarm.manager.store.pieces import SnapshotDamaged
from pyswarm.manager.store.store import Store
from pyswarm.proto import one_shot
from pyswarm.proto.backup_file import BackupReader, BackupUnreadable, parse_key
from pyswarm.proto.certificate_files import write_certificates
from pyswarm.proto.clock import SYSTEM_CLOCK, Clock
from pyswarm.proto.csr import make_csr
from pyswarm.proto.entropy import SYSTEM_ENTROPY, Entropy
from pyswarm.proto.errors import FailedPrecondition
from pyswarm.proto.identity import NodeIdentity
from pyswarm.proto.model.objects import Cluster, Node, NodeStatus
from pyswarm.proto.model.spec import NodeSpec
from pyswarm.proto.model.states import Role
from pyswarm.proto.paths import API_PORT, RAFT_PORT, NodePaths
from pyswarm.proto.unlock_key import format_unlock_key

FIRST_TERM = 1


def restore(paths: NodePaths, options: dict[str, Any], clock: Clock, entropy: Entropy) -> dict[str, Any]:
    """Write certificates and state of the restored cluster's first manager, and return its ids.

    A cluster that was autolocked is so again, under the same unlock key: the answer has it, for pyswarmd.

    Raises FailedPrecondition on a machine that is a node already, BackupUnreadable.
    """
    if paths.node_file.exists():
        raise FailedPrecondition("this machine is a node already", remedy="Leave its cluster first: `pyswarm leave`.")
    store, version = _read(Path(options["file"]), parse_key(str(options["key"])))
    cluster = store.view.cluster
    if cluster is None:
        raise BackupUnreadable(f"{options['file']} holds no cluster")
    identity = NodeIdentity(entropy.new_id(), Role.MANAGER, cluster.id)
    address = str(options["advertise_addr"])
    member = Member(str(options["raft_id"]), identity.node_id, f"{address}:{RAFT_PORT}", f"{address}:{API_PORT}")
    node = Node(
        id=identity.node_id, spec=NodeSpec(role=Role.MANAGER), role=Role.MANAGER, status=NodeStatus(addr=address)
    )
    write_entry(store, (Create(node),), index=version + 1, entropy=entropy)
    removed = make_only_manager(store, member, index=version + 2, clock=clock, entropy=entropy)
    _certify(paths, cluster, identity, clock)
    kek = _kek_of(store)
    sealer = open_key_file(paths.manager / "sealing", first_kek=kek).sealer
    exchange_state(
        paths.manager / "raft",
        lambda new: plant(
            new, sealer=sealer, member=member, machine=store, index=version + 2, term=FIRST_TERM, entropy=entropy
        ),
    )
    return {
        "unlock_key": format_unlock_key(kek.key) if kek.key else "",
        "node_id": identity.node_id,
        "cluster_id": cluster.id,
        "raft_id": member.raft_id,
        "removed": removed,
        "services": store.view.count("service"),
        "nodes": store.view.count("node"),
    }


def _kek_of(store: Store) -> Kek:
    """Return what the restored cluster object, as it is now, says."""
    cluster = store.view.cluster
    assert cluster is not None, "it was looked for when the backup was read"
    return Kek(cluster.unlock_key, cluster.version)


def _read(file: Path, key: bytes) -> tuple[Store, int]:
    store = Store()
    with BackupReader(file, key) as backup:
        version = backup.facts.version
        try:
            store.restore(version, backup.pieces())
        except SnapshotDamaged as error:
            raise BackupUnreadable(f"{file} opens, but what it holds is damaged: {error.message}") from error
    return store, version


def _certify(paths: NodePaths, cluster: Cluster, identity: NodeIdentity, clock: Clock) -> None:
    key, csr = make_csr()
    certificate = issue(
        cluster.root_ca,
        csr,
        identity,
        now=clock.now(),
        expiry_seconds=cluster.spec.node_cert_expiry_seconds,
        serial=x509.random_serial_number(),
    )
    write_certificates(
        paths.certificates,
        root_pem=cluster.root_ca.certificate_pem,
        certificate_pem=certificate_to_pem(certificate),
        key_pem=key,
    )
    paths.manager.mkdir(parents=True, exist_ok=True, mode=0o700)


def main() -> None:
    """Entry point: JSON options on standard input, JSON answer on standard output."""
    one_shot.run(
        lambda paths, options: restore(paths, options, SYSTEM_CLOCK, SYSTEM_ENTROPY),
        description="make a one-manager cluster of a backup",
    )


if __name__ == "__main__":
    main()
