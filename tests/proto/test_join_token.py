"""Join tokens: their form, what they pin, and what is said of a wrong one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyswarm.proto.errors import JoinTokenInvalid
from pyswarm.proto.join_token import JoinToken, make_join_token, parse_join_token, root_digest, same_token

ROOT = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


@given(st.text(min_size=1, max_size=200), st.binary(min_size=16, max_size=16))
def test_a_token_says_again_what_it_was_made_of(root: str, secret: bytes):
    text = make_join_token(root, secret)
    token = parse_join_token(text)
    assert str(token) == text
    assert token.digest == root_digest(root)
    assert len(token.digest) == 50
    assert len(token.secret) == 25
    assert int(token.secret, 36) == int.from_bytes(secret, "big")


def test_the_digest_covers_the_whole_root_but_not_the_white_space_around_it():
    assert root_digest(ROOT) == root_digest(f"\n{ROOT}  ")
    assert root_digest(ROOT) != root_digest(ROOT.replace("MIIB", "MIIC"))
    assert root_digest(ROOT + ROOT) != root_digest(ROOT)


def test_a_known_token_keeps_its_form():
    token = make_join_token("root", bytes(range(16)))
    assert token == "SWMTKN-1-1so4ucii0bd9x5eo25vxsidhbybz04lgq0rn75oio1sss5vsmq-000avh9he7dy896m08s18udxr"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "does not begin with SWMTKN-"),
        ("hello", "does not begin with SWMTKN-"),
        ("SWMTKN-2-1-" + "a" * 76, "version"),
        (make_join_token(ROOT, b"s" * 16)[:-1], "not copied whole"),
        (make_join_token(ROOT, b"s" * 16) + "x", "not copied whole"),
        (make_join_token(ROOT, b"s" * 16).upper(), "version|not copied whole"),
        ("SWMTKN-1-" + "é" * 50 + "-" + "a" * 25, "not copied whole"),
    ],
)
def test_a_wrong_token_is_refused_with_what_is_wrong_and_without_its_secret(text: str, what: str):
    with pytest.raises(JoinTokenInvalid, match=what) as refused:
        parse_join_token(text)
    assert "join-token" in refused.value.remedy
    assert not text or text[-20:] not in str(refused.value)


def test_white_space_around_a_pasted_token_does_not_matter():
    token = make_join_token(ROOT, b"s" * 16)
    assert str(parse_join_token(f"  {token}\n")) == token


def test_a_tokens_secret_stays_out_of_debugging_lines():
    token = parse_join_token(make_join_token(ROOT, b"s" * 16))
    assert token.secret not in repr(token)
    assert token.secret not in f"{[token]}"


def test_tokens_are_compared_whole():
    token = make_join_token(ROOT, b"s" * 16)
    assert same_token(token, token)
    assert not same_token(token, token[:-1])
    assert not same_token(token, token[:-1] + ("0" if token[-1] != "0" else "1"))


def test_a_secret_of_another_length_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="16 bytes"):
        make_join_token(ROOT, b"short")


def test_a_token_is_a_value():
    assert JoinToken("d", "s") == JoinToken("d", "s")
