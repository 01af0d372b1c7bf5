"""Pulling from a real registry: formats, platforms, sharing, and what a second pull costs."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from lib.oci_images import OCI_INDEX, entry, folder, layer_tar, make_image, make_index, push, push_manifest, symlink
from lib.registry import LocalRegistry, docker_registry

from pyswarm.agent_runtime.image.manifest import this_architecture
from pyswarm.agent_runtime.image.store import ImageStore
from pyswarm.deploy.lab import images as lab_images
from pyswarm.proto.errors import NotFound, Unavailable
from pyswarm.proto.v1 import runtime_pb2 as pb


@pytest.fixture(scope="module")
def registry() -> Iterator[LocalRegistry]:
    with docker_registry() as running:
        yield running


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


def ignore(_: pb.PullProgress) -> None:
    """Take progress nobody looks at."""


LOWER = layer_tar(folder("etc"), entry("etc/name", b"lower"), symlink("etc/alias", "name"))
UPPER = layer_tar(entry("etc/name", b"upper"))


@pytest.mark.parametrize(
    ("compression", "docker"), [("gzip", True), ("gzip", False), ("zstd", False), ("plain", False)]
)
async def test_an_image_is_pulled_with_its_layers_in_order(
    registry: LocalRegistry, store: ImageStore, compression: str, docker: bool
) -> None:
    made = make_image(LOWER, UPPER, compression=compression, docker=docker, config={"Cmd": ["serve"]})
    name = f"formats-{compression}-{docker}".lower()
    push(registry.url, name, "1", made)

    image = await store.pull(f"{registry.host}/{name}:1", ignore)

    assert (image.id, image.digest) == (made.id, made.digest)
    assert image.config["config"] == {"Cmd": ["serve"]}
    assert [(layer / "etc/name").read_text() for layer in image.layers] == ["lower", "upper"]
    assert (image.layers[0] / "etc/alias").readlink() == Path("name")
    assert await store.resolve(f"{registry.host}/{name}:1") == image
    assert await store.resolve(made.id) == image
    assert (await store.resolve(made.id[7:19])).id == made.id


async def test_an_index_gives_the_image_of_this_machine(registry: LocalRegistry, store: ImageStore) -> None:
    for_us = make_image(LOWER, architecture=this_architecture())
    for_others = make_image(UPPER, architecture="s390x")
    for image in (for_us, for_others):
        push(registry.url, "many", image.digest, image)
    index = make_index(("s390x", for_others), (this_architecture(), for_us))
    push_manifest(registry.url, "many", "1", index, OCI_INDEX)

    assert (await store.pull(f"{registry.host}/many:1", ignore)).digest == for_us.digest


async def test_an_index_without_this_machine_says_what_there_is(registry: LocalRegistry, store: ImageStore) -> None:
    for_others = make_image(UPPER, architecture="s390x")
    push(registry.url, "foreign", for_others.digest, for_others)
    push_manifest(registry.url, "foreign", "1", make_index(("s390x", for_others)), OCI_INDEX)

    with pytest.raises(NotFound, match="linux/s390x"):
        await store.pull(f"{registry.host}/foreign:1", ignore)


async def test_a_pull_by_digest_of_what_is_here_needs_no_registry(store: ImageStore) -> None:
    made = make_image(LOWER)
    with docker_registry() as short_lived:
        push(short_lived.url, "pinned", "1", made)
        reference = f"{short_lived.host}/pinned:1@{made.digest}"
        first = await store.pull(reference, ignore)

    assert await store.pull(reference, ignore) == first


async def test_a_tag_that_moved_brings_the_new_image_and_keeps_the_old(
    registry: LocalRegistry, store: ImageStore
) -> None:
    old, new = make_image(LOWER), make_image(UPPER)
    push(registry.url, "moving", "1", old)
    first = await store.pull(f"{registry.host}/moving:1", ignore)
    push(registry.url, "moving", "1", new)

    second = await store.pull(f"{registry.host}/moving:1", ignore)

    assert second.id == new.id
    assert (await store.resolve(old.id)).references == ()
    assert all(layer.is_dir() for layer in first.layers), "a container may still run from it"


async def test_pulls_at_the_same_time_bring_the_layers_once(registry: LocalRegistry, store: ImageStore) -> None:
    push(registry.url, "shared", "1", make_image(LOWER, UPPER))
    push(registry.url, "shared", "2", make_image(LOWER, UPPER, config={"Cmd": ["other"]}))
    steps: list[pb.PullProgress] = []

    await asyncio.gather(*(store.pull(f"{registry.host}/shared:{tag}", steps.append) for tag in (1, 1, 2, 1, 2)))

    assert len([step for step in steps if step.status == "Pull complete"]) == 2


async def test_an_image_may_have_the_same_layer_many_times(registry: LocalRegistry, store: ImageStore) -> None:
    push(registry.url, "repeated", "1", make_image(LOWER, UPPER, UPPER, UPPER, LOWER))

    image = await store.pull(f"{registry.host}/repeated:1", ignore)

    assert [(layer / "etc/name").read_text() for layer in image.layers] == ["lower", "upper", "upper", "upper", "lower"]


async def test_progress_ends_with_all_bytes_of_every_layer(registry: LocalRegistry, store: ImageStore) -> None:
    made = make_image(LOWER)
    push(registry.url, "progress", "1", made)
    steps: list[pb.PullProgress] = []

    await store.pull(f"{registry.host}/progress:1", steps.append)

    downloads = [step for step in steps if step.status == "Downloading"]
    assert downloads[-1].current_bytes == downloads[-1].total_bytes == len(made.layers[0])
    assert [step.status for step in steps][-2:] == ["Extracting", "Pull complete"]


@pytest.mark.parametrize("missing", ["absent:1", "present:2"])
async def test_what_the_registry_does_not_have_is_named(
    registry: LocalRegistry, store: ImageStore, missing: str
) -> None:
    push(registry.url, "present", "1", make_image(LOWER))

    with pytest.raises(NotFound, match=missing) as caught:
        await store.pull(f"{registry.host}/{missing}", ignore)
    assert registry.host in caught.value.message


async def test_a_registry_that_is_not_there_is_unavailable(store: ImageStore) -> None:
    with docker_registry() as gone:
        pass
    with pytest.raises(Unavailable, match=gone.host):
        await store.pull(f"{gone.host}/web:1", ignore)


async def test_a_daemon_that_starts_anew_has_its_images(registry: LocalRegistry, tmp_path: Path) -> None:
    push(registry.url, "durable", "1", make_image(LOWER))
    pulled = await ImageStore(tmp_path).pull(f"{registry.host}/durable:1", ignore)

    assert await ImageStore(tmp_path).resolve(f"{registry.host}/durable:1") == pulled


async def test_an_image_whose_layer_was_lost_is_pulled_anew(registry: LocalRegistry, tmp_path: Path) -> None:
    push(registry.url, "lost", "1", make_image(LOWER))
    pulled = await ImageStore(tmp_path).pull(f"{registry.host}/lost:1", ignore)
    pulled.layers[0].rename(tmp_path / "elsewhere")

    after = ImageStore(tmp_path)

    with pytest.raises(NotFound):
        await after.resolve(pulled.id)
    assert (await after.pull(f"{registry.host}/lost:1", ignore)).layers[0].is_dir()


async def test_the_labs_web_image_is_built_pushed_and_pulled(
    registry: LocalRegistry, store: ImageStore, tmp_path: Path
) -> None:
    archive = tmp_path / "web.tar"
    command = lab_images.command("build-web", "--version", "7", "--out", str(archive), "--tag", "web:7")
    process = await asyncio.create_subprocess_exec(*command, "--push", registry.url)
    assert await process.wait() == 0

    pulled = await store.pull(f"{registry.host}/web:7", ignore)
    loaded = await ImageStore(tmp_path / "other").load(_chunks(archive.read_bytes()))

    assert [image.id for image in loaded] == [pulled.id], "the same input gives the same image"
    assert (pulled.layers[0] / "bin/sh").is_symlink()
    assert pulled.config["config"]["Entrypoint"] == ["/bin/sh", "/entry.sh"]


async def _chunks(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 1 << 20):
        yield data[start : start + (1 << 20)]
