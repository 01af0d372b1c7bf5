"""A cluster's real CA, for tests: certificates as the product issues them, valid when a test wants them to be."""

import time
from pathlib import Path

from cryptography import x509

from pyswarm.manager.ca.issue import issue
from pyswarm.manager.ca.root import certificate_to_pem, key_to_pem, new_key, self_signed_root
from pyswarm.manager.ca.tokens import first_tokens
from pyswarm.proto.certificate_files import write_certificates
from pyswarm.proto.csr import make_csr
from pyswarm.proto.identity import NodeIdentity
from pyswarm.proto.join_token import root_digest
from pyswarm.proto.model.objects import RootCA
from pyswarm.proto.model.states import Role

DAY = 24 * 3600.0


class ClusterCA:
    def __init__(self, cluster_id: str = "ours", *, now: float | None = None) -> None:
        self.cluster_id = cluster_id
        self.now = time.time() if now is None else now
        key = new_key()
        pem = certificate_to_pem(self_signed_root(key, now=self.now - DAY, serial=x509.random_serial_number()))
        self.root = RootCA(
            certificate_pem=pem,
            key_pem=key_to_pem(key),
            digest=root_digest(pem),
            join_tokens=first_tokens(pem, worker_secret=b"w" * 16, manager_secret=b"m" * 16),
        )

    def sign(
        self,
        csr_pem: str,
        node_id: str,
        role: Role = Role.WORKER,
        *,
        cluster_id: str = "",
        issued_at: float | None = None,
        expiry_seconds: float = DAY,
    ) -> str:
        certificate = issue(
            self.root,
            csr_pem,
            NodeIdentity(node_id, role, cluster_id or self.cluster_id),
            now=self.now if issued_at is None else issued_at,
            expiry_seconds=expiry_seconds,
            serial=x509.random_serial_number(),
        )
        return certificate_to_pem(certificate)

    def issue(
        self,
        directory: Path,
        node_id: str,
        role: Role = Role.WORKER,
        *,
        cluster_id: str = "",
        issued_at: float | None = None,
        expiry_seconds: float = DAY,
    ) -> Path:
        """Write a node's certificate directory and return it."""
        key, csr = make_csr()
        pem = self.sign(csr, node_id, role, cluster_id=cluster_id, issued_at=issued_at, expiry_seconds=expiry_seconds)
        write_certificates(directory, root_pem=self.root.certificate_pem, certificate_pem=pem, key_pem=key)
        return directory
