"""The runtime of this node, through its unix socket: images."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, BinaryIO, cast

from pyswarm.manager.cli.settings import Settings
from pyswarm.manager.cli.view.images import StoredImage
from pyswarm.proto.errors import Unavailable
from pyswarm.proto.rpc.client import open_unix_channel
from pyswarm.proto.v1 import runtime_pb2 as pb
from pyswarm.proto.v1 import runtime_pb2_grpc

CALL_TIMEOUT_SECONDS = 30.0
CHUNK_BYTES = 1 << 20


class RuntimeClient:
    def __init__(self, channel: Any) -> None:
        self._stub = cast("runtime_pb2_grpc.RuntimeAsyncStub", runtime_pb2_grpc.RuntimeStub(channel))

    async def images(self) -> list[StoredImage]:
        answer = await self._stub.ListImages(pb.ListImagesRequest(), timeout=CALL_TIMEOUT_SECONDS)
        return [_image(message) for message in answer.images]

    def pull(self, reference: str) -> AsyncIterator[pb.PullProgress]:
        """Progress until the image is there; it takes as long as the registry does."""
        return aiter(self._stub.PullImage(pb.PullImageRequest(reference=reference)))

    async def load(self, archive: BinaryIO) -> list[StoredImage]:
        async def chunks() -> AsyncIterator[pb.LoadImageChunk]:
            while data := archive.read(CHUNK_BYTES):
                yield pb.LoadImageChunk(data=data)

        answer = await self._stub.LoadImage(chunks())
        return [_image(message) for message in answer.images]

    async def remove(self, reference: str, *, force: bool) -> tuple[list[str], list[str]]:
        """Remove a name, and the image with its last one; return (names untagged, digests deleted)."""
        request = pb.RemoveImageRequest(reference=reference, force=force)
        answer = await self._stub.RemoveImage(request, timeout=CALL_TIMEOUT_SECONDS)
        return list(answer.untagged), list(answer.deleted)


@asynccontextmanager
async def connect_runtime(settings: Settings) -> AsyncIterator[RuntimeClient]:
    """Yield a client of this node's runtime. Raises Unavailable when it is not up."""
    async with runtime_channel(settings) as channel:
        yield RuntimeClient(channel)


@asynccontextmanager
async def runtime_channel(settings: Settings) -> AsyncIterator[Any]:
    """Yield a channel to this node's runtime. Raises Unavailable when it is not up."""
    socket = settings.paths.runtime_socket
    if not socket.exists():
        raise Unavailable(
            "this node's runtime does not run",
            remedy="`pyswarm info` tells what runs here. A node has a runtime once it is part of a cluster.",
        )
    async with open_unix_channel(socket) as channel:
        yield channel


def _image(message: pb.Image) -> StoredImage:
    return StoredImage(message.id, message.digest, tuple(message.references), message.size_bytes, message.created_at)
