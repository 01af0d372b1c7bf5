"""The daemon's side of the spawner: find the one that lives or start one, hand it programs, hear what happens.

The daemon never forks: a spawner is started with posix_spawn and outlives us. A spawner that dies leaves its
containers running without a parent; whoever uses this client hears of it through `on_lost`.
"""

import asyncio
import fcntl
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyswarm.agent_runtime.container import spawner_main
from pyswarm.agent_runtime.container import spawner_protocol as protocol
from pyswarm.agent_runtime.kernel import mounts
from pyswarm.agent_runtime.kernel import numbers as n
from pyswarm.agent_runtime.kernel.process import ProcessId
from pyswarm.proto.errors import Unavailable
from pyswarm.proto.log import get_logger

log = get_logger(__name__)

_HELLO_SECONDS = 15.0
_FIRST_FREE_DESCRIPTOR = 10


@dataclass(frozen=True)
class Started:
    """A container's first process, and when it was cloned (seconds since the epoch)."""

    process: ProcessId
    at: float


_HELD = Started(ProcessId(0, 0), 0.0)
"""The answer to `hold`: whose process it is matters once it is started."""


class StartFailed(Exception):
    """A program did not reach execve: which operation failed (-1: the clone itself) with which errno."""

    def __init__(self, index: int, errno: int) -> None:
        super().__init__(f"operation {index} failed with errno {errno}")
        self.index = index
        self.errno = errno


class SpawnerClient:
    """`on_exit(id, wait status)` is called for every exit; `on_lost()` when the spawner is gone. `native`: a spawner
    that we start uses the C executor where it was built."""

    def __init__(
        self,
        directory: Path,
        log_file: Path,
        *,
        native: bool,
        on_exit: Callable[[str, int], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._directory = directory
        self._log_file = log_file
        self._native = native
        self._on_exit = on_exit
        self._on_lost = on_lost
        self._connection: socket.socket | None = None
        self._execs: dict[str, asyncio.Future[int | None]] = {}
        self._terminals: dict[str, asyncio.Future[int | None]] = {}
        self._holds_terminals = False
        self.holds_created = False
        """Whether the connected spawner can hold a container until its start; one of an older version cannot."""
        self._starting: dict[str, asyncio.Future[Started]] = {}
        self._hello: asyncio.Future[dict[str, Any]] | None = None
        self._connecting = asyncio.Lock()
        self._child: int | None = None
        self.owned: set[str] = set()
        """Containers whose parent the connected spawner is."""

    @property
    def is_connected(self) -> bool:
        return self._connection is not None

    async def connect(self) -> None:
        """Connect to the living spawner or start one. Returns with `owned` known. Raises Unavailable."""
        async with self._connecting:
            if self._connection is not None:
                return
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            connection = self._find() or self._spawn()
            connection.setblocking(False)
            loop = asyncio.get_running_loop()
            self._hello = loop.create_future()
            self._connection = connection
            loop.add_reader(connection, self._receive)
            try:
                async with asyncio.timeout(_HELLO_SECONDS):
                    hello = await self._hello
            except TimeoutError:
                self._disconnect()
                raise Unavailable("the spawner does not answer", remedy=f"See {self._log_file}; try again.") from None
            if hello["version"] != protocol.VERSION:
                self._disconnect()
                raise Unavailable(
                    f"the running spawner speaks version {hello['version']}, this daemon {protocol.VERSION}",
                    remedy="Stop the containers it holds, or run the version that started it.",
                )
            self.owned = set(hello["containers"])
            self._holds_terminals = hello.get("holds_terminals", False)
            self.holds_created = hello.get("holds_created", False)

    @property
    def _socket_path(self) -> Path:
        return self._directory / "spawner.sock"

    def _find(self) -> socket.socket | None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.connect(str(self._socket_path))
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            return None
        return connection

    def _spawn(self) -> socket.socket:
        """Start a spawner; it inherits the listening socket, so that connecting needs no waiting."""
        self._socket_path.unlink(missing_ok=True)
        scratch = self._directory / "scratch"
        scratch.mkdir(exist_ok=True, mode=0o700)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(str(self._socket_path))
        os.chmod(self._socket_path, 0o600)
        listener.listen(4)
        output = os.open(self._log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        inherited = 3
        executor = "native" if self._native else "python"
        arguments = [sys.executable, "-I", "-S", "-E", spawner_main.__file__, str(inherited), executor, str(scratch)]
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, output, 1),
            (os.POSIX_SPAWN_DUP2, output, 2),
            (os.POSIX_SPAWN_DUP2, listener.fileno(), inherited),
        ]
        # What we were started with ignored, a shell's SIGQUIT for one, must not be ignored inside containers.
        every = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
        program = _read_only_program()
        try:
            self._child = os.posix_spawn(
                f"/proc/self/fd/{program}",
                arguments,
                {},
                file_actions=actions,
                setsid=True,
                setsigmask=[],
                setsigdef=every,
            )
        finally:
            os.close(program)
            os.close(output)
        log.info("started a spawner", pid=self._child)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.connect(str(self._socket_path))
        listener.close()
        return connection

    async def start(
        self, container_id: str, descriptors: Sequence[int], *, into_cgroup: bool, terminal: bool = False
    ) -> Started:
        """Start a container. Descriptors as in `spawner_protocol`; they stay the caller's.

        Returns once it has reached execve. Raises StartFailed, or Unavailable when the spawner is gone.
        """
        await self.connect()
        if terminal and not self._holds_terminals:
            raise Unavailable(
                "the running spawner is of a version that cannot hold terminals",
                remedy="Stop the containers it holds; the next spawner can.",
            )
        return await self._begin("start", container_id, descriptors, into_cgroup=into_cgroup, terminal=terminal)

    async def hold(
        self, container_id: str, descriptors: Sequence[int], *, into_cgroup: bool, terminal: bool = False
    ) -> None:
        """Make a container that waits for `go`; it ends with our connection. Otherwise as `start`."""
        await self._begin("hold", container_id, descriptors, into_cgroup=into_cgroup, terminal=terminal)

    async def go(self, container_id: str) -> Started:
        """Let a container that is held execute its program. Raises StartFailed (with index -1 when none is held), or
        Unavailable."""
        return await self._begin("go", container_id, ())

    async def drop(self, container_id: str) -> None:
        """Let a container that is held end."""
        await self._send({"op": "drop", "id": container_id}, ())

    async def terminal(self, container_id: str) -> int | None:
        """Return our end of a container's terminal, which is the caller's to close; None if the spawner has none."""
        if container_id not in self.owned or not self._holds_terminals:
            return None
        answer = self._terminals.setdefault(container_id, asyncio.get_running_loop().create_future())
        await self._send({"op": "terminal", "id": container_id}, ())
        return await answer

    async def execute(
        self, exec_id: str, descriptors: Sequence[int], *, into_cgroup: bool
    ) -> tuple[Started, asyncio.Future[int | None]]:
        """Start another process in a container, as `start` does; its id must not be a container's.

        Also returns what will be its wait status, or None when the spawner died and nobody knows.
        """
        ended: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self._execs[exec_id] = ended
        try:
            return await self._begin("exec", exec_id, descriptors, into_cgroup=into_cgroup), ended
        except BaseException:
            self._execs.pop(exec_id, None)
            raise

    async def _begin(self, op: str, name: str, descriptors: Sequence[int], **extra: bool) -> Started:
        await self.connect()
        started: asyncio.Future[Started] = asyncio.get_running_loop().create_future()
        self._starting[name] = started
        try:
            await self._send({"op": op, "id": name, **extra}, descriptors)
            return await started
        finally:
            self._starting.pop(name, None)

    async def release(self, container_id: str) -> None:
        """Let the spawner forget a container that has ended; without a spawner there is nothing to forget."""
        if container_id in self.owned and self._connection is not None:
            self.owned.discard(container_id)
            await self._send({"op": "release", "id": container_id}, ())

    async def _send(self, message: dict[str, Any], descriptors: Sequence[int]) -> None:
        data = protocol.encode(message)
        while self._connection is not None:
            try:
                socket.send_fds(self._connection, [data], list(descriptors), socket.MSG_NOSIGNAL)
                return
            except BlockingIOError:
                await self._writable(self._connection)
            except OSError as error:
                raise Unavailable(f"the spawner is gone: {error}", remedy="Try again.") from error
        raise Unavailable("the spawner is gone", remedy="Try again.")

    async def _writable(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        loop.add_writer(connection, lambda: None if ready.done() else ready.set_result(None))
        try:
            await ready
        finally:
            loop.remove_writer(connection)

    def _receive(self) -> None:
        while self._connection is not None:
            try:
                message, descriptors = protocol.receive(self._connection)
            except BlockingIOError:
                return
            except OSError as error:
                log.warning("lost the spawner", error=error)
                message, descriptors = None, []
            if message is None:
                self._lost()
            else:
                self._handle(message, descriptors)

    def _handle(self, message: dict[str, Any], descriptors: list[int]) -> None:
        event = message["event"]
        if event == "hello":
            if self._hello is not None and not self._hello.done():
                self._hello.set_result(message)
            return
        container_id = message["id"]
        future = self._starting.get(container_id)
        if event == "started":
            if container_id not in self._execs:
                self.owned.add(container_id)
            if future is not None and not future.done():
                future.set_result(Started(ProcessId(message["pid"], message["start_ticks"]), message["started_at"]))
        elif event == "held":
            if future is not None and not future.done():
                future.set_result(_HELD)
        elif event == "failed":
            if future is not None and not future.done():
                future.set_exception(StartFailed(message["index"], message["errno"]))
        elif event == "terminal":
            answer = self._terminals.pop(container_id, None)
            if answer is not None and not answer.done():
                answer.set_result(descriptors.pop() if descriptors else None)
            for descriptor in descriptors:
                os.close(descriptor)
        elif event == "exit" and (ended := self._execs.pop(container_id, None)) is not None:
            ended.set_result(message["status"])
        elif event == "exit":
            self._on_exit(container_id, message["status"])

    def _lost(self) -> None:
        log.warning("the spawner is gone; its containers go on without it", containers=len(self.owned))
        self._disconnect()
        self.owned.clear()
        if self._hello is not None and not self._hello.done():
            self._hello.set_exception(Unavailable("the spawner ended at once", remedy=f"See {self._log_file}."))
        for future in self._starting.values():
            if not future.done():
                future.set_exception(Unavailable("the spawner died while starting the container"))
        for ended in self._execs.values():
            ended.set_result(None)
        self._execs.clear()
        for answer in self._terminals.values():
            if not answer.done():
                answer.set_result(None)
        self._terminals.clear()
        self._on_lost()

    def _disconnect(self) -> None:
        if self._connection is not None:
            asyncio.get_running_loop().remove_reader(self._connection)
            self._connection.close()
            self._connection = None
        if self._child is not None:
            # Only a spawner that died is there to be reaped; one we merely leave alone is not.
            try:
                os.waitpid(self._child, os.WNOHANG)
            except ChildProcessError:
                pass

    def close(self) -> None:
        """Leave the spawner to itself: it keeps its containers, and ends when it has none."""
        self._disconnect()


def _read_only_program() -> int:
    """Return our own program on a read-only mount of its own, which nobody can find and so nobody can remount.

    A container executes what /proc/self/exe is in a clone of the spawner, and is root where that file is: through
    this mount it can neither write to it nor change its mode or owner, not even when nobody executes it any more
    (CVE-2019-5736).
    """
    tree = mounts.clone_tree(Path(sys.executable).resolve(), recursive=False)
    try:
        mounts.set_attributes(tree, n.MOUNT_ATTR_RDONLY)
        # Not to be in the way of the descriptors that the spawner inherits.
        return fcntl.fcntl(tree, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE_DESCRIPTOR)
    finally:
        os.close(tree)
