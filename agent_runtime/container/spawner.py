"""The spawner: parent of containers. Small, one thread, and quiet, so that it outlives everything else.

It clones containers from start programs, writes down how each one ended before it tells anybody, and holds their
output pipes open, so that what is in them is not lost while no daemon is there to read it. It decides nothing: what a
container is, the program says. A spawner without containers and without a daemon ends.

Its mount namespace holds a tiny file system of its own: cloning copies the mount table, and a child that has not
pivoted yet has nothing of the machine within reach. Standard library only.
"""

import errno
import fcntl
import gc
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pyswarm.agent_runtime.container import spawner_protocol as protocol
from pyswarm.agent_runtime.kernel import executor, process, syscalls
from pyswarm.agent_runtime.kernel import numbers as n
from pyswarm.agent_runtime.kernel.program import FAILURE, READY

_FIRST_SLOT_OUTPUT = slice(1, 3)
"""Slots of stdout and stderr, which we keep open."""
_FIRST_DAEMON_SECONDS = 60.0
_FIRST_KEPT = 512
"""Descriptors kept for containers get numbers from here on, above all that one start can need: so a child that is
cloned is easily spared those of all others."""


@dataclass
class _Container:
    id: str
    pid: int
    directory: int | None
    """Where its records go; an exec has none."""
    outputs: list[int]
    record: dict[str, object]
    report: int | None
    gate: int | None = None
    """Open while it is held."""
    is_held: bool = False
    """It was never let go: nobody is to know that it was there."""
    was_ready: bool = False
    failure: tuple[int, int] | None = None
    exited: bool = False


def main(*, socket_descriptor: int, scratch: str, native: bool) -> None:
    """Serve daemons on the listening socket until there is nothing left to watch over. `native`: use the C executor
    if there is one."""
    listener = socket.socket(fileno=socket_descriptor)
    os.set_inheritable(socket_descriptor, False)
    machine = process.machine_identity()
    _own_file_system(scratch)
    syscalls.prctl(n.PR_SET_DUMPABLE, 0)
    syscalls.prctl(n.PR_SET_CHILD_SUBREAPER, 1)
    # One descriptor for the directory and two for the output of every container.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    spawner = Spawner(listener, machine, native=native and executor.HAS_NATIVE)
    gc.collect()
    gc.freeze()
    gc.disable()
    if spawner.is_native:
        executor.keep_from_children()
    spawner.run()


def _own_file_system(scratch: str) -> None:
    """Leave the machine's mounts for a file system with nothing in it but /proc and places to attach things to."""
    syscalls.unshare(n.CLONE_NEWNS)
    syscalls.mount("none", "/", "", n.MS_REC | n.MS_PRIVATE)
    syscalls.mount("tmpfs", scratch, "tmpfs", n.MS_NOSUID | n.MS_NODEV, "mode=700,size=64k")
    os.chdir(scratch)
    for name in ("proc", "rootfs", "empty"):
        os.mkdir(name, 0o755)
    syscalls.mount("proc", "proc", "proc", n.MS_NOSUID | n.MS_NODEV | n.MS_NOEXEC)
    syscalls.pivot_root(".", ".")
    syscalls.unmount(".")
    os.chdir("/")


class Spawner:
    """The event loop: one listening socket, at most one daemon, the report pipes of starting containers, SIGCHLD."""

    def __init__(self, listener: socket.socket, machine: str, *, native: bool) -> None:
        self._listener = listener
        self.is_native = native
        self._machine = machine
        self._daemon: socket.socket | None = None
        self._containers: dict[str, _Container] = {}
        self._by_pid: dict[int, _Container] = {}
        self._reports: dict[int, _Container] = {}
        self._greeted = False
        self._poll = select.epoll()
        self._poll.register(listener, select.EPOLLIN)
        self._wakeup, wakeup_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
        self._poll.register(self._wakeup, select.EPOLLIN)
        # Handlers, not SIG_IGN: what is ignored would stay ignored inside every container.
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, lambda *_: None)

    def run(self) -> None:
        while self._containers or self._daemon or not self._greeted:
            events = self._poll.poll(None if self._greeted else _FIRST_DAEMON_SECONDS)
            if not events and not self._greeted:
                return  # whoever started us died before connecting
            for descriptor, _ in events:
                if descriptor == self._listener.fileno():
                    self._accept()
                elif self._daemon is not None and descriptor == self._daemon.fileno():
                    self._hear()
                elif descriptor == self._wakeup:
                    os.read(self._wakeup, 4096)
                    self._reap()
                elif descriptor in self._reports:
                    self._read_report(self._reports[descriptor])

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        pid, uid = _peer(connection)
        if uid != 0:
            print(f"refused process {pid} of user {uid}", file=sys.stderr, flush=True)
            connection.close()
            return
        self._hang_up()  # a new daemon takes over from one that is still closing
        self._daemon, self._greeted = connection, True
        self._poll.register(connection, select.EPOLLIN)
        known = (each for each in self._containers.values() if each.directory is not None and not each.is_held)
        hello = {"event": "hello", "version": protocol.VERSION, "pid": os.getpid()}
        ids = [container.id for container in known]
        self._tell({**hello, "containers": ids, "holds_terminals": True, "holds_created": True})

    def _hang_up(self) -> None:
        if self._daemon is not None:
            self._poll.unregister(self._daemon)
            self._daemon.close()
            self._daemon = None
            # Those it has not started are its own: the next one knows nothing of them.
            for container in self._containers.values():
                self._drop(container)

    def _tell(self, message: dict[str, object], descriptors: Sequence[int] = ()) -> None:
        """Tell the daemon, if there is one. What matters is on disk: a daemon that misses this finds it there."""
        if self._daemon is None:
            return
        try:
            socket.send_fds(self._daemon, [protocol.encode(message)], descriptors, socket.MSG_NOSIGNAL)
        except OSError as error:
            print(f"lost the daemon: {error}", file=sys.stderr, flush=True)
            self._hang_up()

    def _hear(self) -> None:
        assert self._daemon is not None
        try:
            message, descriptors = protocol.receive(self._daemon)
        except OSError:
            message, descriptors = None, []
        if message is None:
            self._hang_up()
            return
        operation = message["op"]
        if operation in ("start", "hold", "exec"):
            self._start(message, descriptors, is_exec=operation == "exec", is_held=operation == "hold")
        elif operation == "go":
            self._go(message["id"])
        elif operation == "drop" and message["id"] in self._containers:
            self._drop(self._containers[message["id"]])
        elif operation == "terminal":
            self._hand_out_terminal(message["id"])
        elif operation == "release":
            self._release(message["id"])

    def _hand_out_terminal(self, container_id: str) -> None:
        container = self._containers.get(container_id)
        held = container.outputs if container is not None else []
        self._tell({"event": "terminal", "id": container_id}, held[:1])

    def _start(self, message: dict[str, Any], descriptors: list[int], *, is_exec: bool, is_held: bool) -> None:
        container_id = message["id"]
        program_file, *slots = descriptors
        directory = None if is_exec else slots.pop(0)
        cgroup = slots.pop(0) if message["into_cgroup"] else None
        # An exec's output ends with its readers; a container's is kept for the next daemon: its pipes, or our end of
        # its terminal, whose other end is the container's alone, so that its end is seen.
        outputs = [] if is_exec else [slots.pop(0)] if message.get("terminal") else slots[_FIRST_SLOT_OUTPUT]
        try:
            program, beside = _read_all(program_file), slots[0] if is_exec else None
            child = executor.clone(
                program,
                slots,
                into_cgroup=cgroup,
                beside=beside,
                native=self.is_native,
                shares_memory=not is_held,
                others_from=_FIRST_KEPT,
            )
        except (OSError, ValueError) as error:
            print(f"cannot clone {container_id}: {error}", file=sys.stderr, flush=True)
            number = error.errno if isinstance(error, OSError) and error.errno else 22
            self._tell({"event": "failed", "id": container_id, "index": -1, "errno": number})
            for descriptor in descriptors:
                os.close(descriptor)
            return
        for descriptor in descriptors:
            if descriptor != directory and descriptor not in outputs:
                os.close(descriptor)
        record: dict[str, object] = {
            "pid": child.pid,
            "start_ticks": process.start_ticks(child.pid) or 0,
            "machine": self._machine,
        }
        directory = None if directory is None else _put_away(directory)
        outputs = [_put_away(output) for output in outputs]
        report, gate = child.report, child.gate
        if is_held:
            report, gate = _put_away(report), _put_away(gate)
        container = _Container(container_id, child.pid, directory, outputs, record, report, gate, is_held)
        self._containers[container_id] = self._by_pid[child.pid] = self._reports[report] = container
        self._poll.register(report, select.EPOLLIN)
        if is_held:
            self._open_gate(container)  # up to where it waits once more
        else:
            self._let_go(container)

    def _go(self, container_id: str) -> None:
        container = self._containers.get(container_id)
        if container is None or not container.is_held or container.gate is None:
            self._tell({"event": "failed", "id": container_id, "index": -1, "errno": errno.ESRCH})
            return
        container.is_held = False
        self._let_go(container)

    def _let_go(self, container: _Container) -> None:
        """Write down who it is, then let it go on."""
        assert container.gate is not None
        container.record["started_at"] = time.time()
        try:
            if container.directory is not None:
                protocol.write_record(container.directory, protocol.PROCESS_FILE, container.record)
        except OSError as error:
            print(f"cannot record {container.id}: {error}", file=sys.stderr, flush=True)
            container.failure = (-1, error.errno or errno.EIO)
        else:
            self._open_gate(container)
        os.close(container.gate)
        container.gate = None

    def _open_gate(self, container: _Container) -> None:
        assert container.gate is not None
        try:
            os.write(container.gate, b"1")
        except BrokenPipeError:  # it was killed; the daemon hears of it as a failed start
            container.failure = (-1, errno.EPIPE)

    def _drop(self, container: _Container) -> None:
        """Let one that is held end: it reads the end of its gate."""
        if container.is_held and container.gate is not None:
            os.close(container.gate)
            container.gate = None

    def _read_report(self, container: _Container) -> None:
        """Learn whether a child reached execve: then its report pipe closes without a word. One that is held says a
        word when it waits."""
        assert container.report is not None
        data = os.read(container.report, len(READY) + FAILURE.size)
        if len(data) != FAILURE.size and data[:1] == READY:
            container.was_ready = True
            if container.gate is not None:
                self._tell({"event": "held", "id": container.id})
            data = data[1:]
            if not data:
                return
        self._poll.unregister(container.report)
        os.close(container.report)
        del self._reports[container.report]
        container.report = None
        if len(data) == FAILURE.size:
            container.failure = FAILURE.unpack(data)
        elif container.failure is None and not container.is_held:
            self._tell({"event": "started", "id": container.id, **container.record})

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            container = self._by_pid.pop(pid, None)
            if container is not None:  # otherwise a stray that was left to us as the subreaper
                self._ended(container, status)

    def _ended(self, container: _Container, status: int) -> None:
        while container.report is not None:
            self._read_report(container)
        container.exited = True
        if container.is_held:
            if container.gate is not None and not container.was_ready:
                index, number = container.failure or (-1, errno.ESRCH)
                self._tell({"event": "failed", "id": container.id, "index": index, "errno": number})
            self._forget(container)
            return
        record: dict[str, object] = {"status": status, "finished_at": time.time()}
        if container.failure is not None:
            record["failure"] = container.failure
        try:
            if container.directory is not None:
                protocol.write_record(container.directory, protocol.EXIT_FILE, record)
        except OSError as error:
            print(f"cannot write the exit record of {container.id}: {error}", file=sys.stderr, flush=True)
        if container.failure is not None:
            index, number = container.failure
            self._tell({"event": "failed", "id": container.id, "index": index, "errno": number})
            self._forget(container)
        else:
            self._tell({"event": "exit", "id": container.id, "status": status})
            if container.directory is None:
                self._forget(container)

    def _release(self, container_id: str) -> None:
        container = self._containers.get(container_id)
        if container is not None and container.exited:
            self._forget(container)

    def _forget(self, container: _Container) -> None:
        if self._containers.get(container.id) is container:  # not another one, started since this was dropped
            del self._containers[container.id]
        for descriptor in (container.directory, container.gate, *container.outputs):
            if descriptor is not None:
                os.close(descriptor)


def _put_away(descriptor: int) -> int:
    """Return a number out of the way for what is kept for long, in place of the one it has."""
    try:
        kept = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _FIRST_KEPT)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EMFILE):
            raise
        return descriptor  # our limit is too low for that: children get a copy of it, and close it
    os.close(descriptor)
    return kept


def _read_all(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def _peer(connection: socket.socket) -> tuple[int, int]:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(credentials[0:4], sys.byteorder), int.from_bytes(credentials[4:8], sys.byteorder)
