"""Kill an image store at every step it takes on disk: `python killed_images.py OPERATION FOLDER SOURCE`.

One child for each step: it is killed right before it, in a folder of its own (`FOLDER/0`, `FOLDER/1`, …), until a
child lives to the end. Steps are seen by an audit hook, so that the store knows nothing of this. Prints the number of
folders in which a child was killed.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from pyswarm.agent_runtime.image.store import ImageStore

_WRITES = os.O_WRONLY | os.O_RDWR
_CHANGES = {
    "os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.setxattr", "os.symlink",
    "os.utime",
}  # fmt: skip


class _Killer:
    """Ends the process at its `left`-th step after `armed` was set."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.armed = False

    def on_event(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _CHANGES or (event == "open" and arguments[2] & _WRITES):
            self.step()

    def step(self, _: object = None) -> None:
        if not self.armed:
            return
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1


async def _chunks(file: Path) -> AsyncIterator[bytes]:
    yield file.read_bytes()


async def _run(operation: str, folder: Path, source: str, killer: _Killer) -> None:
    store = ImageStore(folder)
    if operation == "remove":
        await store.load(_chunks(Path(source)))
    killer.armed = True
    if operation == "pull":
        # What is reported while bytes arrive are steps too: the file is half written then.
        await store.pull(source, killer.step)
    elif operation == "load":
        await store.load(_chunks(Path(source)))
    else:
        (image,) = await store.images()
        await store.remove(image.id, force=False, in_use=lambda _: False)


def _killed_at(step: int, operation: str, folder: Path, source: str) -> bool:
    """Return whether the child was killed at that step, or lived to the end."""
    child = os.fork()
    if child == 0:
        killer = _Killer(step)
        sys.addaudithook(killer.on_event)
        asyncio.run(_run(operation, folder, source, killer))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    assert os.WEXITSTATUS(status) == 0, "the operation failed by itself"
    return False


if __name__ == "__main__":
    steps = 0
    while _killed_at(steps, sys.argv[1], Path(sys.argv[2]) / str(steps), sys.argv[3]):
        steps += 1
    print(steps)
