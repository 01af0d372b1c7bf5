"""A daemon killed in the middle of its work on images, at each of its steps."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from lib import killed_images
from lib.faulty_registry import faulty_registry
from lib.oci_images import entry, layer_tar, make_image, oci_layout, symlink

from pyswarm.agent_runtime.image.store import ImageStore
from pyswarm.proto.v1 import runtime_pb2 as pb

NAME_BYTES = os.urandom(600_000)
"""Of a size that arrives in several pieces."""
LOWER = layer_tar(entry("etc/name", NAME_BYTES), symlink("etc/alias", "name"))
UPPER = layer_tar(entry("etc/other", b"upper"), entry("etc/.wh.alias"))
MADE = make_image(LOWER, UPPER)
WHOLE: list[dict[str, bytes | str]] = [{"etc/name": NAME_BYTES, "etc/alias": "name"}, {"etc/other": b"upper"}]


def ignore(_: pb.PullProgress) -> None:
    """Take progress nobody looks at."""


def unused(_: str) -> bool:
    return False


async def chunks(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def kill_at_each_step(operation: str, folder: Path, source: str) -> list[Path]:
    """Return the folders of the stores, each left by a daemon killed one step later than the one before."""
    folder.mkdir()
    process = await asyncio.create_subprocess_exec(
        sys.executable, killed_images.__file__, operation, str(folder), source, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    assert process.returncode == 0
    return [folder / str(step) for step in range(int(said))]


def files(layer: Path) -> dict[str, bytes | str]:
    return {
        str(path.relative_to(layer)): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in layer.rglob("*")
        if path.is_symlink() or path.is_file()
    }


async def whole_images(store: ImageStore) -> int:
    """Return how many images the store offers, each of which must be whole."""
    listed = await store.images()
    for image in listed:
        assert [files(layer) for layer in (await store.resolve(image.id)).layers] == WHOLE
    return len(listed)


def on_disk(folder: Path) -> list[Path]:
    """Return everything the store keeps but its list of names."""
    return [*folder.glob("content/*"), *folder.glob("content/.*"), *folder.glob("layers/*"), *folder.glob("load-*")]


async def assert_it_goes_on(folder: Path, archive: bytes) -> int:
    """Return how many images a new daemon finds, after it brought the image and removed it without a trace."""
    store = ImageStore(folder)
    assert not [path for path in (*on_disk(folder), *folder.iterdir()) if path.name.startswith((".new-", "load-"))]
    found = await whole_images(store)
    await store.load(chunks(archive))
    assert await whole_images(store) == 1
    await store.remove(MADE.id, force=False, in_use=unused)
    assert on_disk(folder) == []
    return found


async def test_a_killed_pull_leaves_nothing_that_counts_as_complete(tmp_path: Path) -> None:
    async with faulty_registry(MADE) as registry:
        left = await kill_at_each_step("pull", tmp_path / "killed", registry.reference)
    found = [await assert_it_goes_on(folder, oci_layout(("web:1", MADE))) for folder in left]

    assert len(found) > 20, "the hook sees the steps"
    assert found == sorted(found), "once an image is there it is not lost again"


async def test_a_killed_load_leaves_nothing_that_counts_as_complete(tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    archive.write_bytes(oci_layout(("web:1", MADE)))

    left = await kill_at_each_step("load", tmp_path / "killed", str(archive))
    found = [await assert_it_goes_on(folder, archive.read_bytes()) for folder in left]

    assert len(found) > 20
    assert found == sorted(found)


async def test_a_killed_removal_has_happened_or_has_not(tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    archive.write_bytes(oci_layout(("web:1", MADE)))

    left = await kill_at_each_step("remove", tmp_path / "killed", str(archive))
    found = [await assert_it_goes_on(folder, archive.read_bytes()) for folder in left]

    assert len(found) > 5
    assert found == sorted(found, reverse=True), "an image that is being removed does not come back"
