"""The start program of an exec: the system calls that bring another process into a running container. Pure.

The child is born in the container's pid namespace and cgroup v2 (the spawner sees to that) and joins the rest by one
setns on a pidfd, which no reuse of a pid can misdirect. Until execve it is not dumpable, so that nothing in the
container can look into it (CVE-2019-5736). Its working directory is opened by the kernel inside the container's root,
never through a magic link, so that no descriptor of ours can be a way out (CVE-2024-21626).
"""

import os
from dataclasses import dataclass

from pyswarm.agent_runtime.bundle.become import Filter, Hold, become, leave_our_keys, reset_signals
from pyswarm.agent_runtime.bundle.compile_bundle import CONSOLE, CONSOLE_MASTER, meet_parent, take_terminal
from pyswarm.agent_runtime.bundle.runtime_spec import Process
from pyswarm.agent_runtime.kernel import numbers as n
from pyswarm.agent_runtime.kernel.program import REPORT_SLOT, Program, Slot, Writer, open_how

_NAMESPACES = n.CLONE_NEWNS | n.CLONE_NEWUTS | n.CLONE_NEWIPC | n.CLONE_NEWNET | n.CLONE_NEWCGROUP


def _open_directories(w: Writer, process: Process) -> tuple[Slot, Slot]:
    """Open the container's root and, below it, the working directory."""
    root, cwd = w.new_slot(), w.new_slot()
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    w.call("openat", n.AT_FDCWD, w.text("/"), flags, 0, label="open the container's root", save=root)
    how = open_how(flags, n.RESOLVE_IN_ROOT | n.RESOLVE_NO_MAGICLINKS)
    w.field = "process.cwd"
    w.call(
        "openat2", root, w.text(process.cwd), w.block(how), len(how),
        label=f"open the working directory {process.cwd}", save=cwd,
    )  # fmt: skip
    return root, cwd


@dataclass(frozen=True)
class JoinHandover:
    """Descriptors of the first slots of `compile_join`, whose standard streams are its parent's."""

    cgroup_files: int

    pidfd = Slot(0)
    report = Slot(1)
    sync = Slot(2)


def compile_join(
    process: Process, handover: JoinHandover, *, namespaces: int, seccomp: Filter, preserved: int
) -> Program:
    """Return the program of an exec of the OCI command line: any process, any namespaces, a terminal of its own."""
    w = Writer()
    w.call(
        "fcntl", handover.report, n.F_DUPFD_CLOEXEC, CONSOLE_MASTER + 1, label="keep the report pipe",
        save=REPORT_SLOT,
    )  # fmt: skip
    reset_signals(w)
    w.call("setsid", label="start a session")
    for index in range(handover.cgroup_files):
        w.call("write", Slot(3 + index), w.text("0"), 1, label="join the cgroup")
    w.field = "linux.namespaces"
    if namespaces:
        w.call("setns", handover.pidfd, namespaces, label="join the container")
    if namespaces & n.CLONE_NEWUSER:
        w.call("setresgid", 0, 0, 0, label="become root of the user namespace")
        w.call("setresuid", 0, 0, 0, label="become root of the user namespace")
    root, cwd = _open_directories(w, process)
    if process.terminal:
        w.field = "process.terminal"
        master = w.new_slot()
        how = open_how(os.O_RDWR | os.O_NOCTTY, n.RESOLVE_IN_ROOT | n.RESOLVE_NO_MAGICLINKS)
        path = w.text("dev/pts/ptmx")
        w.call("openat2", root, path, w.block(how), len(how), label="open a terminal", save=master)
        take_terminal(w, process, master, w.new_slot())
        meet_parent(w, handover.sync, CONSOLE)
    become(w, process, cwd=cwd, seccomp=seccomp, preserved=preserved, hold=Hold(handover.sync, None))
    return w.finish()


@dataclass(frozen=True)
class ExecHandover:
    """Descriptors of the first slots: pidfd, stdin, stdout, stderr, then the `tasks` files of v1 cgroups."""

    cgroup_files: int

    pidfd = Slot(0)
    streams = (Slot(1), Slot(2), Slot(3))

    @property
    def count(self) -> int:
        return 4 + self.cgroup_files


def compile_exec(process: Process, handover: ExecHandover, *, seccomp: bytes) -> Program:
    """Return the program that turns a fresh clone into `process` of the container."""
    w = Writer()
    reset_signals(w)
    w.call("setsid", label="start a session")
    leave_our_keys(w)
    for index in range(4, handover.count):
        w.call("write", Slot(index), w.text("0"), 1, label="join the cgroup")
    w.call("setns", handover.pidfd, _NAMESPACES, label="join the container")
    _, cwd = _open_directories(w, process)
    for number, source in enumerate(handover.streams):
        w.call("dup3", source, number, 0, label="set up the standard streams")
    if process.terminal:
        w.call("ioctl", 0, n.TIOCSCTTY, 0, label="take the terminal")
    become(w, process, cwd=cwd, seccomp=Filter(seccomp))
    return w.finish()
