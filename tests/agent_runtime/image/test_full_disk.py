"""Images on a disk that is full."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from lib.faulty_registry import faulty_registry
from lib.oci_images import MadeImage, entry, layer_tar, make_image, oci_layout

from pyswarm.agent_runtime.image.store import ImageStore
from pyswarm.agent_runtime.kernel import numbers as n
from pyswarm.agent_runtime.kernel.syscalls import syscall
from pyswarm.proto.errors import ResourceExhausted
from pyswarm.proto.v1 import runtime_pb2 as pb

pytestmark = pytest.mark.kernel

SMALL = make_image(layer_tar(entry("small", b"small")))
PACKED_TOO_LARGE = make_image(
    layer_tar(entry("first", os.urandom(200_000))), layer_tar(entry("a", os.urandom(3 << 20)))
)
UNPACKED_TOO_LARGE = make_image(layer_tar(entry("first", os.urandom(200_000))), layer_tar(entry("a", bytes(3 << 20))))


@pytest.fixture
def disk() -> Iterator[Path]:
    """A file system of 2 MiB that is mounted nowhere."""
    context = syscall("fsopen", b"tmpfs\0", n.FSOPEN_CLOEXEC)
    syscall("fsconfig", context, n.FSCONFIG_SET_STRING, b"size", b"2m", 0)
    syscall("fsconfig", context, n.FSCONFIG_CMD_CREATE, None, None, 0)
    root = syscall("fsmount", context, n.FSMOUNT_CLOEXEC, 0)
    try:
        yield Path(f"/proc/self/fd/{root}")
    finally:
        os.close(root)
        os.close(context)


def ignore(_: pb.PullProgress) -> None:
    """Take progress nobody looks at."""


async def chunks(data: bytes) -> AsyncIterator[bytes]:
    yield data


def kept(disk: Path) -> list[Path]:
    return [path for folder in (disk / "content", disk / "layers") for path in folder.iterdir()]


@pytest.mark.parametrize("image", [PACKED_TOO_LARGE, UNPACKED_TOO_LARGE])
async def test_an_image_too_large_says_so_and_gives_back_the_room_it_took(disk: Path, image: MadeImage) -> None:
    store = ImageStore(disk)
    loop, threads = asyncio.get_running_loop(), ThreadPoolExecutor()
    loop.set_default_executor(threads)
    async with faulty_registry(image) as registry:
        with pytest.raises(ResourceExhausted, match="no space left") as caught:
            await store.pull(registry.reference, ignore)

    assert "image rm" in caught.value.remedy
    # A thread cannot be cancelled: one that unpacks another layer gives its room back when it has ended.
    threads.shutdown()
    loop.set_default_executor(ThreadPoolExecutor())
    assert kept(disk) == []
    async with faulty_registry(SMALL) as registry:
        assert (await store.pull(registry.reference, ignore)).id == SMALL.id


async def test_an_archive_too_large_says_so_and_gives_back_the_room_it_took(disk: Path) -> None:
    store = ImageStore(disk)
    with pytest.raises(ResourceExhausted, match="no space left"):
        await store.load(chunks(oci_layout(("web:1", UNPACKED_TOO_LARGE))))

    assert kept(disk) == []
    assert not list(disk.glob("load-*"))
    assert len(await store.load(chunks(oci_layout(("web:1", SMALL))))) == 1
