"""Images from archives, and what removing one leaves and takes."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from lib.faulty_registry import faulty_registry
from lib.oci_images import MadeImage, digest_of, entry, hard_link, layer_tar, make_image, oci_layout, symlink

from pyswarm.agent_runtime.image.content import WrongDigest
from pyswarm.agent_runtime.image.store import ImageStore
from pyswarm.proto.errors import FailedPrecondition, InvalidArgument, NotFound
from pyswarm.proto.v1 import runtime_pb2 as pb
from pyswarm.proto.v1 import types_pb2

COMMON = layer_tar(entry("common", b"common"))
ONE = make_image(COMMON, layer_tar(entry("one", b"one")))
TWO = make_image(COMMON, layer_tar(entry("two", b"two")))


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path)


def ignore(_: pb.PullProgress) -> None:
    """Take progress nobody looks at."""


def used(_: str) -> bool:
    return True


def unused(_: str) -> bool:
    return False


def docker_save(name: str, image: MadeImage, tars: tuple[bytes, ...]) -> bytes:
    listed = [{"Config": "config.json", "RepoTags": [name], "Layers": [f"{n}/layer.tar" for n in range(len(tars))]}]
    files = [entry(f"{n}/layer.tar", tar) for n, tar in enumerate(tars)]
    return layer_tar(entry("manifest.json", json.dumps(listed).encode()), entry("config.json", image.config), *files)


async def chunks(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 1000):
        yield data[start : start + 1000]


async def load(store: ImageStore, *named: tuple[str, MadeImage]) -> None:
    await store.load(chunks(oci_layout(*named)))


def on_disk(folder: Path) -> tuple[int, int]:
    """Return how many blobs and layers there are."""
    return len(list((folder / "content").iterdir())), len(list((folder / "layers").iterdir()))


async def test_an_oci_layout_brings_its_images_by_name(store: ImageStore, tmp_path: Path) -> None:
    await load(store, ("one:1", ONE), ("lab.example/two:2", TWO))

    listed = {reference: image for image in await store.images() for reference in image.references}
    assert set(listed) == {"docker.io/library/one:1", "lab.example/two:2"}
    assert listed["lab.example/two:2"].id == TWO.id
    assert listed["lab.example/two:2"].platform.architecture == "amd64"
    assert listed["lab.example/two:2"].created_at > 0
    assert (await store.resolve("one:1")).id == ONE.id
    assert on_disk(tmp_path) == (4, 3), "the common layer is there once"


async def test_what_docker_saves_is_loaded(store: ImageStore) -> None:
    tars = (COMMON, layer_tar(entry("two", b"two")))

    (image,) = await store.load(chunks(docker_save("web:1", TWO, tars)))

    assert image.id == TWO.id
    assert image.references == ("docker.io/library/web:1",)
    assert (image.layers[1] / "two").read_text() == "two"


async def test_the_same_image_in_two_wrappings_is_listed_once(store: ImageStore) -> None:
    tars = (COMMON, layer_tar(entry("one", b"one")))
    await load(store, ("one:1", ONE))
    await store.load(chunks(docker_save("other:1", ONE, tars)))

    (image,) = await store.images()

    assert image.references == ["docker.io/library/one:1", "docker.io/library/other:1"]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        pytest.param({}, types_pb2.HealthConfig(), id="none"),
        pytest.param({"Healthcheck": {"Test": "x"}}, types_pb2.HealthConfig(), id="malformed"),
        pytest.param({"Healthcheck": {"Test": ["CMD", "x"], "Interval": "5s"}}, types_pb2.HealthConfig(), id="wrong"),
        pytest.param(
            {"Healthcheck": {"Test": ["CMD-SHELL", "x"], "Interval": 5 * 10**9, "Timeout": 10**9, "Retries": 4}},
            types_pb2.HealthConfig(test=["CMD-SHELL", "x"], interval_seconds=5, timeout_seconds=1, retries=4),
            id="Docker's own form",
        ),
    ],
)
async def test_an_images_health_check_is_listed(store: ImageStore, config, expected) -> None:
    await load(store, ("checked:1", make_image(COMMON, config=config)))
    (image,) = await store.images()
    assert image.healthcheck == expected


@pytest.mark.parametrize(
    ("archive", "error"),
    [
        pytest.param(b"", InvalidArgument, id="nothing"),
        pytest.param(b"x" * 5000, InvalidArgument, id="no archive"),
        pytest.param(layer_tar(entry("file")), InvalidArgument, id="an archive of something else"),
        pytest.param(layer_tar(entry("index.json", b"{}")), InvalidArgument, id="no images"),
        pytest.param(layer_tar(entry("manifest.json", b'[{"Config": 5}]')), InvalidArgument, id="malformed"),
        pytest.param(
            layer_tar(symlink("manifest.json", "/etc/passwd")),
            InvalidArgument,
            id="a link to what is not the archive's",
        ),
        pytest.param(layer_tar(hard_link("manifest.json", "/etc/passwd")), InvalidArgument, id="the same, hard"),
        pytest.param(
            oci_layout(("a:1", replace(ONE, blobs={**ONE.blobs, ONE.id: ONE.config + b" "}))), WrongDigest, id="config"
        ),
        pytest.param(
            oci_layout(("a:1", replace(ONE, blobs={**ONE.blobs, digest_of(ONE.layers[0]): TWO.layers[1]}))),
            WrongDigest,
            id="layer",
        ),
    ],
)
async def test_a_bad_archive_is_refused_and_leaves_nothing(
    store: ImageStore, tmp_path: Path, archive: bytes, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await store.load(chunks(archive))

    assert on_disk(tmp_path) == (0, 0)
    assert not list(tmp_path.glob("load-*"))


async def test_an_archive_may_not_point_at_other_files_of_the_machine(store: ImageStore, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_bytes(ONE.config)
    listed = [{"Config": "c", "RepoTags": ["web:1"], "Layers": []}]
    for target in (str(tmp_path / "secret.json"), "../../secret.json"):
        archive = layer_tar(entry("manifest.json", json.dumps(listed).encode()), symlink("c", target))
        with pytest.raises(InvalidArgument, match="has no file"):
            await store.load(chunks(archive))


async def test_removing_takes_what_no_other_image_needs(store: ImageStore, tmp_path: Path) -> None:
    await load(store, ("one:1", ONE), ("two:1", TWO))

    assert await store.remove("one:1", force=False, in_use=unused) == (["docker.io/library/one:1"], [ONE.id])

    assert on_disk(tmp_path) == (2, 2)
    assert ((await store.resolve("two:1")).layers[0] / "common").exists()
    with pytest.raises(NotFound):
        await store.remove("one:1", force=False, in_use=unused)
    await store.remove(TWO.id[7:15], force=False, in_use=unused)
    assert on_disk(tmp_path) == (0, 0)


async def test_one_of_several_names_is_untagged_only(store: ImageStore) -> None:
    await load(store, ("one:1", ONE), ("one:latest", ONE))

    with pytest.raises(FailedPrecondition, match="2 names"):
        await store.remove(ONE.id, force=False, in_use=unused)
    assert await store.remove("one", force=False, in_use=used) == (["docker.io/library/one:latest"], [])
    assert (await store.resolve(ONE.id)).references == ("docker.io/library/one:1",)


async def test_an_image_by_id_loses_all_names_with_force(store: ImageStore, tmp_path: Path) -> None:
    await load(store, ("one:1", ONE), ("one:latest", ONE))

    untagged, deleted = await store.remove(ONE.id, force=True, in_use=unused)

    assert (len(untagged), deleted, on_disk(tmp_path)) == (2, [ONE.id], (0, 0))


async def test_an_image_in_use_is_not_removed(store: ImageStore) -> None:
    await load(store, ("one:1", ONE))

    with pytest.raises(FailedPrecondition, match="used by a container"):
        await store.remove("one:1", force=False, in_use=lambda image_id: image_id == ONE.id)
    assert (await store.resolve("one:1")).id == ONE.id


async def test_force_takes_the_name_of_an_image_in_use_and_leaves_its_layers(store: ImageStore, tmp_path: Path) -> None:
    await load(store, ("one:1", ONE), ("two:1", TWO))

    assert await store.remove("one:1", force=True, in_use=used) == (["docker.io/library/one:1"], [])
    await store.remove("two:1", force=False, in_use=unused)

    with pytest.raises(NotFound):
        await store.resolve("one:1")
    assert on_disk(tmp_path) == (2, 2)
    assert await ImageStore(tmp_path).remove(ONE.id, force=False, in_use=unused) == ([], [ONE.id])
    assert on_disk(tmp_path) == (0, 0)


async def test_removing_during_a_pull_leaves_the_layers_it_shares(store: ImageStore, tmp_path: Path) -> None:
    await load(store, ("one:1", ONE))
    async with faulty_registry(TWO) as registry, asyncio.TaskGroup() as tasks:

        def remove_the_other(step: pb.PullProgress) -> None:
            # The pull has found the common layer here, and is about to fetch its own.
            if step.status == "Already exists":
                removing.append(tasks.create_task(store.remove("one:1", force=False, in_use=unused)))

        removing: list[asyncio.Task[tuple[list[str], list[str]]]] = []
        image = await store.pull(registry.reference, remove_the_other)

    assert removing[0].result() == (["docker.io/library/one:1"], [ONE.id])
    assert (image.layers[0] / "common").exists()
    assert on_disk(tmp_path) == (2, 2), "what the pull kept from being collected is collected when it ends"
