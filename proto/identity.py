"""Who a certificate says its holder is: node id (CN), role (OU), cluster id (O) of the subject. Pure, given bytes."""

from functools import lru_cache

from cryptography import x509
from cryptography.x509.oid import NameOID
from msgspec import Struct

from pyswarm.proto.errors import PermissionDenied
from pyswarm.proto.model.states import Role
from pyswarm.proto.roles import OU_OF_ROLE

_ROLE_OF_OU = {ou: role for role, ou in OU_OF_ROLE.items()}


class NodeIdentity(Struct, frozen=True):
    node_id: str
    role: Role
    cluster_id: str


def subject(identity: NodeIdentity) -> x509.Name:
    """Return the certificate subject that carries an identity."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, identity.cluster_id),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, OU_OF_ROLE[identity.role]),
            x509.NameAttribute(NameOID.COMMON_NAME, identity.node_id),
        ]
    )


@lru_cache(maxsize=8192)
def identity_of(certificate_pem: bytes) -> NodeIdentity:
    """Return the identity in a certificate whose chain was verified already. Raises PermissionDenied for others."""
    return identity_of_subject(x509.load_pem_x509_certificate(certificate_pem).subject)


@lru_cache(maxsize=8192)
def expiry_of(certificate_pem: bytes) -> float:
    """Return when a certificate ends, in seconds since the epoch."""
    return x509.load_pem_x509_certificate(certificate_pem).not_valid_after_utc.timestamp()


def identity_of_subject(name: x509.Name) -> NodeIdentity:
    """Return the identity in a subject. Raises PermissionDenied when it is not a node's."""
    values = {attribute.oid: str(attribute.value) for attribute in name}
    role = _ROLE_OF_OU.get(values.get(NameOID.ORGANIZATIONAL_UNIT_NAME, ""))
    node_id, cluster_id = values.get(NameOID.COMMON_NAME), values.get(NameOID.ORGANIZATION_NAME)
    if role is None or not node_id or not cluster_id:
        raise PermissionDenied(f"the certificate of {name.rfc4514_string()} is not a node's")
    return NodeIdentity(node_id, role, cluster_id)
