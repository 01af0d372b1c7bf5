"""Read saved images: the archives of `docker save` and OCI layouts. Every digest is verified, as for a pull."""

import asyncio
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct

from pyswarm.agent_runtime.image.content import ContentStore, WrongDigest, disk_error
from pyswarm.agent_runtime.image.extract import extract
from pyswarm.agent_runtime.image.layers import LayerStore
from pyswarm.agent_runtime.image.manifest import (
    chain_ids,
    check_digest,
    choose_platform,
    diff_ids,
    digest_of,
    is_index,
    read_json,
    read_manifest,
)
from pyswarm.proto.errors import InvalidArgument

REFERENCE_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
_PREFIX = "load-"
_REMEDY = "Give what `docker save` or an OCI tool wrote."


class SavedImage(Struct, frozen=True):
    """One image of an archive: its manifest, config and layer files, in the manifest's order."""

    manifest: bytes
    config: bytes
    layers: tuple[Path, ...]
    references: tuple[str, ...]


@asynccontextmanager
async def unpacked(chunks: AsyncIterator[bytes], near: Path) -> AsyncIterator[Path]:
    """Receive an archive and yield a folder with its content, which is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=near) as folder:
        file, content = Path(folder) / "archive.tar", Path(folder) / "content"
        content.mkdir()
        try:
            with file.open("wb") as out:
                async for chunk in chunks:
                    out.write(chunk)
            await asyncio.to_thread(_extract, file, content)
        except OSError as error:
            raise disk_error(error, "the archive") from error
        file.unlink()
        yield content


def clear_leftovers(near: Path) -> None:
    """Remove what a killed load left."""
    for folder in near.glob(f"{_PREFIX}*"):
        shutil.rmtree(folder)


def _extract(file: Path, folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with file.open("rb") as source:
            extract(source, descriptor)
    finally:
        os.close(descriptor)


def images(folder: Path) -> list[SavedImage]:
    """Return the images in an unpacked archive: an OCI layout if it is one, else what `docker save` wrote.

    Blocks: call it in a thread. Raises InvalidArgument, WrongDigest.
    """
    try:
        if (folder / "index.json").is_file():
            return list(_from_layout(folder))
        if (folder / "manifest.json").is_file():
            return list(_from_docker(folder))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidArgument(f"the archive's list of images is malformed: {error}", remedy=_REMEDY) from error
    raise InvalidArgument("the archive is no image: it has neither index.json nor manifest.json", remedy=_REMEDY)


def _from_layout(folder: Path) -> Iterator[SavedImage]:
    for entry in read_json(_read(folder, "index.json"), "index.json").get("manifests", ()):
        annotations = entry.get("annotations") or {}
        names = [annotations[key] for key in REFERENCE_ANNOTATIONS if annotations.get(key)]
        data = _blob(folder, entry["digest"])
        document = read_json(data, "a manifest")
        if is_index(document):
            data = _blob(folder, choose_platform(document, "the saved image").digest)
        manifest = read_manifest(data, "the saved image")
        yield SavedImage(
            manifest=data,
            config=_blob(folder, manifest.config.digest),
            layers=tuple(_inside(folder, _blob_name(layer.digest)) for layer in manifest.layers),
            references=tuple(name for name in names[:1] if "/" in name or ":" in name or name.isalnum()),
        )


def _from_docker(folder: Path) -> Iterator[SavedImage]:
    for entry in json.loads(_read(folder, "manifest.json")):
        config = _read(folder, entry["Config"])
        layers = tuple(_inside(folder, name) for name in entry["Layers"])
        # The archive has no manifest of the registry's kind: make the one that describes exactly these files.
        manifest: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": digest_of(config),
                "size": len(config),
            },
            "layers": [
                {
                    "mediaType": "application/vnd.oci.image.layer.v1.tar",
                    "digest": _digest_of_file(layer),
                    "size": layer.stat().st_size,
                }
                for layer in layers
            ],
        }
        yield SavedImage(
            manifest=json.dumps(manifest, sort_keys=True).encode(),
            config=config,
            layers=layers,
            references=tuple(entry.get("RepoTags") or ()),
        )


def adopt(saved: SavedImage, content: ContentStore, layers: LayerStore) -> str:
    """Take a saved image into the stores and return its manifest's digest. Blocks: call it in a thread."""
    manifest = read_manifest(saved.manifest, "the saved image")
    stack = diff_ids(read_json(saved.config, "the saved image's config"), "the saved image")
    if digest_of(saved.config) != manifest.config.digest:
        raise WrongDigest("the saved image's config does not match its manifest")
    if not len(stack) == len(manifest.layers) == len(saved.layers):
        raise InvalidArgument("the saved image's config and manifest name different numbers of layers")
    for path, diff_id, chain in zip(saved.layers, stack, chain_ids(stack), strict=True):
        layers.unpack(path, diff_id, chain)
    content.put(saved.config)
    return content.put(saved.manifest)


def _digest_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def _blob_name(digest: str) -> str:
    return "blobs/sha256/" + check_digest(digest).removeprefix("sha256:")


def _blob(folder: Path, digest: str) -> bytes:
    data = _read(folder, _blob_name(digest))
    if digest_of(data) != digest:
        raise WrongDigest(f"blob {digest} of the archive is damaged")
    return data


def _read(folder: Path, name: str) -> bytes:
    return _inside(folder, name).read_bytes()


def _inside(folder: Path, name: str) -> Path:
    """Return a file of the archive. Raises InvalidArgument for one that is missing, a link, or outside."""
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
        raise InvalidArgument(f"the archive has no file {name}")
    return path
