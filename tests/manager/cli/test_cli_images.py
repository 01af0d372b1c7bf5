"""`pyswarm image …`, against a runtime on a real socket."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from lib.fake_control import serving

from pyswarm.proto.clock import SystemClock
from pyswarm.proto.errors import FailedPrecondition, NotFound
from pyswarm.proto.v1 import runtime_pb2 as pb
from pyswarm.proto.v1 import runtime_pb2_grpc

WEB = pb.Image(
    id="sha256:" + "a" * 64,
    digest="sha256:" + "b" * 64,
    references=["registry:5000/web:1", "registry:5000/web:latest"],
    size_bytes=4_270_000,
    created_at=900.0,
)


class FakeRuntime(runtime_pb2_grpc.RuntimeServicer):
    def __init__(self) -> None:
        self.images = [WEB, pb.Image(id="sha256:" + "c" * 64, size_bytes=10, created_at=100)]
        self.loaded = b""

    async def ListImages(self, request: Any, context: Any) -> pb.ListImagesResponse:
        return pb.ListImagesResponse(images=self.images)

    async def PullImage(self, request: pb.PullImageRequest, context: Any) -> AsyncIterator[pb.PullProgress]:
        if "missing" in request.reference:
            raise NotFound(f"no image {request.reference} in the registry", remedy="Check the name and tag.")
        yield pb.PullProgress(status="resolving")
        for done in (0, 500, 1000):
            yield pb.PullProgress(
                status="downloading", layer="sha256:123456789abcdef", current_bytes=done, total_bytes=1000
            )
        yield pb.PullProgress(status="complete", layer="sha256:123456789abcdef")
        if "cut" not in request.reference:
            yield pb.PullProgress(image=WEB)

    async def LoadImage(self, chunks: Any, context: Any) -> pb.LoadImageResponse:
        async for chunk in chunks:
            self.loaded += chunk.data
        return pb.LoadImageResponse(images=[WEB])

    async def RemoveImage(self, request: pb.RemoveImageRequest, context: Any) -> pb.RemoveImageResponse:
        if request.reference == "used" and not request.force:
            raise FailedPrecondition("image used is used by a container", remedy="Use --force.")
        return pb.RemoveImageResponse(untagged=[request.reference], deleted=[WEB.id])


@pytest.fixture
def runtime(pyswarm: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRuntime]:
    monkeypatch.setattr(SystemClock, "now", lambda self: 1000.0)
    fake = FakeRuntime()
    with serving(
        pyswarm.paths.runtime_socket, lambda server: runtime_pb2_grpc.add_RuntimeServicer_to_server(fake, server)
    ):
        yield fake


def test_ls_is_dockers_table_newest_first(pyswarm: Any, runtime: FakeRuntime) -> None:
    assert pyswarm.ok("image", "ls") == (
        "REPOSITORY          TAG       IMAGE ID       CREATED              SIZE\n"
        "registry:5000/web   1         aaaaaaaaaaaa   About a minute ago   4.27MB\n"
        "registry:5000/web   latest    aaaaaaaaaaaa   About a minute ago   4.27MB\n"
        "<none>              <none>    cccccccccccc   15 minutes ago       10B\n"
    )


def test_ls_in_json_and_ids_alone(pyswarm: Any, runtime: FakeRuntime) -> None:
    row = json.loads(pyswarm.ok("image", "ls", "--format", "json").splitlines()[0])
    assert (row["Repository"], row["Tag"], row["ID"]) == ("registry:5000/web", "1", "a" * 12)
    assert pyswarm.ok("image", "ls", "-q", "--no-trunc").splitlines()[0] == WEB.id


def test_pull_tells_each_step_once(pyswarm: Any, runtime: FakeRuntime) -> None:
    assert pyswarm.ok("image", "pull", "registry:5000/web:1") == (
        "resolving\n"
        "123456789abc: downloading (1kB)\n"
        "123456789abc: complete\n"
        f"Digest: {WEB.digest}\n"
        "Status: Image is up to date for registry:5000/web:1\n"
        "registry:5000/web:1\n"
    )
    assert pyswarm.ok("image", "pull", "-q", "registry:5000/web:1") == "registry:5000/web:1\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pull", "r:5/missing"], "Error: no image r:5/missing in the registry\nCheck the name and tag.\n"),
        (["pull", "A B"], "Error: image reference 'A B' contains white space"),
        (["pull", "r:5/cut"], "Error: the runtime ended the pull of r:5/cut without a result"),
        (["load", "-i", "/nowhere.tar"], "Error: /nowhere.tar: No such file or directory"),
        (["rm", "used"], "Error: image used is used by a container\nUse --force.\n"),
    ],
)
def test_what_goes_wrong_is_told(pyswarm: Any, runtime: FakeRuntime, words: list[str], message: str) -> None:
    assert pyswarm.fails("image", *words).startswith(message)


def test_load_sends_the_whole_archive(pyswarm: Any, runtime: FakeRuntime, tmp_path: Path) -> None:
    archive = tmp_path / "web.tar"
    archive.write_bytes(b"x" * 3_000_000)
    assert pyswarm.ok("image", "load", "-i", str(archive)) == (
        "Loaded image: registry:5000/web:1\nLoaded image: registry:5000/web:latest\n"
    )
    assert len(runtime.loaded) == 3_000_000
    assert pyswarm.ok("image", "load", "-q", input=b"more") == ""
    assert runtime.loaded.endswith(b"more")


def test_rm_says_what_it_removed(pyswarm: Any, runtime: FakeRuntime) -> None:
    assert pyswarm.ok("image", "rm", "-f", "used") == f"Untagged: used\nDeleted: {WEB.id}\n"


def test_a_node_without_a_runtime_says_so(pyswarm: Any) -> None:
    assert pyswarm.fails("image", "ls").startswith("Error: this node's runtime does not run\n")
