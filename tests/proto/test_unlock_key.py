"""The text form of unlock keys: as Docker's, and never repeated by what refuses it."""

import pytest

from pyswarm.proto.errors import InvalidArgument
from pyswarm.proto.unlock_key import format_unlock_key, parse_unlock_key


def test_a_key_reads_as_it_was_written():
    for key in (bytes(range(32)), b"\xff" * 32, b"\0" * 32):
        text = format_unlock_key(key)
        assert text.startswith("SWMKEY-1-")
        assert len(text) == 9 + 43
        assert parse_unlock_key(f" {text}\n") == key


def test_a_key_of_dockers_is_read():
    assert len(parse_unlock_key("SWMKEY-1-fySn8TY4w5lKcWcJPIpKufejh9hxx5KYwx6XZigx3Q4")) == 32


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "does not begin with SWMKEY-"),
        ("SWMTKN-1-abc", "does not begin with SWMKEY-"),
        ("SWMKEY-2-abc", "a version this build does not know"),
        ("SWMKEY-1-", "not copied whole"),
        ("SWMKEY-1-fySn8TY4w5lKcWcJPIpKufejh9hxx5KYwx6XZigx3Q", "not copied whole"),
        ("SWMKEY-1-fySn8TY4w5lKcWcJPIpKufejh9hxx5KYwx6XZigx3Q4A", "not copied whole"),
        ("SWMKEY-1-fySn8TY4w5lKcWc PIpKufejh9hxx5KYwx6XZigx3Q4", "not copied whole"),
        ("SWMKEY-1-fySn8TY4w5lKcWcJPIpKufejh9hxx5KYwx6XZigx3Qé", "not copied whole"),
    ],
)
def test_what_is_no_key_is_refused_without_being_repeated(text: str, message: str):
    with pytest.raises(InvalidArgument, match=message) as refused:
        parse_unlock_key(text)
    assert "fySn8TY4" not in str(refused.value)
    assert refused.value.remedy
