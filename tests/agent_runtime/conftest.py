"""Fixtures of the runtime's tests: a busybox rootfs and a daemon of one's own."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
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
