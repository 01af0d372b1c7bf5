"""The start program of an exec: the system calls that bring another process into a running container. Pure.

The child is born in the container's pid namespace and cgroup v2 (the spawner sees to that) and joins the rest by one
setns on a pidfd, which no reuse of a pid can misdirect. Until execve it is not dumpable, so that nothing in the
container can look into it (CVE-2019-5736). Its working directory is opened by the kernel inside the container's root,
never through a magic link, so that no descriptor of ours can be a way out (CVE-2024-21626).
"""

import os
from dataclasses import dataclass

from pyswarm.agent_runtime.bundle.become import become, reset_signals
from pyswarm.agent_runtime.bundle.runtime_spec import Process
from pyswarm.agent_runtime.kernel import numbers as n
from pyswarm.agent_runtime.kernel.program import Program, Slot, Writer, open_how

_NAMESPACES = n.CLONE_NEWNS | n.CLONE_NEWUTS | n.CLONE_NEWIPC | n.CLONE_NEWNET | n.CLONE_NEWCGROUP


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
    for index in range(4, handover.count):
        w.call("write", Slot(index), w.text("0"), 1, label="join the cgroup")
    w.call("setns", handover.pidfd, _NAMESPACES, label="join the container")
    root, cwd = w.new_slot(), w.new_slot()
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    w.call("openat", n.AT_FDCWD, w.text("/"), flags, 0, label="open the container's root", save=root)
    how = open_how(flags, n.RESOLVE_IN_ROOT | n.RESOLVE_NO_MAGICLINKS)
    w.call(
        "openat2", root, w.text(process.cwd), w.block(how), len(how),
        label=f"open the working directory {process.cwd}", save=cwd,
    )  # fmt: skip
    for number, source in enumerate(handover.streams):
        w.call("dup3", source, number, 0, label="set up the standard streams")
    if process.terminal:
        w.call("ioctl", 0, n.TIOCSCTTY, 0, label="take the terminal")
    become(w, process, cwd=cwd, seccomp=seccomp)
    return w.finish()
