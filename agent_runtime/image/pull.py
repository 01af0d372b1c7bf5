"""Bring an image from its registry into the stores: blobs first, then layers; names belong to `store.py`.

Every byte is checked against a digest before it counts: manifest, config, compressed layer, unpacked layer. What a pull
that fails has finished stays for the next attempt.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from weakref import WeakValueDictionary

from pyswarm.agent_runtime.image.content import ContentStore, WrongDigest
from pyswarm.agent_runtime.image.layers import LayerStore
from pyswarm.agent_runtime.image.manifest import (
    Descriptor,
    chain_ids,
    choose_platform,
    diff_ids,
    digest_of,
    is_index,
    read_json,
    read_manifest,
)
from pyswarm.agent_runtime.image.registry import Registry
from pyswarm.proto.codec.image_reference import ImageReference
from pyswarm.proto.errors import InvalidArgument
from pyswarm.proto.v1 import runtime_pb2 as pb

LAYERS_AT_ONCE = 3
CONFIG_BYTES_MAX = 4 * 1024 * 1024

Progress = Callable[[pb.PullProgress], None]


class KeyedLocks:
    """A lock for each key, for as long as somebody holds or awaits it."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def __getitem__(self, key: str) -> asyncio.Lock:
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = asyncio.Lock()
        return lock


class Puller:
    """Fetches for all pulls of a daemon: two that want the same layer fetch it once."""

    def __init__(self, content: ContentStore, layers: LayerStore, is_complete: Callable[[str], bool]) -> None:
        self._content = content
        self._layers = layers
        self._is_complete = is_complete
        self._fetching = KeyedLocks()
        self._unpacking = KeyedLocks()

    async def pull(self, registry: Registry, wanted: ImageReference, progress: Progress) -> str:
        """Bring everything of an image; return its manifest's digest.

        Raises NotFound, PermissionDenied, Unavailable, InvalidArgument, WrongDigest, ResourceExhausted.
        """
        digest, data = await self._find_manifest(registry, wanted)
        if not self._is_complete(digest):
            await self._fetch(registry, str(wanted), data, progress)
            await asyncio.to_thread(self._content.put, data)
        return digest

    async def _find_manifest(self, registry: Registry, wanted: ImageReference) -> tuple[str, bytes]:
        """Return (digest, bytes) of the manifest for this machine."""
        data = await registry.manifest(wanted.digest or wanted.tag)
        if wanted.digest:
            _check(data, wanted.digest, str(wanted))
        document = read_json(data, f"the manifest of {wanted}")
        if not is_index(document):
            return digest_of(data), data
        chosen = choose_platform(document, str(wanted)).digest
        if self._is_complete(chosen):
            return chosen, self._content.read(chosen)
        data = await registry.manifest(chosen)
        _check(data, chosen, str(wanted))
        return chosen, data

    async def _fetch(self, registry: Registry, what: str, data: bytes, progress: Progress) -> None:
        manifest = read_manifest(data, what)
        if not 0 <= manifest.config.size <= CONFIG_BYTES_MAX:
            raise InvalidArgument(f"the config of {what} has a size of {manifest.config.size} bytes")
        async with self._fetching[manifest.config.digest]:
            if not self._content.has(manifest.config.digest):
                await self._content.write(manifest.config.digest, manifest.config.size, registry.blob(manifest.config))
        config = read_json(self._content.read(manifest.config.digest), f"the config of {what}")
        stack = diff_ids(config, what)
        if len(stack) != len(manifest.layers):
            raise InvalidArgument(
                f"the config of {what} names {len(stack)} layers, its manifest {len(manifest.layers)}"
            )
        slots = asyncio.Semaphore(LAYERS_AT_ONCE)

        async def layer(descriptor: Descriptor, diff_id: str, chain: str) -> None:
            # Equal stacks may come in different archives, and an archive may be in a stack twice.
            async with slots, self._unpacking[chain], self._fetching[descriptor.digest]:
                await self._fetch_layer(registry, descriptor, diff_id, chain, progress)

        try:
            async with asyncio.TaskGroup() as group:
                for descriptor, diff_id, chain in zip(manifest.layers, stack, chain_ids(stack), strict=True):
                    group.create_task(layer(descriptor, diff_id, chain), name=f"layer-{descriptor.digest[7:19]}")
        except BaseExceptionGroup as failures:
            # Callers know one error, not a group: the first is why the others were cancelled.
            raise _first(failures) from failures

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

        if not self._content.has(descriptor.digest):
            await self._content.write(descriptor.digest, descriptor.size, counted())
        progress(pb.PullProgress(status="Extracting", layer=name))
        await asyncio.to_thread(self._layers.unpack, self._content.path(descriptor.digest), diff_id, chain)
        # The unpacked layer is what is used from here on.
        self._content.remove(descriptor.digest)
        progress(pb.PullProgress(status="Pull complete", layer=name))


def _check(data: bytes, digest: str, what: str) -> None:
    found = digest_of(data)
    if found != digest:
        raise WrongDigest(f"the registry sent manifest {found} instead of {digest} for {what}")


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = failures
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
