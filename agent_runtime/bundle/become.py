"""The end of every program, a container's and an exec's: from the kernel's rights to those of the user. Pure.

Limits, then rights, then the working directory, then every descriptor but the standard streams is closed, then the
filter, then execve. Closed, not marked to be closed by execve: a path such as /proc/self/fd/7/bin/sh is looked up
while they are still open, and ours lead to the machine (CVE-2024-21626). `compile.py` and `compile_exec.py` write
what comes before.
"""

import errno
import os
import struct
from dataclasses import dataclass

from pyswarm.agent_runtime.bundle import defaults
from pyswarm.agent_runtime.bundle.runtime_spec import Process
from pyswarm.agent_runtime.kernel import capabilities
from pyswarm.agent_runtime.kernel import numbers as n
from pyswarm.agent_runtime.kernel.program import GATE_SLOT, READY, REPORT_SLOT, Program, Slot, Writer

_RESET_SIGNALS = (13, 25, 32, 33)
"""Python ignores SIGPIPE and SIGXFSZ, posix_spawn the two that threads use: execve would keep that."""
_SIG_SETMASK = 2
_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.EACCES)


def reset_signals(w: Writer) -> None:
    """Undo what Python did to signals."""
    default_action = w.block(bytes(32))
    for signal in _RESET_SIGNALS:
        w.call("rt_sigaction", signal, default_action, 0, 8, label="reset signals")
    w.call("rt_sigprocmask", _SIG_SETMASK, w.block(bytes(8)), 0, 8, label="unblock signals")


def block_signals(w: Writer) -> None:
    """Have signals wait for a program that asks for them, also those that the kernel keeps from a pid 1."""
    w.call("rt_sigprocmask", _SIG_SETMASK, w.block(b"\xff" * 8), 0, 8, label="block signals")


@dataclass(frozen=True)
class Hold:
    """Where a child meets its parent. One that has `go` stops before it executes anything: it tells `ready` that it
    has come that far, and goes on when a byte comes through `go`."""

    ready: Slot
    go: Slot | None

    @property
    def is_under_its_parent(self) -> bool:
        """Whether the one who lets it go has cloned it, and it is to end with that one."""
        return self.go == GATE_SLOT


AT_THE_GATE = Hold(REPORT_SLOT, GATE_SLOT)
"""Stop at the gate once more. That there is no program is told by execve then, as without a stop."""


@dataclass(frozen=True)
class Filter:
    """A compiled seccomp filter, the flags to install it with, and whether somebody wants to be its listener."""

    code: bytes
    flags: int = 0
    listener: bool = False


NO_FILTER = Filter(b"")
LISTENER = b"L"
"""What a child says on its `ready` descriptor, besides READY."""
FIND_LABEL = "find the program"
WAIT_LABEL = "wait for the start"


def leave_our_keys(w: Writer) -> None:
    """Begin a keyring of one's own: the session's, inherited, may hold keys of the machine."""
    without_keyrings = tuple((number, 0) for number in (errno.ENOSYS, errno.EPERM, errno.EDQUOT))
    w.call("keyctl", n.KEYCTL_JOIN_SESSION_KEYRING, 0, label="begin a session keyring", tolerated=without_keyrings)


def become(
    w: Writer, process: Process, *, cwd: Slot, seccomp: Filter, preserved: int = 0, hold: Hold | None = None
) -> None:
    """Turn into `process`, whose standard streams are set up and whose root is entered.

    `preserved` descriptors after the standard streams stay open. Rlimits that only the machine's root may set must
    have been set by the parent.
    """
    w.field = "process.rlimits"
    for limit in process.rlimits:
        block = w.block(struct.pack("=QQ", limit.soft, limit.hard))
        w.call("prlimit64", 0, n.RLIMIT_NUMBERS[limit.type], block, 0, label=f"set {limit.type}")
    if hold is not None and hold.go is not None and not hold.is_under_its_parent:
        _find_program(w, process, cwd)
    early = not process.no_new_privileges
    if early:
        _filter_calls(w, seccomp, hold)  # takes a right that is given up next
    _give_up_rights(w, process)
    w.field = "process.cwd"
    w.call("fchdir", cwd, label=f"enter the working directory {process.cwd}")
    w.field = "process.user.umask"
    w.call("umask", process.user.umask, label="set the umask")
    # Only the pipe that tells of a failure stays, until execve, and what a container that waits needs for that.
    w.field, first = "process", 3 + preserved
    w.call("dup3", REPORT_SLOT, first, os.O_CLOEXEC, label="keep the report pipe", save=REPORT_SLOT)
    kept = first + 1
    if hold is not None:
        for source in dict.fromkeys((hold.ready, hold.go)):
            if source is not None and source != REPORT_SLOT:
                w.call("dup3", source, kept, os.O_CLOEXEC, label="keep a pipe", save=source)
                kept += 1
    w.call("close_range", kept, 0xFFFFFFFF, 0, label="close descriptors")
    # Before the wait where somebody listens, or where the filter is our own, which lets one read, report and end.
    waits_filtered = seccomp.listener or (hold is not None and hold.is_under_its_parent)
    if not early and waits_filtered:
        _filter_calls(w, seccomp, hold)
    if hold is not None and hold.go is not None:
        _wait(w, hold, hold.go)
    if not early and not waits_filtered:
        _filter_calls(w, seccomp, None)
    _execute(w, process)


def _find_program(w: Writer, process: Process, cwd: Slot) -> None:
    """Look for the program, so that `create` can tell that it is missing; whether it can be executed shows later."""
    w.field = "process.args"
    paths = [w.text(path) for path in _candidates(process)]
    missing = tuple((number, 0) for number in _MISSING)
    for at, path in enumerate(paths):
        w.call("faccessat2", cwd, path, os.X_OK, 0, label=FIND_LABEL, skip=len(paths) - at, tolerated=missing)
    w.call("faccessat2", cwd, paths[0], os.X_OK, 0, label=FIND_LABEL)


def _wait(w: Writer, hold: Hold, go: Slot) -> None:
    if not hold.is_under_its_parent:
        w.call("prctl", n.PR_SET_PDEATHSIG, 0, 0, 0, 0, label="outlive the creator")
    w.call("write", hold.ready, w.block(READY), 1, label="tell that the container is created")
    if not hold.is_under_its_parent:
        w.call("close", hold.ready, label="let go of the creator")
    w.call("read", go, w.block(bytes(8)), 1, label=WAIT_LABEL, least=1)


def _give_up_rights(w: Writer, process: Process) -> None:
    w.field = "process.capabilities"
    sets = process.capabilities
    bounding = frozenset(sets.bounding)
    for name, number in capabilities.NUMBERS.items():
        if name not in bounding:
            # EINVAL: this kernel is too old to know it.
            w.call("prctl", n.PR_CAPBSET_DROP, number, 0, 0, 0, label=f"drop {name}", tolerated=((errno.EINVAL, 0),))
    user = process.user
    if user.uid and (sets.effective or sets.permitted or sets.inheritable):
        w.call("prctl", n.PR_SET_KEEPCAPS, 1, 0, 0, 0, label="keep capabilities")
    w.field = "process.user"
    groups = w.block(struct.pack(f"={len(user.additional_gids)}I", *user.additional_gids))
    # EPERM: a user namespace of somebody who may not change groups; there are none to drop that it does not have.
    denied = () if user.additional_gids else ((errno.EPERM, 0),)
    w.call("setgroups", len(user.additional_gids), groups, label="set additional groups", tolerated=denied)
    w.call("setresgid", user.gid, user.gid, user.gid, label="set the group")
    w.call("setresuid", user.uid, user.uid, user.uid, label="set the user")
    w.field = "process.capabilities"
    masks = [capabilities.mask(set(names)) for names in (sets.effective, sets.permitted, sets.inheritable)]
    words = struct.pack("=6I", *(mask & 0xFFFFFFFF for mask in masks), *(mask >> 32 for mask in masks))
    header = w.block(struct.pack("=Ii", n.LINUX_CAPABILITY_VERSION_3, 0))
    w.call("capset", header, w.block(words), label="set capabilities")
    for name in sets.ambient:
        number = capabilities.NUMBERS[name]
        w.call("prctl", n.PR_CAP_AMBIENT, n.PR_CAP_AMBIENT_RAISE, number, 0, 0, label=f"raise {name}")
    if process.no_new_privileges:
        w.field = "process.noNewPrivileges"
        w.call("prctl", n.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, label="set no_new_privs")


def _filter_calls(w: Writer, seccomp: Filter, hold: Hold | None) -> None:
    if not seccomp.code:
        return
    w.field = "linux.seccomp"
    code = w.block(seccomp.code)
    program = w.block(struct.pack("=HxxxxxxQ", len(seccomp.code) // 8, 0))
    w.pointer(program, 8, code)
    flags = seccomp.flags | (n.SECCOMP_FILTER_FLAG_NEW_LISTENER if seccomp.listener else 0)
    w.call("seccomp", n.SECCOMP_SET_MODE_FILTER, flags, program, label="install the seccomp filter")
    if seccomp.listener and hold is not None:
        w.call("write", hold.ready, w.block(LISTENER), 1, label="tell of the seccomp listener")
        w.call("read", hold.ready, w.block(bytes(8)), 1, label="hand over the seccomp listener")


def _execute(w: Writer, process: Process) -> None:
    w.field = "process.args"
    name = process.args[0]
    argv, envp = w.strings(process.args), w.strings(process.env)
    missing = () if "/" in name else tuple((number, 0) for number in _MISSING)
    for candidate in _candidates(process):
        w.call("execve", w.text(candidate), argv, envp, label=f"execute {candidate}", tolerated=missing)


def _candidates(process: Process) -> list[str]:
    """Return the paths that a shell would try for the program."""
    name = process.args[0]
    if "/" in name:
        return [name]
    path = next((line[5:] for line in process.env if line.startswith("PATH=")), defaults.PATH)
    return [f"{folder or '.'}/{name}" for folder in path.split(":")]


@dataclass(frozen=True)
class Steps:
    """What is needed to explain why a program failed: its operations from the `first` on, as (call, label)."""

    first: int
    steps: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, program: Program) -> "Steps":
        return cls(0, tuple((operation.call, operation.label) for operation in program.operations))

    @classmethod
    def after_the_wait(cls, program: Program) -> "Steps":
        """Return the few steps that are left to a child that waits for its start."""
        at = next(at for at, operation in enumerate(program.operations) if operation.label == WAIT_LABEL)
        return cls(at, cls.of(program).steps[at:])


def explain_failure(program: Steps, name: str, index: int, number: int) -> tuple[str, int]:
    """Return what to tell people about a failed start of the program `name`, and the exit code a shell would give
    for it."""
    if index >= program.first + len(program.steps):
        return f'executable "{name}" not found in $PATH', 127
    call, label = program.steps[index - program.first]
    reason = os.strerror(number)
    if call != "execve":
        return f"cannot {label}: {reason}", 128
    if number == errno.ENOENT:
        return f'cannot execute "{name}": no such file in the image, or its interpreter is missing', 127
    return f'cannot execute "{name}": {reason}', 127 if number == errno.ENOTDIR else 126
