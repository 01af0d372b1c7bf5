"""`exec`: another process in a running container, with its namespaces, cgroups and, unless told otherwise, rights."""

import argparse
import os
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pyswarm.agent_runtime.bundle import runtime_spec
from pyswarm.agent_runtime.bundle.become import LISTENER, Filter
from pyswarm.agent_runtime.bundle.compile_bundle import CONSOLE
from pyswarm.agent_runtime.bundle.compile_exec import JoinHandover, compile_join
from pyswarm.agent_runtime.bundle.runtime_spec import Capabilities, Process, Spec
from pyswarm.agent_runtime.bundle.validate import InvalidConfig, grantable, validate_process
from pyswarm.agent_runtime.kernel import executor, syscalls
from pyswarm.agent_runtime.kernel import numbers as n
from pyswarm.agent_runtime.kernel.process import exit_code, open_pidfd
from pyswarm.agent_runtime.oci import listener, terminal
from pyswarm.agent_runtime.oci.cgroup import ContainerCgroup
from pyswarm.agent_runtime.oci.create import give_streams, own_rights, seccomp_filter, write_pid_file
from pyswarm.agent_runtime.oci.launch import StartFailed, meet, set_oom_score, steps_of
from pyswarm.agent_runtime.oci.lifecycle import refuse_unless, wait_and_forward
from pyswarm.agent_runtime.oci.state import Container, Root
from pyswarm.agent_runtime.oci.status import PAUSED, RUNNING, status_of
from pyswarm.proto.errors import InvalidArgument

_NAMESPACES = {
    "user": n.CLONE_NEWUSER, "mnt": n.CLONE_NEWNS, "uts": n.CLONE_NEWUTS, "ipc": n.CLONE_NEWIPC,
    "net": n.CLONE_NEWNET, "cgroup": n.CLONE_NEWCGROUP, "time": n.CLONE_NEWTIME,
}  # fmt: skip


@dataclass(frozen=True)
class Request:
    """`process_file` replaces everything about the process but what is changed on the command line."""

    args: tuple[str, ...]
    process_file: str = ""
    env: tuple[str, ...] = ()
    cwd: str = ""
    user: str = ""
    additional_gids: tuple[int, ...] = ()
    capabilities: tuple[str, ...] = ()
    no_new_privileges: bool = False
    tty: bool = False
    detach: bool = False
    console_socket: str = ""
    pid_file: str = ""
    preserved: int = 0
    ignore_paused: bool = False


def request_of(arguments: argparse.Namespace) -> Request:
    args = arguments.args[1:] if arguments.args[:1] == ["--"] else arguments.args
    return Request(
        args=tuple(args), process_file=arguments.process, env=tuple(arguments.env), cwd=arguments.cwd,
        user=arguments.user, additional_gids=tuple(arguments.additional_gids), capabilities=tuple(arguments.cap),
        no_new_privileges=arguments.no_new_privs, tty=arguments.tty, detach=arguments.detach,
        console_socket=arguments.console_socket, pid_file=arguments.pid_file, preserved=arguments.preserve_fds,
        ignore_paused=arguments.ignore_paused,
    )  # fmt: skip


def execute(root: Root, container: Container, wanted: Request, warn: Callable[[str], None]) -> int:
    """Execute a program in a container; returns its exit code, or 0 at once when detached. Raises SwarmError."""
    allowed = (RUNNING, PAUSED) if wanted.ignore_paused else (RUNNING,)
    refuse_unless(status_of(root, container), allowed, "execute in", container.id)
    spec = root.config(container.id)
    process = process_of(spec, wanted)
    validate_process(process)
    sets, warnings = grantable(process.capabilities, own_rights())
    for warning in warnings:
        warn(f"process.capabilities: {warning}")
    process = msgspec.structs.replace(process, capabilities=sets)
    if process.terminal and wanted.detach:
        terminal.check_console_socket(wanted.console_socket)
    if not wanted.detach:
        syscalls.prctl(n.PR_SET_CHILD_SUBREAPER, 1)
    kept: list[int] = []
    with ExitStack() as stack:
        pid = _join(root, container, spec, process, wanted, kept, stack)
        if wanted.pid_file:
            write_pid_file(Path(wanted.pid_file), pid)
    if wanted.detach:
        return 0
    if kept:
        pidfd = os.pidfd_open(pid)
        with terminal.raw(0):
            terminal.carry(kept[0], pidfd)
    return exit_code(wait_and_forward(pid))


def process_of(spec: Spec, wanted: Request) -> Process:
    """Return the process to be. Raises InvalidConfig, InvalidArgument."""
    if wanted.process_file:
        try:
            process = runtime_spec.decode_process(Path(wanted.process_file).read_bytes())
        except (msgspec.MsgspecError, RecursionError) as error:
            raise InvalidConfig(f"process ({wanted.process_file})", str(error)) from error
        except OSError as error:
            raise InvalidArgument(
                f"cannot read {wanted.process_file}: {os.strerror(error.errno or 0)}", remedy="Give a process.json."
            ) from error
    else:
        if not wanted.args:
            raise InvalidArgument("there is nothing to execute", remedy="Name a program, or a --process file.")
        # The first process's limits and priority are the container's; its terminal and size are its own.
        process = msgspec.structs.replace(spec.process, args=wanted.args, terminal=wanted.tty, console_size=None)
    process = msgspec.structs.replace(
        process,
        terminal=process.terminal or wanted.tty,
        env=(*process.env, *wanted.env),
        cwd=wanted.cwd or process.cwd,
        no_new_privileges=process.no_new_privileges or wanted.no_new_privileges,
        user=_user(process.user, wanted),
    )
    if wanted.capabilities:
        sets, more = process.capabilities, wanted.capabilities
        widened = Capabilities((*sets.bounding, *more), (*sets.effective, *more), (*sets.permitted, *more))
        process = msgspec.structs.replace(process, capabilities=widened)
    return process


def _user(own: runtime_spec.User, wanted: Request) -> runtime_spec.User:
    if wanted.user:
        uid, _, gid = wanted.user.partition(":")
        if not uid.isdecimal() or (gid and not gid.isdecimal()):
            raise InvalidArgument(f"--user {wanted.user!r} is no UID[:GID]", remedy="Give numbers.")
        own = runtime_spec.User(int(uid), int(gid) if gid else own.gid, (), own.umask)
    groups = (*own.additional_gids, *wanted.additional_gids)
    return msgspec.structs.replace(own, additional_gids=groups)


def _join(
    root: Root, container: Container, spec: Spec, process: Process, wanted: Request, kept: list[int], stack: ExitStack
) -> int:
    """Clone the child into the container and see it execute; returns its pid."""

    def keep(descriptor: int) -> int:
        stack.callback(os.close, descriptor)
        return descriptor

    pidfd = open_pidfd(container.process)
    if pidfd is None:
        refuse_unless("stopped", (RUNNING,), "execute in", container.id)
        raise AssertionError("unreachable")
    keep(pidfd)
    report, childs_report = os.pipe2(os.O_CLOEXEC)
    keep(report)
    ours, childs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    stack.callback(ours.close)
    cgroup = ContainerCgroup.of(container.cgroup)
    files = [keep(os.open(path, os.O_WRONLY | os.O_CLOEXEC)) for path in cgroup.cgroups.attach_files(cgroup.name)]
    seccomp: Filter = seccomp_filter(spec.linux.seccomp, root.filters)
    flags = _foreign_namespaces(container.pid)
    given = JoinHandover(len(files))
    program = compile_join(process, given, namespaces=flags, seccomp=seccomp, preserved=wanted.preserved)
    birthplace = cgroup.cgroups.birthplace(cgroup.name)
    into = keep(os.open(birthplace, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) if birthplace else None
    give_streams(process.user.uid)
    slots = [pidfd, childs_report, childs.fileno(), *files]
    syscalls.prctl(n.PR_SET_DUMPABLE, 0)
    child = executor.clone(program.encode(), slots, into_cgroup=into, beside=pidfd, shares_memory=False, last=True)
    syscalls.prctl(n.PR_SET_DUMPABLE, 1)
    os.close(child.report)
    os.close(childs_report)
    childs.close()
    childs_pidfd = keep(os.pidfd_open(child.pid))
    set_oom_score(child.pid, process)
    os.write(child.gate, b"1")
    os.close(child.gate)

    def take_terminal() -> None:
        master = terminal.fetch(childs_pidfd)
        if wanted.console_socket:
            terminal.hand_over(wanted.console_socket, master)
        else:
            kept.append(master)

    answers = {
        CONSOLE: take_terminal,
        LISTENER: lambda: listener.hand_over(spec, container, child.pid, childs_pidfd),
    }
    try:
        meet(ours, report, steps_of(program), process, answers, until_executed=True)
    except StartFailed:
        os.waitpid(child.pid, 0)
        raise
    return child.pid


def _foreign_namespaces(pid: int) -> int:
    """Return the flags of the namespaces in which a process is and we are not."""
    flags = 0
    for name, flag in _NAMESPACES.items():
        try:
            if os.readlink(f"/proc/{pid}/ns/{name}") != os.readlink(f"/proc/self/ns/{name}"):
                flags |= flag
        except FileNotFoundError:
            continue  # a kernel without that kind
    return flags
