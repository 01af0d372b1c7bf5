"""A runtime daemon of one's own for tests: start it, kill it, talk to it, and see that it leaves nothing behind."""

import asyncio
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from lib import runtime_process

from pyswarm.agent_runtime.kernel import cgroup_layout, executor
from pyswarm.agent_runtime.kernel.cgroups import Cgroups
from pyswarm.proto.paths import NodePaths
from pyswarm.proto.rpc.client import open_unix_channel
from pyswarm.proto.v1 import runtime_pb2 as pb
from pyswarm.proto.v1.runtime_pb2_grpc import RuntimeStub

_READY_SECONDS = 20.0
_GONE_SECONDS = 10.0

EITHER_EXECUTOR = [
    "python",
    pytest.param("native", marks=pytest.mark.skipif(not executor.HAS_NATIVE, reason="it was not built")),
]
"""What a fixture is run with whose tests hold for both; `settings_of` makes a daemon's settings of it."""


def settings_of(name: str) -> str:
    return f"native-executor = {'true' if name == 'native' else 'false'}\n"


class RuntimeHost:
    """One root directory, one cgroup parent, and the daemon on them."""

    def __init__(
        self, layer: Path, *, prefix: tuple[str, ...] = (), python: Path | None = None, settings: str = ""
    ) -> None:
        """`prefix`: a command that runs the daemon's, such as `unshare` with its options; `python`: what runs it;
        `settings`: lines of its config.toml."""
        # Not pytest's directory: a unix socket's path has at most 107 characters.
        self.root = Path(tempfile.mkdtemp(prefix="pyswarm-rt-"))
        self.paths = NodePaths(self.root)
        self.layer = layer
        self.prefix = prefix
        self.python = python or Path(sys.executable)
        self.cgroup_parent = f"pyswarm-test-{os.path.basename(self.root)}"
        self.cgroups = Cgroups(cgroup_layout.detect(), self.cgroup_parent)
        self.paths.config_file.parent.mkdir(parents=True)
        self.paths.config_file.write_text(f'cgroup-parent = "{self.cgroup_parent}"\n{settings}')
        self.environment: dict[str, str] = {}
        """Variables of the next daemon."""
        self.daemon: subprocess.Popen[bytes] | None = None
        self._channel: grpc.aio.Channel | None = None
        self.stub: Any = None

    async def start_daemon(self) -> None:
        self.paths.logs.mkdir(parents=True, exist_ok=True)
        with (self.paths.logs / "runtime.log").open("ab") as output:
            self.daemon = subprocess.Popen(  # noqa: ASYNC220 - kept across event loops
                [*self.prefix, str(self.python), runtime_process.__file__, str(self.root), str(self.layer)],
                stderr=output,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )
        deadline = time.monotonic() + _READY_SECONDS
        while not self.paths.runtime_socket.exists():
            if self.daemon.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the daemon did not start:\n{self.log()}")
            await asyncio.sleep(0.01)
        await self.connect()

    async def connect(self) -> None:
        if self._channel is not None:
            await self._channel.close()
        self._channel = open_unix_channel(self.paths.runtime_socket)
        # Channels to one address share their attempts: one may have failed a moment ago, before the daemon was there.
        await self._channel.channel_ready()
        self.stub = RuntimeStub(self._channel)

    async def kill_daemon(self, number: int = signal.SIGKILL) -> None:
        """Signal the daemon and wait for its end."""
        assert self.daemon is not None
        self.daemon.send_signal(number)
        await asyncio.to_thread(self.daemon.wait, 20)
        self.paths.runtime_socket.unlink(missing_ok=True)

    def spawner_pid(self) -> int | None:
        """Return the pid of the living spawner of this root, if any."""
        scratch = str(self.paths.run / "runtime/scratch")
        return next((pid for pid, words in _command_lines() if words and words[-1] == scratch), None)

    async def kill_spawner(self) -> None:
        pid = self.spawner_pid()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await self.gone(pid)

    async def gone(self, pid: int, *, reaped: bool = False) -> None:
        """Return when the process has ended; with `reaped`, when its exit status was collected, too."""
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            poll = select.poll()
            poll.register(pidfd, 0 if reaped else select.POLLIN)  # POLLHUP always counts: it was reaped
            ready = await asyncio.to_thread(poll.poll, _GONE_SECONDS * 1000)
            assert ready, f"process {pid} lives on"
        finally:
            os.close(pidfd)

    def log(self) -> str:
        return (self.paths.logs / "runtime.log").read_text()

    # Containers

    async def create(self, name: str, *args: str, **config: Any) -> pb.Container:
        request = pb.CreateContainerRequest(id=name, config=pb.ContainerConfig(image="rootfs", args=args, **config))
        return await self.stub.CreateContainer(request)

    async def start(self, name: str, *args: str, **config: Any) -> pb.Container:
        """Create a container and start it."""
        await self.create(name, *args, **config)
        return await self.stub.StartContainer(pb.ContainerId(id=name))

    async def wait(self, name: str) -> pb.Container:
        return await self.stub.WaitContainer(pb.ContainerId(id=name), timeout=60)

    async def get(self, name: str) -> pb.Container:
        return await self.stub.GetContainer(pb.ContainerId(id=name))

    async def stop(self, name: str, grace_seconds: float = 10.0) -> pb.Container:
        return await self.stub.StopContainer(
            pb.StopContainerRequest(id=name, grace_seconds=grace_seconds), timeout=grace_seconds + 30
        )

    async def kill(self, name: str, number: str = "KILL") -> None:
        await self.stub.KillContainer(pb.KillContainerRequest(id=name, signal=number))

    async def remove(self, name: str, *, force: bool = False) -> None:
        await self.stub.RemoveContainer(pb.RemoveContainerRequest(id=name, force=force), timeout=60)

    async def records(self, name: str, *, tail: int = -1, follow: bool = False, since: float = 0) -> list[pb.LogRecord]:
        request = pb.ReadLogsRequest(id=name, tail=tail, follow=follow, since=since)
        return [record async for record in self.stub.ReadLogs(request)]

    async def lines(self, name: str) -> list[str]:
        return [record.data.decode() for record in await self.records(name)]

    async def hear(self, since: float, last: str) -> list[pb.ContainerEvent]:
        """Return the events from a moment on, up to the first of the name `last`."""
        call = self.stub.WatchEvents(pb.WatchEventsRequest(since=since))
        heard = []
        async with asyncio.timeout(30):
            async for event in call:
                heard.append(event)
                if event.action == last:
                    break
        call.cancel()
        return heard

    async def follow_until(self, name: str, text: str) -> list[str]:
        """Read the log as it grows until a line is `text`."""
        seen: list[str] = []
        async with asyncio.timeout(30):
            async for record in self.stub.ReadLogs(pb.ReadLogsRequest(id=name, tail=-1, follow=True)):
                seen.append(record.data.decode())
                if seen[-1] == text:
                    break
        return seen

    async def run(self, name: str, *args: str, **config: Any) -> tuple[int, list[str]]:
        """Run a container to its end and remove it; return exit code and output."""
        await self.start(name, *args, **config)
        ended = await self.wait(name)
        lines = await self.lines(name)
        await self.remove(name)
        return ended.exit_code, lines

    async def shell(self, script: str, **config: Any) -> tuple[int, list[str]]:
        return await self.run("shell", "sh", "-c", script, **config)

    # The end

    async def clear(self) -> list[str]:
        """Remove every container; return what is left of them all the same: mounts, directories, cgroups."""
        listed = (await self.stub.ListContainers(pb.ListContainersRequest())).containers
        await asyncio.gather(*(self.remove(container.id, force=True) for container in listed))
        mounted = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(self.root) in line]
        folder = self.paths.runtime / "containers"
        await self.erased()
        return [*mounted, *map(str, folder.iterdir()), *sorted(self.cgroups.names())]

    async def erased(self) -> None:
        """Return when everything that removed containers left on disk is erased."""
        folder = self.paths.runtime / "containers"
        async with asyncio.timeout(_GONE_SECONDS):
            while any(folder.glob(".dead-*")):  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    async def close(self) -> None:
        """Remove every container, stop everything, and fail if anything of this host is left."""
        left = []
        if self.daemon is not None and self.daemon.poll() is None:
            left = await self.clear()
        if self._channel is not None:
            await self._channel.close()
        if self.daemon is not None and self.daemon.poll() is None:
            # `unshare` itself does not listen to SIGTERM.
            await self.kill_daemon(signal.SIGKILL if self.prefix[:1] == ("unshare",) else signal.SIGTERM)
        if (spawner := self.spawner_pid()) is not None:
            await self.gone(spawner)  # without containers and daemon it ends by itself
        left += [" ".join(words) for _, words in _command_lines() if any(str(self.root) in word for word in words)]
        for top in self.cgroups.layout.hierarchies:
            for path in sorted((top / self.cgroup_parent).rglob("*"), reverse=True):
                if path.is_dir():
                    path.rmdir()
            (top / self.cgroup_parent).rmdir()
        shutil.rmtree(self.root)
        assert not left, left


def _command_lines() -> list[tuple[int, list[str]]]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
        except (FileNotFoundError, ProcessLookupError):
            continue
        found.append((int(folder.name), words))
    return found


@asynccontextmanager
async def runtime_host(
    layer: Path, *, prefix: tuple[str, ...] = (), python: Path | None = None, settings: str = ""
) -> AsyncIterator[RuntimeHost]:
    host = RuntimeHost(layer, prefix=prefix, python=python, settings=settings)
    try:
        await host.start_daemon()
        yield host
    finally:
        await host.close()
