"""Join tokens: `SWMTKN-1-<digest>-<secret>` (pure; format of SwarmKit ca/config.go).

The digest is the SHA-256 of the root certificate as served, in 50 base-36 characters: it pins the first, otherwise
unauthenticated download. The secret is 16 random bytes in 25 base-36 characters: it proves the right to join in one
role.
"""

import hashlib
import hmac
import re

from msgspec import Struct

from pyswarm.proto.entropy import encode_base36
from pyswarm.proto.errors import JoinTokenInvalid

DIGEST_LENGTH = 50
SECRET_LENGTH = 25
_FORM = re.compile(r"SWMTKN-1-([0-9a-z]{50})-([0-9a-z]{25})")


class JoinToken(Struct, frozen=True):
    digest: str
    secret: str

    def __str__(self) -> str:
        return f"SWMTKN-1-{self.digest}-{self.secret}"

    def __repr__(self) -> str:
        # The secret must not reach a log by way of a debugging line.
        return f"JoinToken(digest={self.digest!r}, secret=…)"


def root_digest(root_pem: str) -> str:
    """Return the digest of a root certificate's PEM text, surrounding white space aside."""
    number = int.from_bytes(hashlib.sha256(root_pem.strip().encode()).digest(), "big")
    return encode_base36(number, DIGEST_LENGTH)


def make_join_token(root_pem: str, secret: bytes) -> str:
    """Return the token for a root certificate and 16 random bytes."""
    if len(secret) != 16:
        raise ValueError(f"a token's secret has 16 bytes, not {len(secret)}")
    return str(JoinToken(root_digest(root_pem), encode_base36(int.from_bytes(secret, "big"), SECRET_LENGTH)))


def parse_join_token(text: str) -> JoinToken:
    """Return the parts of a token. Raises JoinTokenInvalid saying what is wrong with it, without repeating it."""
    found = _FORM.fullmatch(text.strip())
    if found is not None:
        return JoinToken(found[1], found[2])
    if not text.startswith("SWMTKN-"):
        raise JoinTokenInvalid("this is not a join token: it does not begin with SWMTKN-")
    if not text.startswith("SWMTKN-1-"):
        raise JoinTokenInvalid("the join token is of a version this build does not know")
    raise JoinTokenInvalid("the join token is damaged: it was probably not copied whole")


def same_token(one: str, other: str) -> bool:
    """Compare without telling by its time where they differ."""
    return hmac.compare_digest(one.encode(), other.encode())
