"""Tasks that start together ask a registry together; an image that is here will do when the registry cannot be had."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from lib.fake_runtime import FakeRuntime

from pyswarm.proto.errors import Unavailable
from pyswarm.proto.v1 import runtime_pb2 as pb
from pyswarm.worker.agent.images import Images


class SlowRegistry(FakeRuntime):
    """Answers a pull only when the test lets it; `here` is on the node already."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = asyncio.Event()
        self.here: list[pb.Image] = []

    async def pull(self, reference: str) -> AsyncIterator[pb.PullProgress]:
        self._called("pull")
        number = self.calls.count("pull")
        await self.go_on.wait()
        yield pb.PullProgress(status="Downloading")
        yield pb.PullProgress(image=pb.Image(id=f"{reference}-{number}"))

    async def images(self) -> list[pb.Image]:
        return self.here


async def test_fifty_tasks_of_one_image_ask_the_registry_twice():
    runtime = SlowRegistry()
    images = Images(runtime)
    first = asyncio.create_task(images.pull("web:1"))
    await asyncio.sleep(0)
    others = [asyncio.create_task(images.pull("web:1")) for _ in range(49)]
    another = asyncio.create_task(images.pull("db:1"))
    await asyncio.sleep(0)
    runtime.go_on.set()
    found = await asyncio.gather(first, *others)
    # The tag may have moved while the first pull was under way: those who asked meanwhile must not miss that.
    assert [image.id for image in found] == ["web:1-1", *["web:1-3"] * 49]
    assert (await another).id == "db:1-2"


async def test_a_later_task_asks_again_what_the_tag_means():
    runtime = SlowRegistry()
    runtime.go_on.set()
    images = Images(runtime)
    assert [(await images.pull("web:1")).id for _ in range(2)] == ["web:1-1", "web:1-2"]


@pytest.mark.parametrize("name", ["web:1", "docker.io/library/web:1", "web:1@sha256:abc"])
async def test_the_image_that_is_here_will_do_when_the_registry_is_away(name: str):
    runtime = SlowRegistry()
    runtime.here = [pb.Image(id="sha256:1", references=["other:1"]), pb.Image(id="sha256:2", references=[name])]
    runtime.failures["pull"] = Unavailable("the registry does not answer")
    assert (await Images(runtime).pull("web:1")).id == "sha256:2"


async def test_why_an_image_cannot_be_had_is_told():
    runtime = SlowRegistry()
    runtime.failures["pull"] = Unavailable("the registry does not answer")
    with pytest.raises(Unavailable, match="the registry does not answer"):
        await Images(runtime).pull("web:1")
