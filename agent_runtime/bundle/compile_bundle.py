"""Turn anybody's config.json into a start program, for the OCI command line. Pure.

`compile.py` does the same for what the daemon builds itself, where everything is known and most can be cached. Here
the child begins with a copy of the machine's mounts, so that hooks find their files, and stops where the
specification wants it to: for the hooks when the rootfs is assembled, and before it executes anything until `start`.

Descriptors are handed over by name, in the order `handover` gives. Every operation names the field it came from.
"""

import errno
import os
import stat
import struct
from dataclasses import dataclass

from pyswarm.agent_runtime.bundle import defaults, mount_options
from pyswarm.agent_runtime.bundle.become import Filter, Hold, become, leave_our_keys, reset_signals
from pyswarm.agent_runtime.bundle.compile import CLONE_FLAGS, loopback_up
from pyswarm.agent_runtime.bundle.machine_facts import (
    DEVICE_TYPES,
    IO_CLASSES,
    PERSONALITIES,
    PERSONALITY_FLAGS,
    SCHEDULER_FLAGS,
    SCHEDULER_POLICIES,
)
from pyswarm.agent_runtime.bundle.rootfs import RootfsWriter
from pyswarm.agent_runtime.bundle.runtime_spec import Mount, Process, Spec
from pyswarm.agent_runtime.bundle.spec_linux import Device
from pyswarm.agent_runtime.kernel import numbers as n
from pyswarm.agent_runtime.kernel.program import REPORT_SLOT, Program, Slot, Writer

HOOKS, CONSOLE = b"H", b"C"
"""What a child says on `sync` where it waits for its parent; LISTENER and READY are the others."""
CONSOLE_MASTER = 900
"""The child's descriptor of the terminal's other end, for the parent to fetch."""
_JOIN_ORDER = ("user", "network", "ipc", "uts", "time", "cgroup", "mount")
_DEFAULT_NODES = tuple(Device(f"/dev/{name}", "c", major, minor) for name, major, minor in defaults.NODES)
_SIGKILL = 9


@dataclass(frozen=True)
class Handover:
    """Names of the descriptors a program starts with, in the order of their slots."""

    names: tuple[str, ...]

    def slot(self, name: str) -> Slot:
        return Slot(self.names.index(name))


def handover(spec: Spec, *, cgroup_files: int, in_user_namespace: bool = False) -> Handover:
    """Return which descriptors the parent has to open for `spec`. `in_user_namespace`: the parent is in one itself."""
    names = ["rootfs", "report", "go", "sync", *(f"cgroup {index}" for index in range(cgroup_files))]
    names += [f"namespace {each.type}" for each in spec.linux.namespaces if each.path and each.type != "pid"]
    names += [f"mounts[{index}]" for index, mount in enumerate(spec.mounts) if is_handed_over(mount)]
    if in_user_namespace or is_in_user_namespace(spec):
        names += [f"device {device.path}" for device in devices(spec)]
    return Handover(tuple(names))


def binds(mount: Mount) -> bool:
    options = mount_options.parse(mount.options)
    return (options.binds or mount.type == "bind") and "remount" not in options.own


def copies_up(mount: Mount) -> bool:
    return mount_options.parse(mount.options).copies_up


def is_handed_over(mount: Mount) -> bool:
    """Whether the parent makes the mount and the program attaches it."""
    return binds(mount) or copies_up(mount)


def is_in_user_namespace(spec: Spec) -> bool:
    return any(namespace.type == "user" for namespace in spec.linux.namespaces)


def devices(spec: Spec) -> tuple[Device, ...]:
    """Return the device nodes of a container: its own, and those every container has."""
    own = {device.path for device in spec.linux.devices}
    return (*(node for node in _DEFAULT_NODES if node.path not in own), *spec.linux.devices)


def compile_bundle(
    spec: Spec,
    given: Handover,
    *,
    seccomp: Filter,
    is_directory: frozenset[str],
    new_keyring: bool = True,
    pivot: bool = True,
    preserved: int = 0,
) -> Program:
    """Return the program for `spec`. `is_directory` names the handed over mounts that are directories."""
    w = Writer()
    for namespace in spec.linux.namespaces:
        if not namespace.path:
            w.clone_flags |= CLONE_FLAGS.get(namespace.type, 0)
    w.call(
        "fcntl", given.slot("report"), n.F_DUPFD_CLOEXEC, CONSOLE_MASTER + 1, label="keep the report pipe",
        save=REPORT_SLOT,
    )  # fmt: skip
    reset_signals(w)
    w.call("setsid", label="start a session")
    _enter_namespaces(w, spec, given)
    if new_keyring:
        leave_our_keys(w)
    _set_names(w, spec)
    cwd, dev = _assemble_rootfs(w, spec, given, is_directory)
    _leave_the_machine(w, spec, given, dev, pivot=pivot)
    _scheduling(w, spec.process)
    _personality(w, spec)
    hold = Hold(ready=given.slot("sync"), go=given.slot("go"))
    become(w, spec.process, cwd=cwd, seccomp=seccomp, preserved=preserved, hold=hold)
    return w.finish()


def _enter_namespaces(w: Writer, spec: Spec, given: Handover) -> None:
    """Join the cgroups and namespaces, and become root of a user namespace; from here on die with the parent."""
    types = {namespace.type: namespace for namespace in spec.linux.namespaces}
    w.field = "linux.cgroupsPath"
    for name in given.names:
        if name.startswith("cgroup "):
            w.call("write", given.slot(name), w.text("0"), 1, label="join the cgroup")
    for kind in _JOIN_ORDER:
        if kind in types and types[kind].path:
            w.field = f"linux.namespaces[{spec.linux.namespaces.index(types[kind])}]"
            w.call("setns", given.slot(f"namespace {kind}"), NAMESPACE_FLAGS[kind], label=f"join {types[kind].path}")
    w.field = "linux.uidMappings"
    if "user" in types:
        w.call("setresgid", 0, 0, 0, label="become root of the user namespace")
        w.call("setresuid", 0, 0, 0, label="become root of the user namespace")
    w.call("prctl", n.PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0, label="end with the creator")
    w.field = "linux.namespaces"
    if "cgroup" in types and not types["cgroup"].path:
        w.call("unshare", n.CLONE_NEWCGROUP, label="enter a cgroup namespace")
    if "network" in types and not types["network"].path:
        loopback_up(w)


NAMESPACE_FLAGS = {
    **CLONE_FLAGS, "cgroup": n.CLONE_NEWCGROUP, "time": n.CLONE_NEWTIME,
}  # fmt: skip


def _set_names(w: Writer, spec: Spec) -> None:
    for field, call, value in (
        ("hostname", "sethostname", spec.hostname), ("domainname", "setdomainname", spec.domainname),
    ):  # fmt: skip
        if value:
            w.field = field
            w.call(call, w.text(value), len(value.encode()), label=f"set the {field}")


def _assemble_rootfs(w: Writer, spec: Spec, given: Handover, is_directory: frozenset[str]) -> tuple[Slot, Slot]:
    """Write everything up to the hooks; return the slots of the working directory and of /dev."""
    w.field = "root"
    w.call("umask", 0, label="clear the umask")
    everything = w.text("/")
    # What the machine mounts later may come in, nothing of ours goes out.
    w.call("mount", 0, everything, 0, n.MS_REC | n.MS_SLAVE, 0, label="cut off the machine's mounts")
    rootfs = RootfsWriter(w, given.slot("rootfs"))
    empty = rootfs.attach_here()
    terminals = _mounts(w, rootfs, spec, given, is_directory)
    _sysctls(w, rootfs, spec)
    dev = rootfs.directory("/dev")
    _device_nodes(w, rootfs, spec, given)
    if spec.process.terminal:
        _terminal(w, rootfs, spec.process, given, terminals)
    w.field = "process.cwd"
    cwd = rootfs.directory(spec.process.cwd)
    if spec.hooks.prestart or spec.hooks.create_runtime or spec.hooks.create_container:
        w.field = "hooks"
        meet_parent(w, given.slot("sync"), HOOKS)
    w.field = "linux.maskedPaths"
    rootfs.hide_by(spec.linux.masked_paths, empty)
    w.field = "linux.readonlyPaths"
    for path in spec.linux.readonly_paths:
        rootfs.protect(path)
    return cwd, dev


def _mounts(w: Writer, rootfs: RootfsWriter, spec: Spec, given: Handover, is_directory: frozenset[str]) -> Slot | None:
    """Write the mounts in their order; return the slot of the container's terminals, if it has any."""
    terminals = None
    for index, mount in enumerate(spec.mounts):
        w.field = f"mounts[{index}]"
        if is_handed_over(mount):
            rootfs.bind(mount, given.slot(w.field), w.field in is_directory)
        elif "remount" in mount_options.parse(mount.options).own:
            rootfs.change(mount)
        else:
            attached = rootfs.mount(mount)
            if mount.type == "proc" and mount.destination == "/proc":
                rootfs.proc = attached
            if mount.type == "devpts" and mount.destination == "/dev/pts":
                terminals = attached
    return terminals


def _sysctls(w: Writer, rootfs: RootfsWriter, spec: Spec) -> None:
    if not spec.linux.sysctl:
        return
    w.field = "linux.sysctl"
    # A /proc of our own, attached nowhere: the container's might be something else.
    proc = rootfs.unattached("proc", (), "look at /proc/sys")
    for key, value in spec.linux.sysctl.items():
        w.field, file = f"linux.sysctl.{key}", w.new_slot()
        path = f"sys/{key.replace('.', '/')}"
        w.call("openat", proc, w.text(path), os.O_WRONLY | os.O_CLOEXEC, 0, label=f"set {key}", save=file)
        w.call("write", file, w.text(value), len(value.encode()), label=f"set {key}")


def _device_nodes(w: Writer, rootfs: RootfsWriter, spec: Spec, given: Handover) -> None:
    own = {device.path: index for index, device in enumerate(spec.linux.devices)}
    for device in devices(spec):
        w.field = f"linux.devices[{own[device.path]}]" if device.path in own else "linux.devices"
        label = f"make {device.path}"
        if f"device {device.path}" in given.names:
            rootfs.bind(Mount(device.path, source=device.path), given.slot(f"device {device.path}"), False)
            continue
        folder, name = os.path.split(device.path)
        parent = rootfs.directory(folder)
        mode, number = (
            DEVICE_TYPES[device.type] | stat.S_IMODE(device.file_mode),
            os.makedev(device.major, device.minor),
        )
        # EEXIST: the image brings it; then the rules for devices, which go by numbers, decide what it may do.
        exists = ((errno.EEXIST, 1),)
        w.call("mknodat", parent, w.text(name), mode, number, label=label, tolerated=exists)
        w.call("fchownat", parent, w.text(name), device.uid, device.gid, 0x100, label=f"give {device.path} away")
    w.field = "linux.devices"
    dev = rootfs.directory("/dev")
    for name, target in defaults.LINKS:
        w.call(
            "symlinkat", w.text(target), dev, w.text(name), label=f"make /dev/{name}", tolerated=((errno.EEXIST, 0),)
        )


def _terminal(w: Writer, rootfs: RootfsWriter, process: Process, given: Handover, terminals: Slot | None) -> None:
    """Open a terminal of the container's own and make it the standard streams and /dev/console."""
    w.field = "process.terminal"
    master, slave = w.new_slot(), w.new_slot()
    flags = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
    where = terminals if terminals is not None else rootfs.directory("/dev/pts")
    w.call("openat", where, w.text("ptmx"), flags, 0, label="open a terminal", save=master)
    take_terminal(w, process, master, slave)
    target = rootfs.file("/dev/console")
    clone, empty = w.new_slot(), w.text("")
    copy = n.OPEN_TREE_CLONE | n.OPEN_TREE_CLOEXEC | n.AT_EMPTY_PATH
    w.call("open_tree", slave, empty, copy, label="make /dev/console", save=clone)
    both = n.MOVE_MOUNT_F_EMPTY_PATH | n.MOVE_MOUNT_T_EMPTY_PATH
    w.call("move_mount", clone, empty, target, empty, both, label="make /dev/console")
    meet_parent(w, given.slot("sync"), CONSOLE)


def take_terminal(w: Writer, process: Process, master: Slot, slave: Slot) -> None:
    """Make the terminal whose `master` is open the controlling one and the standard streams."""
    w.call("ioctl", master, n.TIOCSPTLCK, w.block(bytes(4)), label="unlock the terminal")
    w.call(
        "ioctl", master, n.TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC, label="open the terminal", save=slave
    )
    if process.console_size is not None:
        size = struct.pack("=4H", process.console_size.height, process.console_size.width, 0, 0)
        w.call("ioctl", master, n.TIOCSWINSZ, w.block(size), label="set the terminal's size")
    w.call("ioctl", slave, n.TIOCSCTTY, 0, label="take the terminal")
    w.call("fchownat", slave, w.text(""), process.user.uid, -1, n.AT_EMPTY_PATH, label="give the terminal to the user")
    for number in range(3):
        w.call("dup3", slave, number, 0, label="set up the standard streams")
    w.call("dup3", master, CONSOLE_MASTER, os.O_CLOEXEC, label="hand over the terminal")


def meet_parent(w: Writer, sync: Slot, word: bytes) -> None:
    """Wait until the parent has done its part."""
    w.call("write", sync, w.block(word), 1, label="call the creator")
    w.call("read", sync, w.block(bytes(8)), 1, label="wait for the creator")


def _leave_the_machine(w: Writer, spec: Spec, given: Handover, dev: Slot, *, pivot: bool) -> None:
    w.field = "root"
    rootfs = RootfsWriter(w, given.slot("rootfs"), dev=dev)
    if spec.root.readonly:
        rootfs.make_read_only()
    if pivot:
        rootfs.pivot()
    else:
        rootfs.change_root()
    if spec.linux.rootfs_propagation:
        w.field = "linux.rootfsPropagation"
        wanted = mount_options.propagation_named(spec.linux.rootfs_propagation)
        rootfs.propagate(given.slot("rootfs"), wanted, f"make the rootfs {spec.linux.rootfs_propagation}")


def _scheduling(w: Writer, process: Process) -> None:
    if process.io_priority is not None:
        w.field = "process.ioPriority"
        value = IO_CLASSES[process.io_priority.level] << 13 | process.io_priority.priority
        w.call("ioprio_set", 1, 0, value, label="set the I/O priority")
    if process.scheduler is not None:
        w.field, wanted = "process.scheduler", process.scheduler
        flags = sum(SCHEDULER_FLAGS[flag] for flag in wanted.flags)
        attributes = struct.pack(
            "=IIQiIQQQ", 48, SCHEDULER_POLICIES[wanted.policy], flags, wanted.nice, wanted.priority,
            wanted.runtime, wanted.deadline, wanted.period,
        )  # fmt: skip
        w.call("sched_setattr", 0, w.block(attributes), 0, label="set the scheduling policy")


def _personality(w: Writer, spec: Spec) -> None:
    wanted = spec.linux.personality
    if wanted is not None:
        w.field = "linux.personality"
        value = PERSONALITIES[wanted.domain] | sum(PERSONALITY_FLAGS[flag] for flag in wanted.flags)
        w.call("personality", value, label="set the personality")
