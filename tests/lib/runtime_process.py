"""The runtime daemon with one image, `rootfs`, made of a directory: `python runtime_process.py ROOT LAYER`."""

import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from lib import kill_at_step

from pyswarm.agent_runtime.config import read_config
from pyswarm.agent_runtime.main import run, serve
from pyswarm.proto.errors import NotFound
from pyswarm.proto.log import configure
from pyswarm.proto.paths import NodePaths
from pyswarm.proto.v1 import runtime_pb2 as pb


@dataclass(frozen=True)
class DirectoryImage:
    layers: tuple[Path, ...]
    id: str = "sha256:" + "0" * 64
    config: dict[str, Any] = field(default_factory=lambda: {"config": {"Env": ["FROM_IMAGE=yes"], "Cmd": ["sh"]}})


class DirectoryImages:
    """An image store that holds one unpacked directory under the name `rootfs`."""

    def __init__(self, layer: Path) -> None:
        self._image = DirectoryImage((layer,))

    async def resolve(self, reference_or_id: str) -> DirectoryImage:
        if reference_or_id not in ("rootfs", self._image.id):
            raise NotFound(f"no such image: {reference_or_id}", remedy="Pull it first.")
        return self._image

    async def pull(self, reference: str, progress: Callable[[pb.PullProgress], None]) -> DirectoryImage:
        progress(pb.PullProgress(status="already here"))
        return await self.resolve(reference)

    async def load(self, chunks: AsyncIterator[bytes]) -> list[Any]:
        return [self._image async for _ in chunks][:1]

    async def images(self) -> list[pb.Image]:
        return [pb.Image(id=self._image.id, references=["rootfs"])]

    async def remove(
        self, reference: str, *, force: bool, in_use: Callable[[str], bool]
    ) -> tuple[list[str], list[str]]:
        return ([], []) if in_use(self._image.id) else ([reference], [self._image.id])


if __name__ == "__main__":
    kill_at_step.install()
    paths = NodePaths(Path(sys.argv[1]))
    configure(component="runtime", level="info")
    run(serve(paths, read_config(paths.config_file), lambda: DirectoryImages(Path(sys.argv[2]))))
