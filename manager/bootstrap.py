"""Make a new cluster: root CA, join tokens, and the first manager's identity.

    echo '{"advertise_addr": "10.0.0.1"}' | python -m pyswarm.manager.bootstrap --root ROOT

A one-shot that pyswarmd runs for `pyswarm init` (docs/reference/seams.md). Writes `certificates/` and
`manager/bootstrap.msgpack`, the objects that the manager proposes as its first entry; prints one JSON object. With
`autolock` that has the unlock key, which is nowhere on the disk: pyswarmd hands it to the manager.
"""

import math
from typing import Any

from cryptography import x509

from pyswarm.manager.ca.issue import issue
from pyswarm.manager.ca.root import certificate_to_pem, key_to_pem, new_key, self_signed_root
from pyswarm.manager.ca.tokens import first_tokens
from pyswarm.manager.initial_objects import initial_objects_file, write_initial_objects
from pyswarm.proto import one_shot
from pyswarm.proto.certificate_files import write_certificates
from pyswarm.proto.clock import SYSTEM_CLOCK, Clock
from pyswarm.proto.csr import make_csr
from pyswarm.proto.entropy import SYSTEM_ENTROPY, Entropy
from pyswarm.proto.errors import FailedPrecondition, InvalidArgument
from pyswarm.proto.identity import NodeIdentity
from pyswarm.proto.join_token import root_digest
from pyswarm.proto.model.objects import Cluster, Node, NodeStatus, Object, RootCA
from pyswarm.proto.model.spec import ClusterSpec, NodeSpec
from pyswarm.proto.model.states import Availability, Role
from pyswarm.proto.paths import NodePaths
from pyswarm.proto.unlock_key import UNLOCK_KEY_BYTES, format_unlock_key

MIN_CERT_EXPIRY_SECONDS = 3600.0


def bootstrap(paths: NodePaths, options: dict[str, Any], clock: Clock, entropy: Entropy) -> dict[str, Any]:
    """Make everything of a new cluster on disk and return its ids.

    Raises InvalidArgument, and FailedPrecondition on a machine that is a node already: its key must not be lost.
    """
    if paths.node_file.exists():
        raise FailedPrecondition("this machine is a node already", remedy="Leave its cluster first: `pyswarm leave`.")
    spec = _cluster_spec(options)
    availability = _availability(options)
    now = clock.now()
    root_key = new_key()
    root = self_signed_root(root_key, now=now, serial=x509.random_serial_number())
    root_pem = certificate_to_pem(root)
    root_ca = RootCA(
        certificate_pem=root_pem,
        key_pem=key_to_pem(root_key),
        digest=root_digest(root_pem),
        join_tokens=first_tokens(root_pem, worker_secret=entropy.bytes(16), manager_secret=entropy.bytes(16)),
    )
    identity = NodeIdentity(entropy.new_id(), Role.MANAGER, entropy.new_id())
    key, csr = make_csr()
    certificate = issue(
        root_ca,
        csr,
        identity,
        now=now,
        expiry_seconds=spec.node_cert_expiry_seconds,
        serial=x509.random_serial_number(),
    )
    unlock_key = entropy.bytes(UNLOCK_KEY_BYTES) if spec.autolock else b""
    objects: list[Object] = [
        Cluster(id=identity.cluster_id, spec=spec, root_ca=root_ca, unlock_key=unlock_key),
        Node(
            id=identity.node_id,
            spec=NodeSpec(role=Role.MANAGER, availability=availability),
            role=Role.MANAGER,
            status=NodeStatus(addr=str(options.get("advertise_addr", ""))),
        ),
    ]
    write_certificates(
        paths.certificates, root_pem=root_pem, certificate_pem=certificate_to_pem(certificate), key_pem=key
    )
    write_initial_objects(initial_objects_file(paths), objects, unlock_key=unlock_key, entropy=entropy)
    made = {"node_id": identity.node_id, "cluster_id": identity.cluster_id}
    return {**made, "unlock_key": format_unlock_key(unlock_key)} if unlock_key else made


def _availability(options: dict[str, Any]) -> Availability:
    name = str(options.get("availability") or "active").upper()
    if name not in ("ACTIVE", "PAUSE", "DRAIN"):
        raise InvalidArgument(f"no such availability: {name.lower()}", remedy="Use active, pause or drain.")
    return Availability[name]


def _cluster_spec(options: dict[str, Any]) -> ClusterSpec:
    default = ClusterSpec()
    expiry = _number(options, "cert_expiry_seconds", default.node_cert_expiry_seconds)
    if expiry < MIN_CERT_EXPIRY_SECONDS:
        raise InvalidArgument(f"certificates of {expiry:g} s are too short", remedy="Use an expiry of at least 1h.")
    heartbeat = _number(options, "heartbeat_seconds", default.heartbeat_period_seconds)
    if heartbeat < 0.1:
        raise InvalidArgument(f"a heartbeat of {heartbeat:g} s is too short", remedy="Use at least 100ms.")
    return ClusterSpec(
        task_history_retention_limit=int(
            _number(options, "task_history_limit", float(default.task_history_retention_limit))
        ),
        heartbeat_period_seconds=heartbeat,
        node_cert_expiry_seconds=expiry,
        autolock=options.get("autolock") is True,
    )


def _number(options: dict[str, Any], name: str, default: float) -> float:
    value = options.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidArgument(f"{name} is not a number: {value!r}")
    return float(value)


def main() -> None:
    """Entry point: JSON options on standard input, JSON answer on standard output."""
    one_shot.run(
        lambda paths, options: bootstrap(paths, options, SYSTEM_CLOCK, SYSTEM_ENTROPY),
        description="make a new cluster's root and first node",
    )


if __name__ == "__main__":
    main()
