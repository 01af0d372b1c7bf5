"""Make and rotate the cluster's join tokens (pure, given the random bytes)."""

from msgspec.structs import replace

from pyswarm.proto.errors import JoinTokenInvalid
from pyswarm.proto.join_token import make_join_token, parse_join_token, root_digest, same_token
from pyswarm.proto.model.objects import JoinTokens, RootCA
from pyswarm.proto.model.states import Role


def first_tokens(root_pem: str, *, worker_secret: bytes, manager_secret: bytes) -> JoinTokens:
    return JoinTokens(make_join_token(root_pem, worker_secret), make_join_token(root_pem, manager_secret))


def rotate_join_token(root_ca: RootCA, role: Role, secret: bytes) -> RootCA:
    """Return the root CA with a new token for one role; nodes that joined already are not affected."""
    fresh = make_join_token(root_ca.certificate_pem, secret)
    tokens = root_ca.join_tokens
    changed = replace(tokens, manager=fresh) if role is Role.MANAGER else replace(tokens, worker=fresh)
    return replace(root_ca, join_tokens=changed)


def role_of_token(root_ca: RootCA, text: str) -> Role:
    """Return the role a token gives. Raises JoinTokenInvalid: malformed, of another cluster, or rotated."""
    token = parse_join_token(text)
    if not same_token(token.digest, root_digest(root_ca.certificate_pem)):
        raise JoinTokenInvalid("the join token belongs to another cluster")
    for role, valid in ((Role.WORKER, root_ca.join_tokens.worker), (Role.MANAGER, root_ca.join_tokens.manager)):
        if same_token(str(token), valid):
            return role
    raise JoinTokenInvalid("the join token is not valid: it was rotated, or never was this cluster's")
