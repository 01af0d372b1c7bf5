"""The images of this node: pull, load, list, remove. What `container` sees of images.

An image is known by the digest of its config (its id); names point to manifests (`references.py`). A pull or load first
brings blobs and layers, and only then the name: killed at any moment, it leaves at most blobs and layers that the next
removal, or the next addition that finds the disk full, clears away.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from msgspec import Struct

from pyswarm.agent_runtime.image import archive
from pyswarm.agent_runtime.image.content import ContentStore, WrongDigest
from pyswarm.agent_runtime.image.layers import LayerStore
from pyswarm.agent_runtime.image.manifest import Manifest, chain_ids, diff_ids, read_json, read_manifest
from pyswarm.agent_runtime.image.pull import KeyedLocks, Progress, Puller
from pyswarm.agent_runtime.image.references import References
from pyswarm.agent_runtime.image.registry import Registry
from pyswarm.proto.codec.image_reference import parse_reference
from pyswarm.proto.errors import FailedPrecondition, InvalidArgument, InvalidReference, NotFound, ResourceExhausted
from pyswarm.proto.log import get_logger
from pyswarm.proto.v1 import runtime_pb2 as pb
from pyswarm.proto.v1 import types_pb2

log = get_logger(__name__)

_SHORTEST_ID = 4


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
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        archive.clear_leftovers(directory)
        self._content = ContentStore(directory / "content")
        self._layers = LayerStore(directory / "layers")
        self._references = References(directory / "images.json", self._is_complete)
        self._puller = Puller(self._content, self._layers, self._is_complete)
        # One pull of a reference at a time: the second finds the first one's work done.
        self._pulling = KeyedLocks()
        self._adding = 0
        self._collecting = asyncio.Lock()
        self._has_garbage = False

    # Reading

    async def resolve(self, reference_or_id: str) -> LocalImage:
        """Return an image that is here. Raises NotFound."""
        digest, _ = self._find(reference_or_id)
        return self._image(digest)

    async def images(self) -> list[pb.Image]:
        """Return every image, by id."""
        found: dict[str, pb.Image] = {}
        for digest in sorted(self._references.digests()):
            image = self._image(digest)
            listed = found.setdefault(image.id, self._listed(image))
            # The same image may have come in two wrappings, as from a registry and from an archive.
            listed.references[:] = sorted({*listed.references, *image.references})
        return [found[image_id] for image_id in sorted(found)]

    def _listed(self, image: LocalImage) -> pb.Image:
        manifest, config = self._documents(image.digest)
        return pb.Image(
            id=image.id,
            digest=image.digest,
            size_bytes=sum(max(0, blob.size) for blob in (*manifest.layers, manifest.config)),
            created_at=_created(config),
            platform=types_pb2.Platform(architecture=str(config.get("architecture", "")), os=str(config.get("os", ""))),
            healthcheck=_healthcheck(config),
        )

    def _find(self, wanted: str) -> tuple[str, str]:
        """Return (manifest digest, the reference it was found by, or "" for an id or its beginning)."""
        start = wanted.removeprefix("sha256:")
        if len(start) >= _SHORTEST_ID and all(c in "0123456789abcdef" for c in start):
            ids = {self._documents(d)[0].config.digest: d for d in self._references.digests()}
            matching = [image_id for image_id in ids if image_id.removeprefix("sha256:").startswith(start)]
            if len(matching) == 1:
                return ids[matching[0]], ""
            if matching:
                raise InvalidArgument(f"{wanted} begins {len(matching)} image ids", remedy="Give more of the id.")
        try:
            reference = str(parse_reference(wanted))
            digest = self._references.get(reference)
        except InvalidReference:
            digest = None
        if digest is None:
            raise NotFound(f"no such image on this node: {wanted}", remedy=f"Pull it: `pyswarm image pull {wanted}`.")
        return digest, reference

    def _image(self, digest: str) -> LocalImage:
        manifest, config = self._documents(digest)
        return LocalImage(
            id=manifest.config.digest,
            digest=digest,
            references=self._references.names(digest),
            config=config,
            layers=tuple(self._layers.path(chain) for chain in chain_ids(diff_ids(config, digest))),
        )

    def _documents(self, digest: str) -> tuple[Manifest, dict[str, Any]]:
        manifest = read_manifest(self._content.read(digest), digest)
        return manifest, read_json(self._content.read(manifest.config.digest), f"the config of {digest}")

    def _is_complete(self, digest: str) -> bool:
        """Whether everything of a manifest is here, and whole."""
        try:
            _, config = self._documents(digest)
        except (FileNotFoundError, WrongDigest):
            return False
        return all(self._layers.has(chain) for chain in chain_ids(diff_ids(config, digest)))

    # Adding

    async def pull(self, reference: str, progress: Progress) -> LocalImage:
        """Make an image present and return it.

        Asks the registry which image a tag means now; one pinned by its digest that is here needs no registry. Raises
        InvalidReference, NotFound, PermissionDenied, Unavailable, WrongDigest, ResourceExhausted, BadLayer.
        """
        wanted = parse_reference(reference)
        async with self._pulling[str(wanted)], self._addition():
            digest = self._references.get(str(wanted)) if wanted.digest else None
            if digest is None:
                progress(pb.PullProgress(status=f"Pulling from {wanted.name}"))
                async with Registry(wanted, self._insecure) as registry:
                    digest = await self._puller.pull(registry, wanted, progress)
                self._references.point([str(wanted)], digest)
            return self._image(digest)

    async def load(self, chunks: AsyncIterator[bytes]) -> list[LocalImage]:
        """Take the images of a `docker save` or OCI layout archive.

        Raises InvalidArgument, BadLayer, WrongDigest, ResourceExhausted; images before the faulty one are kept.
        """
        loaded = []
        async with self._addition(), archive.unpacked(chunks, self._directory) as folder:
            for saved in await asyncio.to_thread(archive.images, folder):
                digest = await asyncio.to_thread(archive.adopt, saved, self._content, self._layers)
                self._references.point([str(parse_reference(name)) for name in saved.references], digest)
                loaded.append(self._image(digest))
        if not loaded:
            raise InvalidArgument("the archive holds no image", remedy="Give what `docker save` or an OCI tool wrote.")
        return loaded

    @asynccontextmanager
    async def _addition(self) -> AsyncIterator[None]:
        """Keep what is not named yet from being collected; the last addition collects what had to wait."""
        async with self._collecting:
            self._adding += 1
        try:
            yield
        except ResourceExhausted:
            # What failed additions have finished waits for the next attempt, but not when others need the room.
            self._has_garbage = True
            raise
        finally:
            self._adding -= 1
            await self._collect()

    # Removing

    async def remove(
        self, reference: str, *, force: bool, in_use: Callable[[str], bool]
    ) -> tuple[list[str], list[str]]:
        """Untag an image and, with its last name, delete it. Return (untagged names, deleted ids).

        Raises NotFound; and FailedPrecondition unless `force` for an id with several names and for an image that a
        container uses (`in_use` is asked by id), which even then only loses its names.
        """
        digest, named = self._find(reference)
        image = self._image(digest)
        if named and len(image.references) > 1:
            self._references.untag([named])
            return [named], []
        if len(image.references) > 1 and not force:
            raise FailedPrecondition(
                f"image {image.id.removeprefix('sha256:')[:12]} has {len(image.references)} names",
                remedy=f"Remove it by name ({', '.join(image.references)}), or use --force to remove them all.",
            )
        if in_use(image.id):
            if not force:
                raise FailedPrecondition(
                    f"image {reference} is used by a container on this node",
                    remedy="Remove the container's service first, or use --force to remove the name only.",
                )
            self._references.untag(image.references)
            return list(image.references), []
        self._references.forget(digest)
        self._has_garbage = True
        await self._collect()
        return list(image.references), [image.id]

    async def _collect(self) -> None:
        """Delete blobs and layers that no image needs, unless an image is being added: then its end does it."""
        async with self._collecting:
            if self._adding or not self._has_garbage:
                return
            self._has_garbage = False
            blobs, chains = self._needed()
            await asyncio.to_thread(self._delete_all_but, blobs, chains)

    def _needed(self) -> tuple[set[str], set[str]]:
        blobs: set[str] = set()
        chains: set[str] = set()
        for digest in self._references.digests():
            manifest, config = self._documents(digest)
            blobs |= {digest, manifest.config.digest}
            chains |= set(chain_ids(diff_ids(config, digest)))
        return blobs, chains

    def _delete_all_but(self, blobs: set[str], chains: set[str]) -> None:
        for digest in self._content.digests() - blobs:
            self._content.remove(digest)
        for chain in self._layers.chain_ids() - chains:
            self._layers.remove(chain)


def _created(config: Mapping[str, Any]) -> float:
    try:
        return datetime.fromisoformat(str(config.get("created", ""))).timestamp()
    except ValueError:
        return 0.0


def _healthcheck(config: Mapping[str, Any]) -> types_pb2.HealthConfig | None:
    """Return the image's HEALTHCHECK, as Docker builds it into the config: times in nanoseconds."""
    found = (config.get("config") or {}).get("Healthcheck")
    if not isinstance(found, Mapping) or not isinstance(found.get("Test"), list):
        return None
    try:
        return types_pb2.HealthConfig(
            test=[str(word) for word in found["Test"]],
            interval_seconds=found.get("Interval", 0) / 1e9,
            timeout_seconds=found.get("Timeout", 0) / 1e9,
            retries=found.get("Retries", 0),
            start_period_seconds=found.get("StartPeriod", 0) / 1e9,
            start_interval_seconds=found.get("StartInterval", 0) / 1e9,
        )
    except (TypeError, ValueError):
        log.warning("an image has a health check that cannot be read: it has none", healthcheck=str(found)[:200])
        return None
