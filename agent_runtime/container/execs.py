"""Bring another process into a running container: decide who it is, open what its program needs, hand it over.

Which descriptors it gets as its standard streams is `exec_session`'s business; running containers are `containers`'.
"""

import asyncio
import math
import os
import posixpath
import signal
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import msgspec

from pyswarm.agent_runtime.bundle import runtime_spec, users
from pyswarm.agent_runtime.bundle.become import Steps, explain_failure
from pyswarm.agent_runtime.bundle.compile_exec import ExecHandover, compile_exec
from pyswarm.agent_runtime.bundle.runtime_spec import Process
from pyswarm.agent_runtime.container.exec_streams import Streams
from pyswarm.agent_runtime.container.prepare import Preparer, memory_file
from pyswarm.agent_runtime.container.record import Record
from pyswarm.agent_runtime.container.spawner_client import SpawnerClient, StartFailed
from pyswarm.agent_runtime.kernel import rootfs_files
from pyswarm.agent_runtime.kernel.process import ProcessId, open_pidfd
from pyswarm.agent_runtime.kernel.program import Program
from pyswarm.proto.entropy import Entropy
from pyswarm.proto.errors import FailedPrecondition, InvalidArgument
from pyswarm.proto.v1 import runtime_pb2 as pb

EXEC_SECONDS = 60.0
"""How long a process may take from clone to execve before it is given up."""


class CannotExecute(Exception):
    """The container is there, the program is not, or may not be executed: a reason and a shell's exit code for it."""

    def __init__(self, reason: str, exit_code: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.exit_code = exit_code


@dataclass(frozen=True)
class Running:
    """A process under way; `ended` will be its wait status, or None when nobody can know."""

    process: ProcessId
    ended: asyncio.Future[int | None]

    def signal(self, number: int) -> None:
        """Send a signal; one that has ended does not mind."""
        pidfd = open_pidfd(self.process)
        if pidfd is not None:
            try:
                signal.pidfd_send_signal(pidfd, number)
            except ProcessLookupError:
                pass  # it is ending; its exit is on the way
            finally:
                os.close(pidfd)


class Execs:
    """`joinable` returns a running container's record and a pidfd that is ours to close."""

    def __init__(
        self,
        preparer: Preparer,
        spawner: SpawnerClient,
        joinable: Callable[[str], tuple[Record, int]],
        entropy: Entropy,
    ) -> None:
        self._entropy = entropy
        self._preparer = preparer
        self._spawner = spawner
        self._joinable = joinable

    async def start(self, config: pb.ExecConfig, streams: Streams) -> Running:
        """Execute a program in a container. Takes over the child's ends of `streams`.

        Raises CannotExecute, or SwarmError when the request is wrong or the container does not run.
        """
        with ExitStack() as opened:
            opened.callback(streams.close_childs_ends)
            _check(config)
            record, pidfd = self._joinable(config.container)
            opened.callback(os.close, pidfd)
            # Never used before: a spawner outlives us, and with it the processes our predecessor started.
            name = f"{record.id}/{self._entropy.new_id()}"
            process, program, descriptors, into_cgroup = await asyncio.to_thread(
                self._prepare, record, pidfd, config, streams, opened
            )
            try:
                async with asyncio.timeout(EXEC_SECONDS):
                    started, ended = await self._spawner.execute(name, descriptors, into_cgroup=into_cgroup)
            except StartFailed as error:
                if error.index < 0:
                    raise FailedPrecondition(
                        f"container {record.id} cannot be joined: {os.strerror(error.errno)}",
                        remedy="See whether it still runs.",
                    ) from error
                raise CannotExecute(
                    *explain_failure(Steps.of(program), process.args[0], error.index, error.errno)
                ) from error
            except TimeoutError:
                raise CannotExecute(f"the program was not executed within {EXEC_SECONDS:.0f} s", 126) from None
            return Running(started.process, ended)

    def _prepare(
        self, record: Record, pidfd: int, config: pb.ExecConfig, streams: Streams, opened: ExitStack
    ) -> tuple[Process, Program, list[int], bool]:
        def keep(descriptor: int) -> int:
            opened.callback(os.close, descriptor)
            return descriptor

        assert record.process is not None
        root = keep(os.open(f"/proc/{record.process.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        still = open_pidfd(record.process)
        if still is None:
            raise FailedPrecondition(f"container {record.id} is not running", remedy="Start it first.")
        keep(still)  # checked after opening its root: that was this very process's
        spec = runtime_spec.decode((self._preparer.state.path(record.id) / "config.json").read_bytes())
        wanted = config.user or record.config.user or record.created.image.get("User") or ""
        process = _process(spec.process, config, self._user(wanted, record.config.groups, root))
        streams.give_to(process.user.uid)
        files = [
            keep(os.open(path, os.O_WRONLY | os.O_CLOEXEC)) for path in self._preparer.cgroups.attach_files(record.id)
        ]
        granted = frozenset(process.capabilities.bounding)
        handover = ExecHandover(len(files))
        program = compile_exec(process, handover, seccomp=self._preparer.filters.filter_for(granted))
        birthplace = self._preparer.cgroups.birthplace(record.id)
        first = [keep(memory_file(program.encode()))]
        if birthplace is not None:
            first.append(keep(os.open(birthplace, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)))
        slots = [pidfd, *streams.childs_ends, *files]
        assert len(slots) == handover.count
        return process, program, [*first, *slots], birthplace is not None

    def _user(self, wanted: str, groups: Sequence[str], root: int) -> users.ResolvedUser:
        passwd, group = (rootfs_files.read_file(root, path) for path in ("/etc/passwd", "/etc/group"))
        return users.resolve(wanted, passwd, group, groups)


def _check(config: pb.ExecConfig) -> None:
    if not config.args:
        raise InvalidArgument("there is no command to execute", remedy="Name a program and its arguments.")
    if any("\0" in text for text in (*config.args, *config.env, config.dir, config.user)):
        raise InvalidArgument("a NUL character in a command, its environment or directory", remedy="Remove it.")
    if not 0 <= config.timeout_seconds < math.inf:
        raise InvalidArgument("the timeout is not a length of time", remedy="Give seconds, or 0 for none.")
    if config.dir and not posixpath.isabs(config.dir):
        raise InvalidArgument(f"the working directory {config.dir!r} is not absolute", remedy="Start it with `/`.")


def _process(own: Process, config: pb.ExecConfig, found: users.ResolvedUser) -> Process:
    """Return the process to be: the container's own rights and limits, the request's command, user and variables."""
    env = {line.partition("=")[0]: line for line in own.env}
    if config.user:
        env["HOME"] = f"HOME={found.home}"
    if config.tty:
        env.setdefault("TERM", "TERM=xterm")
    env.update({line.partition("=")[0]: line for line in config.env if "=" in line})
    process = msgspec.structs.replace(
        own,
        args=tuple(config.args),
        env=tuple(env.values()),
        cwd=config.dir or own.cwd,
        user=found.user,
        terminal=config.tty,
    )
    return users.with_rights(process)
