"""The end of every program, a container's and an exec's: from the kernel's rights to those of the user. Pure.

Limits, then rights, then the working directory, then every descriptor but the standard streams is closed, then the
filter, then execve. Closed, not marked to be closed by execve: a path such as /proc/self/fd/7/bin/sh is looked up
while they are still open, and ours lead to the machine (CVE-2024-21626). `compile.py` and `compile_exec.py` write
what comes before.
"""

import errno
import os
import struct

from pyswarm.agent_runtime.bundle import defaults
from pyswarm.agent_runtime.bundle.runtime_spec import Process
from pyswarm.agent_runtime.kernel import capabilities
from pyswarm.agent_runtime.kernel import numbers as n
from pyswarm.agent_runtime.kernel.program import REPORT_SLOT, Program, Slot, Writer

_RESET_SIGNALS = (13, 25, 32, 33)
"""Python ignores SIGPIPE and SIGXFSZ, posix_spawn the two that threads use: execve would keep that."""
_SIG_SETMASK = 2


def reset_signals(w: Writer) -> None:
    """Undo what Python did to signals."""
    default_action = w.block(bytes(32))
    for signal in _RESET_SIGNALS:
        w.call("rt_sigaction", signal, default_action, 0, 8, label="reset signals")
    w.call("rt_sigprocmask", _SIG_SETMASK, w.block(bytes(8)), 0, 8, label="unblock signals")


def become(w: Writer, process: Process, *, cwd: Slot, seccomp: bytes) -> None:
    """Turn into `process`, whose standard streams are set up and whose root is entered."""
    for limit in process.rlimits:
        block = w.block(struct.pack("=QQ", limit.soft, limit.hard))
        w.call("prlimit64", 0, n.RLIMIT_NUMBERS[limit.type], block, 0, label=f"set {limit.type}")
    _give_up_rights(w, process)
    w.call("fchdir", cwd, label=f"enter the working directory {process.cwd}")
    w.call("umask", process.user.umask, label="set the umask")
    # Only the pipe that tells of a failure stays, until execve.
    w.call("dup3", REPORT_SLOT, 3, os.O_CLOEXEC, label="keep the report pipe", save=REPORT_SLOT)
    w.call("close_range", 4, 0xFFFFFFFF, 0, label="close descriptors")
    _filter_calls(w, seccomp)
    _execute(w, process)


def _give_up_rights(w: Writer, process: Process) -> None:
    bounding = frozenset(process.capabilities.bounding)
    for name, number in capabilities.NUMBERS.items():
        if name not in bounding:
            # EINVAL: this kernel is too old to know it.
            w.call("prctl", n.PR_CAPBSET_DROP, number, 0, 0, 0, label=f"drop {name}", tolerated=((errno.EINVAL, 0),))
    user = process.user
    groups = w.block(struct.pack(f"={len(user.additional_gids)}I", *user.additional_gids))
    w.call("setgroups", len(user.additional_gids), groups, label="set additional groups")
    w.call("setresgid", user.gid, user.gid, user.gid, label="set the group")
    w.call("setresuid", user.uid, user.uid, user.uid, label="set the user")
    # As in Docker, a process of another user holds none; what it may regain by execve is bounded above.
    effective = capabilities.mask(set(process.capabilities.effective)) if user.uid == 0 else 0
    permitted = capabilities.mask(set(process.capabilities.permitted)) if user.uid == 0 else 0
    low, high = 0xFFFFFFFF, 32
    sets = struct.pack("=6I", effective & low, permitted & low, 0, effective >> high, permitted >> high, 0)
    header = w.block(struct.pack("=Ii", n.LINUX_CAPABILITY_VERSION_3, 0))
    w.call("capset", header, w.block(sets), label="set capabilities")
    if process.no_new_privileges:
        w.call("prctl", n.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, label="set no_new_privs")


def _filter_calls(w: Writer, seccomp: bytes) -> None:
    code = w.block(seccomp)
    program = w.block(struct.pack("=HxxxxxxQ", len(seccomp) // 8, 0))
    w.pointer(program, 8, code)
    w.call("seccomp", n.SECCOMP_SET_MODE_FILTER, 0, program, label="install the seccomp filter")


def _execute(w: Writer, process: Process) -> None:
    name = process.args[0]
    argv, envp = w.strings(process.args), w.strings(process.env)
    if "/" in name:
        w.call("execve", w.text(name), argv, envp, label=f"execute {name}")
        return
    path = next((line[5:] for line in process.env if line.startswith("PATH=")), defaults.PATH)
    missing = tuple((number, 0) for number in (errno.ENOENT, errno.ENOTDIR, errno.EACCES))
    for folder in path.split(":"):
        candidate = f"{folder or '.'}/{name}"
        w.call("execve", w.text(candidate), argv, envp, label=f"execute {candidate}", tolerated=missing)


def explain_failure(program: Program, process: Process, index: int, number: int) -> tuple[str, int]:
    """Return what to tell people about a failed start, and the exit code a shell would give for it."""
    name = process.args[0]
    if index >= len(program.operations):
        return f'executable "{name}" not found in $PATH', 127
    operation = program.operations[index]
    reason = os.strerror(number)
    if operation.call != "execve":
        return f"cannot {operation.label}: {reason}", 128
    if number == errno.ENOENT:
        return f'cannot execute "{name}": no such file in the image, or its interpreter is missing', 127
    return f'cannot execute "{name}": {reason}', 127 if number == errno.ENOTDIR else 126
