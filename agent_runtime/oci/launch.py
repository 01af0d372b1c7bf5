"""Clone a child that runs a start program, and meet it where it waits for us: terminal, hooks, seccomp listener.

What it tells: one byte on `sync` for each meeting, and on the report FIFO which operation failed.
"""

import os
import select
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from pyswarm.agent_runtime.bundle.become import FIND_LABEL
from pyswarm.agent_runtime.bundle.runtime_spec import Process, Spec
from pyswarm.agent_runtime.bundle.validate import InvalidConfig
from pyswarm.agent_runtime.kernel import executor
from pyswarm.agent_runtime.kernel import numbers as n
from pyswarm.agent_runtime.kernel.process import start_ticks
from pyswarm.agent_runtime.kernel.program import FAILURE, READY, Program
from pyswarm.agent_runtime.kernel.syscalls import syscall, unshare
from pyswarm.agent_runtime.oci.prepare import open_namespace, write_id_maps
from pyswarm.agent_runtime.oci.state import Step
from pyswarm.proto.errors import FailedPrecondition

_ENOENT, _EACCES, _ENOTDIR = 2, 13, 20


class StartFailed(FailedPrecondition):
    """The child could not become what the config.json asks for; `exit_code` is a shell's."""

    code = "start-failed"
    remedy = "Correct that member of the bundle's config.json, or the image."

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Child:
    pid: int
    start_ticks: int
    pidfd: int
    gate: int


def clone(spec: Spec, program: Program, descriptors: Sequence[int], birthplace: Path | None, stack: ExitStack) -> Child:
    """Clone the child, which waits at its gate. The working directory must be the rootfs. Raises OSError."""
    into = None
    if birthplace is not None:
        into = os.open(birthplace, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, into)
    beside = None
    for index, namespace in enumerate(spec.linux.namespaces):
        if namespace.type == "pid" and namespace.path:
            beside = open_namespace(f"linux.namespaces[{index}]", namespace)
            stack.callback(os.close, beside)
    with _time_namespace(spec):
        child = executor.clone(
            program.encode(), list(descriptors), into_cgroup=into, beside=beside, shares_memory=False
        )
    os.close(child.report)
    stack.callback(os.close, child.gate)
    pidfd = os.pidfd_open(child.pid)
    stack.callback(os.close, pidfd)
    return Child(child.pid, start_ticks(child.pid) or 0, pidfd, child.gate)


def _time_namespace(spec: Spec) -> ExitStack:
    """Let the next child be born in a time namespace of its own, if the spec wants one."""
    stack = ExitStack()
    if not any(namespace.type == "time" and not namespace.path for namespace in spec.linux.namespaces):
        return stack
    own = os.open("/proc/self/ns/time", os.O_RDONLY | os.O_CLOEXEC)
    stack.callback(os.close, own)
    unshare(n.CLONE_NEWTIME)
    stack.callback(syscall, "setns", own, n.CLONE_NEWTIME)
    for clock, offset in spec.linux.time_offsets.items():
        try:
            Path("/proc/self/timens_offsets").write_text(f"{clock} {offset.secs} {offset.nanosecs}")
        except OSError as error:
            stack.close()
            raise InvalidConfig(f"linux.timeOffsets.{clock}", os.strerror(error.errno or 0)) from error
    return stack


def set_from_outside(child: Child, spec: Spec) -> None:
    """Do what only the machine's root may do to the child, while it waits at its gate."""
    own_user = any(each.type == "user" and not each.path for each in spec.linux.namespaces)
    if own_user:
        try:
            write_id_maps(child.pid, spec.linux.uid_mappings, spec.linux.gid_mappings)
        except OSError as error:
            raise InvalidConfig("linux.uidMappings", f"cannot map ids: {os.strerror(error.errno or 0)}") from error
    set_oom_score(child.pid, spec.process)


def set_oom_score(pid: int, process: Process) -> None:
    if process.oom_score_adj is not None:
        try:
            Path(f"/proc/{pid}/oom_score_adj").write_text(str(process.oom_score_adj))
        except OSError as error:
            raise InvalidConfig("process.oomScoreAdj", os.strerror(error.errno or 0)) from error


def meet(
    sync: socket.socket,
    report: int,
    steps: Sequence[Step],
    process: Process,
    answers: Mapping[bytes, Callable[[], None]],
    *,
    until_executed: bool = False,
) -> None:
    """Answer the child until it is ready, or executes its program. Raises StartFailed, and what an answer raises."""
    poll = select.poll()
    poll.register(sync, select.POLLIN)
    poll.register(report, select.POLLIN)
    while True:
        ready = {descriptor for descriptor, _ in poll.poll()}
        if sync.fileno() in ready:
            word = sync.recv(1)
            if word == READY:
                return
            if word:
                answers[word]()
                sync.send(b"1")
                continue
            poll.unregister(sync)
        if report in ready:
            explain_report(os.read(report, FAILURE.size), steps, process)
            if until_executed:
                return
            raise StartFailed("the container's first process was killed while it was created", 128)


def explain_report(data: bytes, steps: Sequence[Step], process: Process, *, first: int = 0) -> None:
    """Raise StartFailed for a failure record; do nothing for the end of a child that executes, or was killed."""
    if len(data) != FAILURE.size:
        return
    index, number = FAILURE.unpack(data)
    name = process.args[0]
    if index - first >= len(steps):
        raise StartFailed(f'process.args: "{name}": executable file not found in $PATH', 127)
    step = steps[index - first]
    reason = os.strerror(number)
    if step.label == FIND_LABEL and "/" not in name and number != _EACCES:
        raise StartFailed(f'process.args: "{name}": executable file not found in $PATH', 127)
    if step.call != "execve" and step.label != FIND_LABEL:
        raise StartFailed(f"config.json: {step.field}: cannot {step.label}: {reason}", 128)
    if number == _ENOENT:
        reason = "no such file or directory in the rootfs (or its interpreter is missing)"
    raise StartFailed(f'process.args: cannot execute "{name}": {reason}', 127 if number in (_ENOENT, _ENOTDIR) else 126)


def steps_of(program: Program) -> tuple[Step, ...]:
    return tuple(Step(each.call, each.label, each.field) for each in program.operations)
