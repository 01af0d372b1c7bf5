"""Turn an OCI runtime spec into a start program: the system calls that make a container of a fresh clone. Pure.

The order is what security rests on: join the cgroups before anything is spent; build the rootfs by descriptors only
(a path is resolved by the kernel inside the rootfs, never through magic links); hide and protect the kernel's files
before anything of the user's is mounted; leave the machine's file system; give up rights; filter; execute.

`Handover` says which descriptors the program expects in its first slots; `container/prepare.py` opens them.
"""

import errno
import os
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile

from pyswarm.agent_runtime.bundle import defaults
from pyswarm.agent_runtime.bundle.become import (
    AT_THE_GATE,
    Filter,
    become,
    block_signals,
    leave_our_keys,
    reset_signals,
)
from pyswarm.agent_runtime.bundle.build import INIT_POINT
from pyswarm.agent_runtime.bundle.rootfs import RootfsWriter
from pyswarm.agent_runtime.bundle.runtime_spec import Mount, Namespace, Process, Spec
from pyswarm.agent_runtime.kernel import numbers as n
from pyswarm.agent_runtime.kernel.program import Program, Slot, Writer

ROOTFS_POINT = "/rootfs"
EMPTY_POINT = "/empty"
"""Directories the spawner's own tiny file system has, to attach a rootfs and an empty file system to."""

CLONE_FLAGS = {
    "pid": n.CLONE_NEWPID, "mount": n.CLONE_NEWNS, "uts": n.CLONE_NEWUTS, "ipc": n.CLONE_NEWIPC,
    "network": n.CLONE_NEWNET, "user": n.CLONE_NEWUSER,
}  # fmt: skip
_KERNEL_TREES = ("/proc", "/sys", "/dev")


@dataclass(frozen=True)
class Handover:
    """Descriptors that a program starts with, in the order of their slots.

    rootfs, stdout, stderr, then `cgroup_files` of them, then the network namespace if one is joined, then one
    detached tree per bind mount in the order of the spec, then stdin if there is one. On a terminal, stdout and stderr
    are that terminal, and stdin as well.
    """

    cgroup_files: int
    joins_network: bool
    binds: tuple[str, ...]
    has_stdin: bool = False

    rootfs = Slot(0)
    stdout = Slot(1)
    stderr = Slot(2)

    @classmethod
    def of(cls, spec: Spec, *, cgroup_files: int, has_stdin: bool = False) -> "Handover":
        joins = any(namespace.type == "network" and namespace.path for namespace in spec.linux.namespaces)
        return cls(cgroup_files, joins, tuple(m.destination for m in spec.mounts if m.type == "bind"), has_stdin)

    @property
    def count(self) -> int:
        return 3 + self.cgroup_files + self.joins_network + len(self.binds) + self.has_stdin

    @property
    def stdin(self) -> Slot:
        assert self.has_stdin, "only a container with an open stdin is given one"
        return Slot(self.count - 1)

    def bind(self, destination: str) -> Slot:
        return Slot(3 + self.cgroup_files + self.joins_network + self.binds.index(destination))


def compile_program(
    spec: Spec, handover: Handover, *, seccomp: bytes, bind_is_directory: Mapping[str, bool], held: bool = False
) -> Program:
    """Return the program for `spec`. `bind_is_directory` tells, by destination, what each bind source is; `held`: stop
    before anything of the container is executed."""
    kernel_mounts = tuple(takewhile(_is_kernels, spec.mounts))
    w, proc, dev = _common_beginning(
        spec.linux.namespaces, handover.cgroup_files, kernel_mounts, tuple(sorted(spec.linux.sysctl.items())),
        spec.linux.masked_paths, spec.linux.readonly_paths,
    )  # fmt: skip
    w = w.copy()
    rootfs = RootfsWriter(w, handover.rootfs, proc=proc, dev=dev)
    for mount in spec.mounts[len(kernel_mounts) :]:
        if mount.type == "bind":
            rootfs.bind(mount, handover.bind(mount.destination), bind_is_directory[mount.destination])
        else:
            rootfs.mount(mount)
    cwd = rootfs.directory(spec.process.cwd)
    if spec.root.readonly:
        rootfs.make_read_only()
    rootfs.pivot()
    w.call("sethostname", w.text(spec.hostname), len(spec.hostname.encode()), label="set the host name")
    _standard_streams(w, rootfs, handover, is_terminal=spec.process.terminal)
    _oom_score(w, rootfs, spec.process)
    if spec.process.args[0] == INIT_POINT:
        # Else one that comes before the init has blocked them is lost, and who stops the container waits in vain.
        block_signals(w)
    become(w, spec.process, cwd=cwd, seccomp=Filter(seccomp), hold=AT_THE_GATE if held else None)
    return w.finish()


@lru_cache(maxsize=64)
def _common_beginning(
    namespaces: tuple[Namespace, ...],
    cgroup_files: int,
    kernel_mounts: tuple[Mount, ...],
    sysctls: tuple[tuple[str, str], ...],
    masked_paths: tuple[str, ...],
    readonly_paths: tuple[str, ...],
) -> tuple[Writer, Slot, Slot]:
    """Write what containers have in common, once: into the namespaces, up to where the user's mounts begin.

    Returns the writer (to be copied, not changed) and the slots of the mounts of /proc and /dev.
    """
    w = Writer()
    for namespace in namespaces:
        if not namespace.path:
            w.clone_flags |= CLONE_FLAGS.get(namespace.type, 0)
    _enter(w, namespaces, cgroup_files)
    w.call("umask", 0, label="clear the umask")
    rootfs = RootfsWriter(w, Handover.rootfs)
    rootfs.attach(ROOTFS_POINT)
    for mount in kernel_mounts:
        attached = rootfs.mount(mount)
        if mount.destination == "/dev":
            _fill_dev(w, rootfs, attached)
        elif mount.destination == "/proc":
            rootfs.proc = attached
    _sysctls(w, rootfs, sysctls)
    rootfs.hide(masked_paths, EMPTY_POINT)
    for path in readonly_paths:
        rootfs.protect(path)
    return w, rootfs.proc, rootfs.dev


def _enter(w: Writer, namespaces: tuple[Namespace, ...], cgroup_files: int) -> None:
    """Undo what Python did to signals, join the cgroups, enter the remaining namespaces."""
    reset_signals(w)
    w.call("setsid", label="start a session")
    leave_our_keys(w)
    for index in range(cgroup_files):
        w.call("write", Slot(3 + index), w.text("0"), 1, label="join the cgroup")
    # After joining: the container shall see its own cgroup as the root.
    w.call("unshare", n.CLONE_NEWCGROUP, label="enter a cgroup namespace")
    network = next((namespace for namespace in namespaces if namespace.type == "network"), None)
    if network is not None and network.path:
        w.call("setns", Slot(3 + cgroup_files), n.CLONE_NEWNET, label="join the network namespace")
    elif network is not None:
        loopback_up(w)


def loopback_up(w: Writer) -> None:
    """Bring up the loopback interface of a new network namespace."""
    socket = w.new_slot()
    w.call("socket", 2, 2 | os.O_CLOEXEC, 0, label="open a socket", save=socket)
    request = w.block(struct.pack("=16sH22x", b"lo", 1 | 0x40))  # IFF_UP | IFF_RUNNING
    w.call("ioctl", socket, n.SIOCSIFFLAGS, request, label="bring the loopback interface up")


def _is_kernels(mount: Mount) -> bool:
    trees = any(mount.destination == tree or mount.destination.startswith(f"{tree}/") for tree in _KERNEL_TREES)
    return trees and mount.type != "bind"


def _fill_dev(w: Writer, rootfs: RootfsWriter, dev: Slot) -> None:
    rootfs.dev = dev
    for name, major, minor in defaults.NODES:
        mode, device = stat.S_IFCHR | 0o666, os.makedev(major, minor)
        w.call("mknodat", dev, w.text(name), mode, device, label=f"make /dev/{name}")
    for name, target in defaults.LINKS:
        w.call("symlinkat", w.text(target), dev, w.text(name), label=f"make /dev/{name}")


def _sysctls(w: Writer, rootfs: RootfsWriter, sysctls: tuple[tuple[str, str], ...]) -> None:
    for key, value in sysctls:
        file = w.new_slot()
        w.call(
            "openat", rootfs.proc, w.text(f"sys/{key.replace('.', '/')}"), os.O_WRONLY | os.O_CLOEXEC, 0,
            # Our own settings may be unknown to an old kernel; one that was asked for must not be missing silently.
            label=f"set {key}", save=file, tolerated=((errno.ENOENT, 1),) if key in defaults.SYSCTL else (),
        )  # fmt: skip
        w.call("write", file, w.text(value), len(value), label=f"set {key}")


def _oom_score(w: Writer, rootfs: RootfsWriter, process: Process) -> None:
    """Before rights are given up: less than one's parent's takes one."""
    if process.oom_score_adj is None:
        return
    file, score = w.new_slot(), str(process.oom_score_adj)
    path = w.text("self/oom_score_adj")
    w.call("openat", rootfs.proc, path, os.O_WRONLY | os.O_CLOEXEC, 0, label="adjust the OOM score", save=file)
    w.call("write", file, w.text(score), len(score), label="adjust the OOM score")


def _standard_streams(w: Writer, rootfs: RootfsWriter, handover: Handover, *, is_terminal: bool) -> None:
    if is_terminal:
        stdin = handover.stdout
    elif handover.has_stdin:
        stdin = handover.stdin
    else:
        stdin = w.new_slot()
        w.call("openat", rootfs.dev, w.text("null"), os.O_RDWR | os.O_CLOEXEC, 0, label="open /dev/null", save=stdin)
    for number, source in enumerate((stdin, handover.stdout, handover.stderr)):
        w.call("dup3", source, number, 0, label="set up the standard streams")
    if is_terminal:
        w.call("ioctl", 0, n.TIOCSCTTY, 0, label="take the terminal")


def mount_attributes(mount: Mount) -> int:
    """Return the MOUNT_ATTR_* bits that a mount's options ask for."""
    bits = {
        "ro": n.MOUNT_ATTR_RDONLY, "nosuid": n.MOUNT_ATTR_NOSUID, "nodev": n.MOUNT_ATTR_NODEV,
        "noexec": n.MOUNT_ATTR_NOEXEC,
    }  # fmt: skip
    return sum(bits[option] for option in set(mount.options) & set(bits))
