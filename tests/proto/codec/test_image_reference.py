"""Image references: what people type, and what they are told when it is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyswarm.proto.codec.image_reference import ImageReference, parse_reference
from pyswarm.proto.errors import InvalidReference

SHA = "sha256:" + "a1" * 32


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36"),
        ("grafana/grafana", "docker.io/grafana/grafana:latest"),
        ("docker.io/busybox", "docker.io/library/busybox:latest"),
        ("index.docker.io/a/b", "docker.io/a/b:latest"),
        ("registry.lab:5000/web:1", "registry.lab:5000/web:1"),
        ("localhost/x", "localhost/x:latest"),
        ("10.77.0.1:5000/a/b/c:v1.0-rc_2", "10.77.0.1:5000/a/b/c:v1.0-rc_2"),
        ("[fd00::1]:5000/x", "[fd00::1]:5000/x:latest"),
        ("REGISTRY.lab/x", "registry.lab/x:latest"),
        (f"busybox@{SHA}", f"docker.io/library/busybox@{SHA}"),
        (f"r:1/x:2@{SHA}", f"r:1/x:2@{SHA}"),
    ],
)
def test_a_reference_is_normalised(typed: str, meant: str) -> None:
    assert str(parse_reference(typed)) == meant


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("", "empty"),
        (" busybox", "white space"),
        ("Web", "capital letters"),
        ("https://r/x", "URL"),
        ("web:", "no tag"),
        ("web:-x", "no tag"),
        ("web:" + "x" * 129, "no tag"),
        ("web@sha256:12", "no digest"),
        ("web@", "no digest"),
        ("a//b", "lacks a name"),
        ("docker.io/", "lacks a name"),
        ("r:70000/x", "no registry host"),
        ("-r.lab/x", "no registry host"),
        ("a/b-", "no repository name"),
        ("a:b:c", "no repository name"),
        ("a" * 64, "image id"),
        ("r.lab/" + "a" * 300, "more than 255"),
    ],
)
def test_what_is_wrong_is_said(typed: str, told: str) -> None:
    with pytest.raises(InvalidReference, match=told) as raised:
        parse_reference(typed)
    assert raised.value.remedy


@given(st.text(max_size=60))
def test_any_text_is_a_reference_or_invalid_and_a_normal_form_is_stable(text: str) -> None:
    try:
        reference = parse_reference(text)
    except InvalidReference:
        return
    assert parse_reference(str(reference)) == reference
    assert parse_reference(reference.familiar) == reference


def test_the_familiar_form_leaves_out_what_is_implied() -> None:
    assert parse_reference("busybox:1").familiar == "busybox:1"
    assert parse_reference("a/b").familiar == "a/b:latest"
    assert parse_reference("library/x/y").familiar == "library/x/y:latest"
    assert ImageReference("r:1", "x", "2").familiar == "r:1/x:2"
