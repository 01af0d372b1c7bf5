"""Fixtures of the runtime's tests: a busybox rootfs and a daemon of one's own."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from lib.busybox import make_rootfs
from lib.runtime_host import RuntimeHost, runtime_host


@pytest.fixture(scope="session")
def layer() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="pyswarm-layer-") as folder:
        yield make_rootfs(Path(folder))


@pytest.fixture
async def host(layer: Path) -> AsyncIterator[RuntimeHost]:
    async with runtime_host(layer) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_host(layer: Path) -> AsyncIterator[RuntimeHost]:
    """One daemon for a module's tests, which all must run on the module's loop."""
    async with runtime_host(layer) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def shared_host(module_host: RuntimeHost) -> AsyncIterator[RuntimeHost]:
    """The module's daemon, with no containers before and nothing left after each test."""
    yield module_host
    assert await module_host.clear() == []
