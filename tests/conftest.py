"""What holds for every test: root where the kernel is needed, and nothing left behind on the machine."""

import os
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from lib.leaks import census, leaks

import pyswarm.proto  # noqa: F401 - settles gRPC's settings before any test imports gRPC

# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

SETTLE_SECONDS = 10.0
"""The kernel tears namespaces down in the background, so a leak is what is still there after this time."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs root, saying so, unless CI runs: there it must fail instead."""
    if os.geteuid() == 0 or os.environ.get("CI"):
        return
    for item in items:
        if item.get_closest_marker("kernel") or item.get_closest_marker("e2e"):
            item.add_marker(pytest.mark.skip(reason="needs root: makes namespaces, mounts and cgroups"))


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """Compare the machine before and after the whole run."""
    if os.geteuid() != 0:
        yield
        return
    before = census()
    yield
    deadline = time.monotonic() + SETTLE_SECONDS
    while (left := leaks(before, census())) and time.monotonic() < deadline:
        time.sleep(0.2)
    if left:
        pytest.fail("the test run left behind:\n  " + "\n  ".join(left), pytrace=False)
