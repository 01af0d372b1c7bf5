"""Pulling from registries that fail, lie, redirect and want tokens."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from lib.faulty_registry import FaultyRegistry, faulty_registry
from lib.oci_images import digest_of, entry, layer_tar, make_image

from pyswarm.agent_runtime.image import registry as registry_module
from pyswarm.agent_runtime.image.content import WrongDigest
from pyswarm.agent_runtime.image.registry import speaks_plain
from pyswarm.agent_runtime.image.store import ImageStore
from pyswarm.proto.backoff import Backoff
from pyswarm.proto.errors import InvalidArgument, NotFound, PermissionDenied, SwarmError, Unavailable
from pyswarm.proto.v1 import runtime_pb2 as pb

MADE = make_image(layer_tar(entry("file", os.urandom(200_000))))
LAYER = digest_of(MADE.layers[0])


@pytest.fixture
async def registry() -> AsyncIterator[FaultyRegistry]:
    async with faulty_registry(MADE) as running:
        yield running


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "RETRY", Backoff(first_seconds=0.001, cap_seconds=0.01))


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path)


def ignore(_: pb.PullProgress) -> None:
    """Take progress nobody looks at."""


def kept(tmp_path: Path) -> list[str]:
    """Return what of layers and unfinished downloads lies in the store."""
    return [str(path) for path in (*tmp_path.glob("layers/*"), *tmp_path.glob("content/.*"))]


async def test_what_passes_is_tried_again(registry: FaultyRegistry, store: ImageStore) -> None:
    registry.failures = 3

    assert (await store.pull(registry.reference, ignore)).id == MADE.id


async def test_what_does_not_pass_is_given_up(registry: FaultyRegistry, store: ImageStore) -> None:
    registry.failures = 1000

    with pytest.raises(Unavailable, match="503"):
        await store.pull(registry.reference, ignore)
    assert 1000 - registry.failures <= 10


@pytest.mark.parametrize("knows_ranges", [True, False])
async def test_a_download_that_breaks_goes_on_where_it_was(
    registry: FaultyRegistry, store: ImageStore, knows_ranges: bool
) -> None:
    registry.cut_blobs, registry.knows_ranges = 3, knows_ranges

    image = await store.pull(registry.reference, ignore)

    assert (image.layers[0] / "file").stat().st_size == 200_000
    assert knows_ranges == any(status == 206 for status, _ in registry.seen)


async def test_a_large_download_may_break_often(
    registry: FaultyRegistry, store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_module, "AMPLE_BYTES", 1)
    registry.cut_blobs = 12

    assert (await store.pull(registry.reference, ignore)).id == MADE.id


async def test_a_download_that_falls_silent_goes_on_where_it_was(
    registry: FaultyRegistry, store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Silence lasts longer than failures are borne.
    monkeypatch.setattr(registry_module, "TIMEOUT", aiohttp.ClientTimeout(sock_read=0.3))
    monkeypatch.setattr(registry_module, "GIVE_UP_SECONDS", 0.2)
    registry.stalled_blobs = 2

    image = await store.pull(registry.reference, ignore)

    assert (image.layers[0] / "file").stat().st_size == 200_000


async def test_a_download_that_always_breaks_is_given_up(
    registry: FaultyRegistry, store: ImageStore, tmp_path: Path
) -> None:
    registry.cut_blobs, registry.knows_ranges = 1000, False

    with pytest.raises(Unavailable, match="cannot reach registry"):
        await store.pull(registry.reference, ignore)
    assert kept(tmp_path) == []


@pytest.mark.parametrize("digest", [LAYER, MADE.id])
async def test_a_changed_byte_is_found_and_nothing_kept(
    registry: FaultyRegistry, store: ImageStore, tmp_path: Path, digest: str
) -> None:
    registry.corrupt = digest

    with pytest.raises(WrongDigest):
        await store.pull(registry.reference, ignore)
    assert kept(tmp_path) == []
    assert await store.images() == []


async def test_a_manifest_that_is_not_the_pinned_one_is_refused(registry: FaultyRegistry, store: ImageStore) -> None:
    with pytest.raises(WrongDigest):
        await store.pull(f"{registry.host}/web@sha256:{'0' * 64}", ignore)


async def test_a_layer_that_unpacks_to_something_else_is_refused(tmp_path: Path) -> None:
    lying = make_image(layer_tar(entry("file", b"x")), diff_ids=[f"sha256:{'0' * 64}"])
    async with faulty_registry(lying) as registry:
        with pytest.raises(WrongDigest, match="unpacks to"):
            await ImageStore(tmp_path).pull(registry.reference, ignore)
    assert kept(tmp_path) == []


async def test_a_blob_longer_than_was_said_is_cut_short(tmp_path: Path) -> None:
    manifest = json.loads(MADE.manifest)
    manifest["layers"][0]["size"] = 10
    async with faulty_registry(replace(MADE, manifest=json.dumps(manifest).encode())) as registry:
        with pytest.raises(WrongDigest, match="longer than the 10 bytes"):
            await ImageStore(tmp_path).pull(registry.reference, ignore)


@pytest.mark.parametrize(
    "manifest",
    [
        pytest.param(b"<html>", id="no JSON"),
        pytest.param(b"[]", id="no object"),
        pytest.param(b'{"schemaVersion": 1}', id="the ancient schema"),
        pytest.param(b'{"schemaVersion": 2, "layers": {}}', id="no config"),
        pytest.param(b'{"schemaVersion": 2, "config": {"digest": "sha256:../../x"}, "layers": []}', id="a path"),
        pytest.param(b'{"schemaVersion": 2, "config": {"digest": 5}, "layers": []}', id="a number for a digest"),
        pytest.param(b'{"manifests": [5]}', id="a number for a manifest"),
    ],
)
async def test_a_malformed_manifest_is_an_error_people_understand(tmp_path: Path, manifest: bytes) -> None:
    async with faulty_registry(replace(MADE, manifest=manifest)) as registry:
        with pytest.raises(SwarmError) as caught:
            await ImageStore(tmp_path).pull(registry.reference, ignore)
    assert not isinstance(caught.value, NotFound)
    assert "web:1" in caught.value.message or isinstance(caught.value, InvalidArgument)


async def test_a_token_is_fetched_when_asked_for(registry: FaultyRegistry, store: ImageStore) -> None:
    registry.token = "abc"

    await store.pull(registry.reference, ignore)

    assert registry.seen[200, "/token"] == 1


async def test_a_token_that_expires_during_a_pull_is_renewed(registry: FaultyRegistry, store: ImageStore) -> None:
    registry.token = "abc"
    registry.on_manifest = lambda: setattr(registry, "token", "def")

    await store.pull(registry.reference, ignore)

    assert registry.seen[200, "/token"] == 2


async def test_a_registry_that_wants_a_login_is_refused(registry: FaultyRegistry, store: ImageStore) -> None:
    registry.token, registry.gives_tokens = "abc", False

    with pytest.raises(PermissionDenied, match="web:1"):
        await store.pull(registry.reference, ignore)


@pytest.mark.parametrize("step", ["Pulling from", "Downloading", "Extracting", "Pull complete"])
async def test_a_cancelled_pull_leaves_the_one_that_waits_for_it_alone(
    registry: FaultyRegistry, store: ImageStore, step: str
) -> None:
    def cancel(seen: pb.PullProgress) -> None:
        if seen.status.startswith(step):
            cancelled.cancel()

    async with asyncio.TaskGroup() as tasks:
        cancelled = tasks.create_task(store.pull(registry.reference, cancel))
        waiting = tasks.create_task(store.pull(registry.reference, ignore))

    assert cancelled.cancelled()
    assert (waiting.result().layers[0] / "file").stat().st_size == 200_000
    assert len(await store.images()) == 1


async def test_a_redirect_is_followed_without_the_token(registry: FaultyRegistry, store: ImageStore) -> None:
    registry.redirects, registry.token = True, "abc"

    await store.pull(registry.reference, ignore)

    assert registry.seen[200, f"/elsewhere/{LAYER}"] == 1


async def test_a_second_pull_asks_for_the_manifest_only(registry: FaultyRegistry, store: ImageStore) -> None:
    await store.pull(registry.reference, ignore)
    before = registry.seen.total()

    await store.pull(registry.reference, ignore)

    assert registry.seen.total() == before + 1


async def test_leftovers_of_a_killed_pull_are_cleared(tmp_path: Path) -> None:
    for name in ("content", "layers"):
        (tmp_path / name).mkdir()
    (tmp_path / "content/.new-x").write_bytes(b"half")
    (tmp_path / "layers/.new-x/deep").mkdir(parents=True)
    (tmp_path / "load-x").mkdir()

    ImageStore(tmp_path)

    assert kept(tmp_path) == []
    assert not (tmp_path / "load-x").exists()


@pytest.mark.parametrize(
    ("host", "plain"),
    [
        ("127.0.0.1:5000", True),
        ("localhost", True),
        ("[::1]:5000", True),
        ("10.77.0.9:5000", True),
        ("registry.lab:5000", True),
        ("registry.lab:5001", False),
        ("10.78.0.9:5000", False),
        ("docker.io", False),
        ("127.0.0.1.example.com", False),
    ],
)
def test_plain_http_is_for_loopback_and_what_is_allowed(host: str, plain: bool) -> None:
    assert speaks_plain(host, ["10.77.0.0/24", "registry.lab:5000"]) is plain
