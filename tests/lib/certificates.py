"""A throw-away cluster root and node certificates, for tests that speak real TLS."""

import datetime
import ipaddress
import ssl
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pyswarm.proto.identity import NodeIdentity, subject
from pyswarm.proto.model.states import Role

DAY = datetime.timedelta(days=1)


class CertificateMaker:
    """One root; `issue` writes a node's directory as the product keeps it."""

    def __init__(self, cluster_id: str = "cluster-1", *, root_name: str = "") -> None:
        self.cluster_id = cluster_id
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, root_name or f"root of {cluster_id}")])
        self._root = (
            _builder(self._name, self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    def issue(
        self,
        directory: Path,
        node_id: str,
        *,
        role: Role = Role.MANAGER,
        cluster_id: str | None = None,
        addresses: Sequence[str] = (),
    ) -> Path:
        """`addresses` are for foreign software that checks them; ours knows nodes by what they are."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = subject(NodeIdentity(node_id, role, cluster_id or self.cluster_id))
        names: list[x509.GeneralName] = [x509.DNSName(node_id), x509.DNSName("swarm-manager")]
        names += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        certificate = (
            _builder(name, self._name, key.public_key())
            .add_extension(x509.SubjectAlternativeName(names), False)
            .sign(self._key, hashes.SHA256())
        )
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "root-ca.crt").write_bytes(self._root.public_bytes(serialization.Encoding.PEM))
        (directory / "node.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (directory / "node.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return directory


def _builder(name: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + DAY)
    )


def insecure_client_context() -> ssl.SSLContext:
    """A client that trusts anybody and shows no certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
