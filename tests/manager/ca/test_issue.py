"""What a certificate says comes from the CA's record; the request contributes its public key and nothing else."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from lib.cluster_ca import DAY, ClusterCA

from pyswarm.manager.ca.issue import check_clock
from pyswarm.manager.ca.tokens import role_of_token, rotate_join_token
from pyswarm.proto.csr import check_issued, make_csr
from pyswarm.proto.errors import FailedPrecondition, Internal, InvalidArgument, JoinTokenInvalid
from pyswarm.proto.identity import NodeIdentity, identity_of
from pyswarm.proto.model.states import Role

NOW = 1_700_000_000.0


@pytest.fixture
def ca() -> ClusterCA:
    return ClusterCA(now=NOW)


def _request(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, common_name: str = "me") -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return csr.public_bytes(serialization.Encoding.PEM).decode()


@pytest.mark.parametrize("role", [Role.WORKER, Role.MANAGER])
def test_the_names_in_a_request_are_ignored(ca: ClusterCA, role: Role):
    key = ec.generate_private_key(ec.SECP256R1())
    pem = ca.sign(_request(key, "swarm-manager"), "n1", role)
    assert identity_of(pem.encode()) == NodeIdentity("n1", role, "ours")
    certificate = x509.load_pem_x509_certificate(pem.encode())
    assert certificate.public_key() == key.public_key()
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    expected = ["n1", "swarm-worker"] if role is Role.WORKER else ["n1", "swarm-manager", "swarm-ca"]
    assert names.get_values_for_type(x509.DNSName) == expected
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_a_certificate_begins_an_hour_early_and_never_outlives_the_root(ca: ClusterCA):
    _, csr = make_csr()
    certificate = x509.load_pem_x509_certificate(ca.sign(csr, "n1", expiry_seconds=2 * DAY).encode())
    assert certificate.not_valid_before_utc.timestamp() == NOW - 3600
    assert certificate.not_valid_after_utc.timestamp() == NOW + 2 * DAY
    root = x509.load_pem_x509_certificate(ca.root.certificate_pem.encode())
    long = x509.load_pem_x509_certificate(ca.sign(csr, "n1", expiry_seconds=50 * 365 * DAY).encode())
    assert long.not_valid_after_utc == root.not_valid_after_utc


@pytest.mark.parametrize(
    "csr", ["", "nonsense", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----"]
)
def test_a_malformed_request_is_refused(ca: ClusterCA, csr: str):
    with pytest.raises(InvalidArgument, match="malformed"):
        ca.sign(csr, "n1")


def test_only_p256_keys_are_certified(ca: ClusterCA):
    # RSA in particular: a server with an RSA certificate could be talked into TLS 1.2.
    for key in (rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())):
        with pytest.raises(InvalidArgument, match="not ECDSA P-256"):
            ca.sign(_request(key), "n1")


def test_a_node_refuses_a_certificate_for_another_key_or_of_another_root(ca: ClusterCA):
    key, csr = make_csr()
    pem = ca.sign(csr, "n1")
    check_issued(pem, key_pem=key, root_pem=ca.root.certificate_pem)
    with pytest.raises(Internal, match="another key"):
        check_issued(pem, key_pem=make_csr()[0], root_pem=ca.root.certificate_pem)
    with pytest.raises(Internal, match="own root"):
        check_issued(pem, key_pem=key, root_pem=ClusterCA(now=NOW).root.certificate_pem)
    with pytest.raises(Internal, match="not a certificate"):
        check_issued("nonsense", key_pem=key, root_pem=ca.root.certificate_pem)


@pytest.mark.parametrize("offset", [-3600, 0, DAY], ids=["an hour behind", "right", "a day ahead"])
def test_a_clock_within_the_certificates_validity_is_accepted(offset: float):
    check_clock(NOW + offset, now=NOW, expiry_seconds=DAY)


@pytest.mark.parametrize("client", [NOW - 3601, NOW + DAY + 1, 0.0, float("nan"), float("inf"), -1e300])
def test_a_clock_outside_it_is_refused_with_both_times(client: float):
    with pytest.raises(FailedPrecondition, match="2023-11-14 22:13:20 UTC") as refused:
        check_clock(client, now=NOW, expiry_seconds=DAY)
    assert "chrony" in refused.value.remedy


def test_a_token_gives_its_role_until_it_is_rotated(ca: ClusterCA):
    tokens = ca.root.join_tokens
    assert role_of_token(ca.root, tokens.worker) is Role.WORKER
    assert role_of_token(ca.root, tokens.manager) is Role.MANAGER
    rotated = rotate_join_token(ca.root, Role.WORKER, b"n" * 16)
    with pytest.raises(JoinTokenInvalid, match="rotated"):
        role_of_token(rotated, tokens.worker)
    assert role_of_token(rotated, rotated.join_tokens.worker) is Role.WORKER
    assert role_of_token(rotated, tokens.manager) is Role.MANAGER


def test_a_token_of_another_cluster_is_told_from_a_rotated_one(ca: ClusterCA):
    with pytest.raises(JoinTokenInvalid, match="another cluster"):
        role_of_token(ca.root, ClusterCA(now=NOW).root.join_tokens.worker)
