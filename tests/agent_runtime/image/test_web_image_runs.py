"""The lab's web image in a container of ours: it serves, says so, and ends at once when told to."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from lib.runtime_host import RuntimeHost, runtime_host

from pyswarm.agent_runtime.image.layers import LayerStore
from pyswarm.deploy.lab import images as lab_images

pytestmark = pytest.mark.kernel


@pytest.fixture
async def web_host(tmp_path: Path) -> AsyncIterator[RuntimeHost]:
    made = lab_images.web_image("1.2-rc")
    blob, layers = tmp_path / "blob", LayerStore(tmp_path / "layers")
    blob.write_bytes(made.layer)
    (diff_id,) = made.diff_ids
    layers.unpack(blob, diff_id, diff_id)
    async with runtime_host(layers.path(diff_id)) as running:
        yield running


async def test_it_serves_its_pages_and_stops_at_once(web_host: RuntimeHost) -> None:
    container = await web_host.start("web", "/bin/sh", "/entry.sh")
    await web_host.follow_until("web", "web 1.2-rc serving on web at ")

    assert await fetch(container.pid, "/version") == b"1.2-rc"
    assert await fetch(container.pid, "/health") == b"ok\n"
    assert b"image version 1.2-rc, served by web" in await fetch(container.pid, "/")

    before = time.monotonic()
    assert (await web_host.stop("web", grace_seconds=10)).exit_code == 0
    assert time.monotonic() - before < 3


async def fetch(pid: int, path: str) -> bytes:
    """Fetch a page inside the container's network, where the server may still be about to listen."""
    deadline = time.monotonic() + 10
    while True:
        process = await asyncio.create_subprocess_exec(
            *("nsenter", "--target", str(pid), "--net", "/bin/busybox", "wget", "-q", "-O", "-"),
            f"http://127.0.0.1{path}",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, complaint = await process.communicate()
        if process.returncode == 0:
            return out
        assert time.monotonic() < deadline, complaint.decode()


@pytest.mark.parametrize("version", ["", "1; rm -rf /", "$(id)", "a b"])
def test_a_version_that_is_none_is_refused(version: str) -> None:
    with pytest.raises(ValueError, match="is no version"):
        lab_images.web_image(version)


def test_the_same_input_gives_the_same_image() -> None:
    assert lab_images.web_image("1").digest == lab_images.web_image("1").digest
    assert lab_images.web_image("1").digest != lab_images.web_image("2").digest
