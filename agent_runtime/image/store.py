"""The images of this node: pull, load, list, remove. What `container` sees of images.

An image is known by the digest of its config (its id); references point to manifests, in one small file that is replaced
whole. A pull first writes blobs, then unpacks layers, and only then moves the reference: killed at any moment, it leaves at
most blobs and layers that the next start or removal clears away.
"""

import asyncio
import json
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from msgspec import Struct

from pyswarm.agent_runtime.image import archive
from pyswarm.agent_runtime.image.content import ContentStore, WrongDigest
from pyswarm.agent_runtime.image.layers import LayerStore
from pyswarm.agent_runtime.image.manifest import (
    Descriptor,
    Manifest,
    chain_ids,
    choose_platform,
    diff_ids,
    digest_of,
    is_index,
    read_json,
    read_manifest,
)
from pyswarm.agent_runtime.image.registry import Registry
from pyswarm.proto.codec.image_reference import ImageReference, parse_reference
from pyswarm.proto.errors import FailedPrecondition, InvalidArgument, InvalidReference, NotFound
from pyswarm.proto.log import get_logger
from pyswarm.proto.v1 import runtime_pb2 as pb
from pyswarm.proto.v1 import types_pb2

log = get_logger(__name__)

LAYERS_AT_ONCE = 3

Progress = Callable[[pb.PullProgress], None]


class LocalImage(Struct, frozen=True):
    """An image whose layers are unpacked on this node. `layers` are directories, lowest first."""

    id: str
    digest: str
    references: tuple[str, ...]
    config: Mapping[str, Any]
    layers: tuple[Path, ...]


class ImageStore:
    """One per daemon; its methods may run side by side."""

    def __init__(self, directory: Path, *, insecure_registries: Sequence[str] = ()) -> None:
        self._insecure = tuple(insecure_registries)
        self._file = directory / "images.json"
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._content = ContentStore(directory / "content")
        self._layers = LayerStore(directory / "layers")
        self._references: dict[str, str] = self._load_references()
        # One pull of a reference, and one unpacking of a layer, at a time: the second finds the first one's work done.
        self._pulling: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._fetching: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    # -- reading

    async def resolve(self, reference_or_id: str) -> LocalImage:
        """Return an image that is here. Raises NotFound."""
        return self._image(self._manifest_digest(reference_or_id))

    async def images(self) -> list[pb.Image]:
        """Return every image, by id."""
        found = {}
        for digest in sorted(set(self._references.values())):
            image = self._image(digest)
            config = image.config
            found[image.id] = pb.Image(
                id=image.id,
                digest=digest,
                references=image.references,
                size_bytes=self._size(digest),
                created_at=_created(config),
                platform=types_pb2.Platform(
                    architecture=str(config.get("architecture", "")), os=str(config.get("os", ""))
                ),
            )
        return [found[id] for id in sorted(found)]

    def _manifest_digest(self, wanted: str) -> str:
        """Return the manifest that a reference, id or unique id prefix names."""
        plain = wanted.removeprefix("sha256:")
        by_id = {
            self._image(d).id: d
            for d in set(self._references.values())
            if len(plain) >= 4 and self._image(d).id.removeprefix("sha256:").startswith(plain)
        }
        if len(by_id) == 1:
            return next(iter(by_id.values()))
        if len(by_id) > 1:
            raise InvalidArgument(f"{wanted} names {len(by_id)} images", remedy="Give more of the id.")
        try:
            digest = self._references.get(str(_normal(wanted)))
        except InvalidReference:
            digest = None
        if digest is None:
            raise NotFound(f"no such image on this node: {wanted}", remedy=f"Pull it: `pyswarm image pull {wanted}`.")
        return digest

    def _image(self, digest: str) -> LocalImage:
        manifest = read_manifest(self._content.read(digest), digest)
        config = read_json(self._content.read(manifest.config.digest), digest)
        return LocalImage(
            id=manifest.config.digest,
            digest=digest,
            references=tuple(sorted(r for r, d in self._references.items() if d == digest)),
            config=config,
            layers=tuple(self._layers.path(chain) for chain in chain_ids(diff_ids(config, digest))),
        )

    def _size(self, digest: str) -> int:
        manifest = read_manifest(self._content.read(digest), digest)
        return sum(max(0, layer.size) for layer in manifest.layers) + max(0, manifest.config.size)

    # -- pulling

    async def pull(self, reference: str, progress: Progress) -> LocalImage:
        """Make an image present and return it. Raises NotFound, Unavailable, WrongDigest, ResourceExhausted, …"""
        wanted = _normal(reference)
        async with self._pulling[str(wanted)], Registry(wanted, self._insecure) as registry:
            progress(pb.PullProgress(status=f"Pulling from {wanted.name}"))
            digest, data = await self._find_manifest(registry, wanted)
            if not self._is_complete(digest):
                self._content.put(data)
                await self._fetch(registry, digest, read_manifest(data, reference), progress)
            self._refer(str(wanted), digest)
        return self._image(digest)

    async def _find_manifest(self, registry: Registry, wanted: ImageReference) -> tuple[str, bytes]:
        """Return (digest, bytes) of the manifest for this machine, every step verified."""
        data = await registry.manifest(wanted.digest or wanted.tag or "latest")
        digest = digest_of(data)
        if wanted.digest and digest != wanted.digest:
            raise WrongDigest(f"the registry sent manifest {digest} for {wanted}")
        document = read_json(data, f"the manifest of {wanted}")
        if not is_index(document):
            return digest, data
        chosen = choose_platform(document, str(wanted))
        data = await registry.manifest(chosen.digest)
        if digest_of(data) != chosen.digest:
            raise WrongDigest(f"the registry sent manifest {digest_of(data)} instead of {chosen.digest}")
        return chosen.digest, data

    async def _fetch(self, registry: Registry, digest: str, manifest: Manifest, progress: Progress) -> None:
        if not self._content.has(manifest.config.digest):
            config = manifest.config
            await self._content.write(config.digest, config.size, registry.blob(config))
        config_document = read_json(self._content.read(manifest.config.digest), digest)
        stack = diff_ids(config_document, digest)
        if len(stack) != len(manifest.layers):
            raise InvalidArgument(
                f"the config of {digest} names {len(stack)} layers, its manifest {len(manifest.layers)}"
            )
        slots = asyncio.Semaphore(LAYERS_AT_ONCE)

        async def layer(descriptor: Descriptor, diff_id: str, chain: str) -> None:
            async with slots, self._fetching[chain]:
                await self._fetch_layer(registry, descriptor, diff_id, chain, progress)

        try:
            async with asyncio.TaskGroup() as group:
                for descriptor, diff_id, chain in zip(manifest.layers, stack, chain_ids(stack), strict=True):
                    group.create_task(layer(descriptor, diff_id, chain), name=f"layer-{descriptor.digest[7:19]}")
        except BaseExceptionGroup as group_error:
            # Callers know one error, not a group: the first is why the others were cancelled.
            raise _plain(group_error) from group_error

    async def _fetch_layer(
        self, registry: Registry, descriptor: Descriptor, diff_id: str, chain: str, progress: Progress
    ) -> None:
        name = descriptor.digest.removeprefix("sha256:")[:12]
        if self._layers.has(chain):
            progress(pb.PullProgress(status="Already exists", layer=name))
            return

        async def counted() -> AsyncIterator[bytes]:
            count = 0
            async for chunk in registry.blob(descriptor):
                count += len(chunk)
                progress(
                    pb.PullProgress(
                        status="Downloading", layer=name, current_bytes=count, total_bytes=max(0, descriptor.size)
                    )
                )
                yield chunk

        await self._content.write(descriptor.digest, descriptor.size, counted())
        progress(pb.PullProgress(status="Extracting", layer=name))
        await asyncio.to_thread(self._layers.unpack, self._content.path(descriptor.digest), diff_id, chain)
        # The unpacked layer is what is used from here on.
        self._content.remove(descriptor.digest)
        progress(pb.PullProgress(status="Pull complete", layer=name))

    def _is_complete(self, digest: str) -> bool:
        """Whether everything of a manifest is here."""
        try:
            return self._content.has(digest) and all(path.is_dir() for path in self._image(digest).layers)
        except (FileNotFoundError, WrongDigest):
            return False

    # -- loading

    async def load(self, chunks: AsyncIterator[bytes]) -> list[LocalImage]:
        """Take the images of a `docker save` or OCI layout archive. Raises InvalidArgument, WrongDigest."""
        loaded = []
        async with archive.unpacked(chunks, self._file.parent) as folder:
            for saved in archive.images(folder):
                manifest = await asyncio.to_thread(archive.adopt, saved, self._content, self._layers)
                for reference in saved.references:
                    self._refer(str(_normal(reference)), manifest)
                if not saved.references:
                    self._refer(f"<none>@{manifest}", manifest)
                loaded.append(self._image(manifest))
        if not loaded:
            raise InvalidArgument("the archive holds no image", remedy="Give what `docker save` or an OCI tool wrote.")
        return loaded

    # -- removing

    async def remove(
        self, reference: str, *, force: bool, in_use: Callable[[str], bool]
    ) -> tuple[list[str], list[str]]:
        """Untag an image and, with its last reference, delete it. Return (untagged references, deleted ids).

        Raises NotFound, and FailedPrecondition for an image that a container uses unless `force`, which only untags it.
        """
        digest = self._manifest_digest(reference)
        image = self._image(digest)
        named = str(_normal(reference)) if not image.id.removeprefix("sha256:").startswith(_hex(reference)) else ""
        references = [named] if named in image.references else list(image.references)
        if named not in image.references and len(references) > 1 and not force:
            raise FailedPrecondition(
                f"image {image.id[7:19]} is referenced by {len(references)} names",
                remedy="Remove it by name, or use --force to remove all names.",
            )
        is_last = len(references) == len(image.references)
        if is_last and in_use(image.id) and not force:
            raise FailedPrecondition(
                f"image {reference} is being used by a container on this node",
                remedy="Remove the container's service first, or use --force to remove the name only.",
            )
        for name in references:
            del self._references[name]
        if is_last and in_use(image.id):
            self._references[f"<none>@{digest}"] = digest
            self._save()
            return references, []
        self._save()
        if not is_last:
            return references, []
        await asyncio.to_thread(self._collect)
        return references, [image.id]

    def _collect(self) -> None:
        """Delete blobs and layers that no image needs."""
        blobs: set[str] = set()
        chains: set[str] = set()
        for digest in set(self._references.values()):
            manifest = read_manifest(self._content.read(digest), digest)
            config = read_json(self._content.read(manifest.config.digest), digest)
            blobs |= {digest, manifest.config.digest}
            chains |= set(chain_ids(diff_ids(config, digest)))
        for digest in self._content.digests() - blobs:
            self._content.remove(digest)
        for chain in self._layers.chain_ids() - chains:
            self._layers.remove(chain)

    # -- references

    def _refer(self, reference: str, digest: str) -> None:
        if self._references.get(reference) != digest:
            self._references[reference] = digest
            self._save()

    def _load_references(self) -> dict[str, str]:
        try:
            stored: dict[str, str] = json.loads(self._file.read_text())
        except FileNotFoundError:
            return {}
        whole = {r: d for r, d in stored.items() if self._content.has(d)}
        for lost in sorted(set(stored) - set(whole)):
            log.warning("an image has lost its content", reference=lost)
        return whole

    def _save(self) -> None:
        aside = self._file.with_suffix(".new")
        with aside.open("w") as file:
            json.dump(self._references, file, indent=1, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        aside.rename(self._file)


def _normal(reference: str) -> ImageReference:
    return parse_reference(reference)


def _hex(reference: str) -> str:
    """What `reference` would be as the beginning of an id; a text that no id begins with when it cannot be one."""
    plain = reference.removeprefix("sha256:")
    return plain if len(plain) >= 4 and all(c in "0123456789abcdef" for c in plain) else "-"


def _created(config: Mapping[str, Any]) -> float:
    try:
        return datetime.fromisoformat(str(config.get("created", "")).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return 0.0


def _plain(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
