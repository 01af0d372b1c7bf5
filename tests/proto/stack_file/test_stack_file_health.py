"""Checks and hooks in a stack file."""

from typing import Any

import pytest

from pyswarm.proto.codec.stack_file import parse_stack
from pyswarm.proto.errors import InvalidArgument, InvalidStackFile
from pyswarm.proto.model.spec import ContainerSpec, HealthConfig


def web(*lines: str) -> ContainerSpec:
    text = "services:\n  web:\n    image: web:1\n" + "".join(f"    {line}\n" for line in lines)
    (spec,) = parse_stack([("shop.yaml", text)], stack="shop", environment={}).services
    return spec.task_template.container_spec


@pytest.mark.parametrize(
    ("written", "test"),
    [
        ("test: curl -f localhost || exit 1", ("CMD-SHELL", "curl -f localhost || exit 1")),
        ('test: ["CMD", "curl", "-f", "localhost"]', ("CMD", "curl", "-f", "localhost")),
        ('test: ["NONE"]', ("NONE",)),
        ("disable: true", ("NONE",)),
        ('test: ["HTTP", "8080/healthz"]', ("HTTP", "8080/healthz")),
        ('test: ["TCP", "5432"]', ("TCP", "5432")),
    ],
)
def test_a_test_is_read_in_every_spelling(written: str, test: Any):
    assert web("healthcheck:", f"  {written}").healthcheck.test == test


def test_a_check_is_read_with_all_its_keys():
    keys = ("  test: ok", "  interval: 1m30s", "  timeout: 10s", "  retries: 3", "  start_period: 40s")
    expected = HealthConfig(("CMD-SHELL", "ok"), 90.0, 10.0, 3, 40.0, 5.0)
    assert web("healthcheck:", *keys, "  start_interval: 5s").healthcheck == expected
    assert web("readiness:", *keys, "  start_interval: 5s").readiness == expected


@pytest.mark.parametrize(
    ("written", "command"),
    [
        ("nginx -s quit; sleep 1", ("/bin/sh", "-c", "nginx -s quit; sleep 1")),
        ('["flush", "--all"]', ("flush", "--all")),
    ],
)
def test_a_hook_and_a_delay_before_the_stop_are_read(written: str, command: tuple[str, ...]):
    container = web("pre_stop:", f"  - command: {written}", "drain_delay: 2s")
    assert (container.pre_stop, container.drain_delay_seconds) == (command, 2.0)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            ("healthcheck:", "  test: [curl, localhost]"),
            "must be a line, or a list that begins with",
        ),
        (("healthcheck:", "  test: ok", "  disable: true"), "disabled and set up at once"),
        (("healthcheck:", "  tset: ok"), r"unknown key services\.web\.healthcheck\.tset"),
        (("pre_stop:", "  - command: a", "  - command: b"), "must be a list of one hook"),
        (("pre_stop:", "  - command: a", "    user: root"), r"pre_stop\.user is not supported"),
        (("healthcheck:", '  test: ["TCP", "http"]'), "probes 'http'"),
    ],
)
def test_what_cannot_be_is_refused(lines: tuple[str, ...], said: str):
    with pytest.raises((InvalidStackFile, InvalidArgument), match=said):
        web(*lines)


def test_a_later_file_replaces_a_test_as_a_whole():
    first = "services:\n  web:\n    image: web:1\n    healthcheck: {test: [CMD, a, b], retries: 5}\n"
    second = "services:\n  web:\n    healthcheck: {test: [CMD, c]}\n"
    (spec,) = parse_stack([("a.yaml", first), ("b.yaml", second)], stack="shop", environment={}).services
    assert spec.task_template.container_spec.healthcheck == HealthConfig(("CMD", "c"), retries=5)
