"""Issue node certificates. The request contributes its public key; every name comes from the CA's own record."""

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from pyswarm.manager.ca.root import BACKDATE_SECONDS, ROOT_NAME, key_from_pem, leaf_usage, moment
from pyswarm.proto.errors import FailedPrecondition, InvalidArgument
from pyswarm.proto.identity import NodeIdentity, subject
from pyswarm.proto.model.objects import RootCA
from pyswarm.proto.model.states import Role
from pyswarm.proto.roles import OU_OF_ROLE


def issue(
    root: RootCA, csr_pem: str, identity: NodeIdentity, *, now: float, expiry_seconds: float, serial: int
) -> x509.Certificate:
    """Return a certificate for the key in `csr_pem`, valid from an hour before `now` for `expiry_seconds` more.

    Raises InvalidArgument for a request that is malformed, whose signature is wrong or whose key is not P-256.
    """
    root_certificate = x509.load_pem_x509_certificate(root.certificate_pem.encode())
    root_key = key_from_pem(root.key_pem)
    names = [identity.node_id, OU_OF_ROLE[identity.role]]
    if identity.role is Role.MANAGER:
        names.append(ROOT_NAME)
    return (
        x509.CertificateBuilder()
        .subject_name(subject(identity))
        .issuer_name(root_certificate.subject)
        .public_key(_public_key(csr_pem))
        .serial_number(serial)
        .not_valid_before(moment(now - BACKDATE_SECONDS))
        .not_valid_after(min(moment(now + expiry_seconds), root_certificate.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(leaf_usage(), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False)
        .sign(root_key, hashes.SHA256())
    )


def _public_key(csr_pem: str) -> ec.EllipticCurvePublicKey:
    try:
        request = x509.load_pem_x509_csr(csr_pem.encode())
        key = request.public_key()
        valid = request.is_signature_valid
    except (ValueError, InvalidSignature, UnsupportedAlgorithm) as error:
        raise InvalidArgument(f"the certificate request is malformed: {error}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidArgument("the certificate request's key is not ECDSA P-256")
    if not valid:
        raise InvalidArgument("the certificate request is not signed with its own key")
    return key


def check_clock(client_time: float, *, now: float, expiry_seconds: float) -> None:
    """Raise FailedPrecondition when a certificate issued at `now` would not be valid by the client's clock."""
    # A time that is not a number is within no bounds.
    if not now - BACKDATE_SECONDS <= client_time <= now + expiry_seconds:
        raise FailedPrecondition(
            f"the joining machine's clock says {_shown(client_time)}, the cluster's {_shown(now)}: "
            "its certificate would not be valid there",
            remedy="Set the clock right (for example with chrony or systemd-timesyncd) and join again.",
        )


def _shown(seconds: float) -> str:
    try:
        return f"{moment(seconds):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):
        # What a stranger sends need not be a moment of any calendar.
        return f"{seconds:g} seconds since 1970"
