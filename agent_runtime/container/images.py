"""The image side as containers need it. `image/store.py` implements it; tests bring their own."""

from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from pyswarm.proto.v1 import runtime_pb2 as pb


class LocalImage(Protocol):
    """An image whose layers are unpacked on this node."""

    @property
    def id(self) -> str: ...

    @property
    def config(self) -> Mapping[str, Any]:
        """The OCI image config, with its `config` object."""

    @property
    def layers(self) -> tuple[Path, ...]:
        """Unpacked directories, lowest first."""


class ImageStore(Protocol):
    async def resolve(self, reference_or_id: str) -> LocalImage:
        """Raises NotFound when the image is not on this node."""

    async def pull(self, reference: str, progress: Callable[[pb.PullProgress], None]) -> LocalImage: ...

    async def load(self, chunks: AsyncIterator[bytes]) -> list[Any]: ...

    async def images(self) -> list[pb.Image]: ...

    async def remove(
        self, reference: str, *, force: bool, in_use: Callable[[str], bool]
    ) -> tuple[list[str], list[str]]: ...
