"""Make a node's key, the request to have it signed, and judge what came back. The private key never leaves the node."""

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pyswarm.proto.errors import Internal


def make_csr() -> tuple[str, str]:
    """Return (private key, certificate request) as PEM. The request's names are empty: the CA sets them."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return key_pem.decode(), request.public_bytes(serialization.Encoding.PEM).decode()


def check_issued(certificate_pem: str, *, key_pem: str, root_pem: str) -> None:
    """Raise Internal unless the certificate is for this key and signed by one of the roots.

    A node that put anything else in place would lock itself out of its cluster.
    """
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
        roots = x509.load_pem_x509_certificates(root_pem.encode())
        key = serialization.load_pem_private_key(key_pem.encode(), password=None)
    except ValueError as error:
        raise Internal(f"the manager issued something that is not a certificate: {error}") from error
    if certificate.public_key() != key.public_key():
        raise Internal("the manager issued a certificate for another key than the one it was asked to certify")
    if not any(_is_signed_by(certificate, root) for root in roots):
        raise Internal("the manager issued a certificate that its own root has not signed")


def _is_signed_by(certificate: x509.Certificate, root: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(root)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
