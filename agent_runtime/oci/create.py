"""`create`: from a bundle to a container that waits for its start. What fails half-way is undone.

The child is left to whoever adopts our children (containerd's shim, conmon), or to us when we run it ourselves.
"""

import os
import signal
import socket
import stat
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pyswarm.agent_runtime.bundle import runtime_spec
from pyswarm.agent_runtime.bundle.become import LISTENER, NO_FILTER, WAIT_LABEL, Filter
from pyswarm.agent_runtime.bundle.compile_bundle import CONSOLE, HOOKS, compile_bundle, handover
from pyswarm.agent_runtime.bundle.runtime_spec import Spec
from pyswarm.agent_runtime.bundle.spec_linux import Seccomp
from pyswarm.agent_runtime.bundle.validate import InvalidConfig, grantable, validate
from pyswarm.agent_runtime.bundle.validate_linux import validate_linux
from pyswarm.agent_runtime.kernel import numbers as n
from pyswarm.agent_runtime.kernel.own_capabilities import own_capabilities
from pyswarm.agent_runtime.oci import abandoned, hooks, listener, terminal
from pyswarm.agent_runtime.oci.cgroup import ContainerCgroup
from pyswarm.agent_runtime.oci.cgroup_place import place
from pyswarm.agent_runtime.oci.launch import Child, clone, meet, set_from_outside, steps_of
from pyswarm.agent_runtime.oci.messages import timestamp
from pyswarm.agent_runtime.oci.prepare import Opened, open_all, rootfs_path, with_cgroup_mounts
from pyswarm.agent_runtime.oci.rootless import in_user_namespace, without_user_namespace
from pyswarm.agent_runtime.oci.state import Container, Root, make_fifo
from pyswarm.agent_runtime.oci.status import CREATED, CREATING, oci_state, owner
from pyswarm.proto.errors import InvalidArgument, NotFound

_LARGEST_CONFIG_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Creation:
    """What the command line asks for. `keep_terminal` takes the container's terminal instead of a console socket."""

    id: str
    bundle: Path
    console_socket: str = ""
    pid_file: str = ""
    preserved: int = 0
    pivot: bool = True
    new_keyring: bool = True
    keep_terminal: Callable[[int], None] | None = None
    entered: bool = False
    """We are in the container's user namespace already (`rootless.py`)."""


def load(path: Path, warn: Callable[[str], None]) -> Spec:
    """Read and check a config.json; warn of capabilities that nobody here can grant. Raises InvalidConfig, NotFound."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise NotFound(
            f"cannot read {path}: {os.strerror(error.errno or 0)}",
            remedy="Give the directory with the config.json as --bundle; `pyswarm-oci spec` writes one.",
        ) from error
    spec = decode(content)
    sets, warnings = grantable(spec.process.capabilities, own_rights())
    for warning in warnings:
        warn(f"config.json: process.capabilities: {warning}")
    return msgspec.structs.replace(spec, process=msgspec.structs.replace(spec.process, capabilities=sets))


def decode(content: bytes) -> Spec:
    """Return the checked spec. Raises InvalidConfig, and nothing else."""
    if len(content) > _LARGEST_CONFIG_BYTES:
        raise InvalidConfig("$", "is too large")
    try:
        spec = runtime_spec.decode_config(content)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        # The library's message ends in the path of the member, as in "- at `$.process.args[0]`".
        problem, _, place = str(error).partition(" - at `$.")
        raise InvalidConfig(place.rstrip("`") or "$", problem) from error
    validate(spec)
    validate_linux(spec)
    return spec


def own_rights() -> frozenset[str]:
    """Return the capabilities that we can hand on."""
    return own_capabilities("CapPrm") & own_capabilities("CapBnd")


def create(root: Root, wanted: Creation, warn: Callable[[str], None]) -> Container:
    """Create a container. Raises SwarmError, leaving nothing behind."""
    bundle = Path(os.path.realpath(wanted.bundle))
    spec = load(bundle / "config.json", warn)
    if wanted.entered:
        spec = without_user_namespace(spec)
    rootfs = rootfs_path(spec, bundle)
    if spec.process.terminal and wanted.keep_terminal is None:
        terminal.check_console_socket(wanted.console_socket)
    if not spec.process.terminal and wanted.console_socket:
        raise InvalidArgument(
            "--console-socket is given, and process.terminal is not set", remedy="Leave one out or set the other."
        )
    cgroup = ContainerCgroup.of(place(spec.linux.cgroups_path, wanted.id, spec.linux.resources))
    container = Container(
        id=wanted.id, bundle=str(bundle), rootfs=str(rootfs), pid=0, start_ticks=0,
        created=timestamp(), cgroup=cgroup.path, owner=owner(),
        annotations=spec.annotations,
    )  # fmt: skip
    abandoned.clean(root, wanted.id, warn)
    with root.claim(container) as folder, ExitStack() as undo:
        undo.callback(root.forget, wanted.id)
        with ExitStack() as stack:
            undo.callback(cgroup.remove)
            cgroup.make(spec.linux.resources)
            make_fifo(folder / "go")
            make_fifo(folder / "report")
            root.save_config(wanted.id, spec)
            created = _Creator(root, wanted, spec, container, cgroup, stack, undo, warn).create()
        undo.pop_all()
        return created


@dataclass(frozen=True)
class _Creator:
    """The second half of `create`, when the container has a place."""

    root: Root
    wanted: Creation
    spec: Spec
    container: Container
    cgroup: ContainerCgroup
    stack: ExitStack
    undo: ExitStack
    warn: Callable[[str], None]

    def create(self) -> Container:
        spec = with_cgroup_mounts(self.spec, self.cgroup)
        cgroup_files = self.cgroup.cgroups.attach_files(self.cgroup.name)
        given = handover(spec, cgroup_files=len(cgroup_files), in_user_namespace=in_user_namespace())
        opened = Opened(self.stack)
        open_all(spec, Path(self.container.bundle), Path(self.container.rootfs), cgroup_files, given, opened)
        report, sync = self._pipes(opened)
        program = compile_bundle(
            spec, given, seccomp=seccomp_filter(self.spec.linux.seccomp, self.root.filters),
            is_directory=frozenset(opened.directories), new_keyring=self.wanted.new_keyring, pivot=self.wanted.pivot,
            preserved=self.wanted.preserved,
        )  # fmt: skip
        os.chdir(self.container.rootfs)
        birthplace = self.cgroup.cgroups.birthplace(self.cgroup.name)
        child = clone(spec, program, opened.in_order(given), birthplace, self.stack)
        self.undo.callback(self._kill, child)
        for name in ("report", "sync"):  # the child's ends: or we would never see it end
            os.close(opened.by_name.pop(name))
        set_from_outside(child, spec)
        give_streams(_streams_owner(spec))
        container = msgspec.structs.replace(self.container, pid=child.pid, start_ticks=child.start_ticks)
        os.write(child.gate, b"1")
        steps = steps_of(program)
        meet(sync, report, steps, spec.process, {
            HOOKS: lambda: self._run_hooks(container, child),
            CONSOLE: lambda: self._terminal(child),
            LISTENER: lambda: listener.hand_over(spec, container, child.pid, child.pidfd),
        })  # fmt: skip
        first = next(index for index, step in enumerate(steps) if step.label == WAIT_LABEL)
        container = msgspec.structs.replace(container, first_step=first, steps=steps[first:])
        self.root.save(container)
        if self.wanted.pid_file:
            write_pid_file(Path(self.wanted.pid_file), child.pid)
        return container

    def _pipes(self, opened: Opened) -> tuple[int, socket.socket]:
        """Make what the child hears and speaks on; returns our ends."""
        report = os.open(self.root.report(self.wanted.id), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self.stack.callback(os.close, report)
        opened.by_name["report"] = os.open(self.root.report(self.wanted.id), os.O_WRONLY | os.O_CLOEXEC)
        # Held both ways: its other end comes and goes, and the end of a pipe would look like a word.
        opened.keep("go", os.open(self.root.go(self.wanted.id), os.O_RDWR | os.O_CLOEXEC))
        ours, childs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.stack.callback(ours.close)
        opened.by_name["sync"] = childs.detach()
        return report, ours

    def _run_hooks(self, container: Container, child: Child) -> None:
        state, wanted = oci_state(container, CREATING), self.spec.hooks
        self.root.hooks_begun(container.id).touch()
        self.undo.callback(hooks.run_and_warn, "poststop", wanted.poststop, oci_state(container, "stopped"), self.warn)
        # The order of the specification; prestart hooks are told `created`, as runc and crun tell them.
        hooks.run_hooks("prestart", wanted.prestart, oci_state(container, CREATED))
        hooks.run_hooks("createRuntime", wanted.create_runtime, state)
        hooks.run_hooks("createContainer", wanted.create_container, state, inside=child.pidfd)

    def _terminal(self, child: Child) -> None:
        master = terminal.fetch(child.pidfd)
        if self.wanted.keep_terminal is not None:
            self.wanted.keep_terminal(master)
        else:
            terminal.hand_over(self.wanted.console_socket, master)

    def _kill(self, child: Child) -> None:
        with suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)  # ours and not reaped yet: the pid is still its own
        with suppress(ChildProcessError):
            os.waitpid(child.pid, 0)


def seccomp_filter(seccomp: Seccomp | None, cache: Path) -> Filter:
    """Return the compiled filter of a config.json. Raises InvalidConfig."""
    if seccomp is None:
        return NO_FILTER
    from pyswarm.agent_runtime.kernel import seccomp_config  # the library takes its time to load

    try:
        code = seccomp_config.filter_of(seccomp, cache)
    except ValueError as error:
        raise InvalidConfig("linux.seccomp", str(error)) from error
    flags = 0
    for name in seccomp.flags:
        flags |= n.SECCOMP_FILTER_FLAGS[name]
    return Filter(code, flags, seccomp_config.wants_listener(seccomp))


def _streams_owner(spec: Spec) -> int:
    """Return the machine's number of the container's user."""
    uid = spec.process.user.uid
    for mapping in spec.linux.uid_mappings:
        if mapping.container_id <= uid < mapping.container_id + mapping.size:
            return mapping.host_id + uid - mapping.container_id
    return uid


def give_streams(uid: int) -> None:
    """Let a user open our standard streams again, as /dev/stdout: pipes and sockets only."""
    for descriptor in (0, 1, 2):
        mode = os.fstat(descriptor).st_mode
        if uid and (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
            try:
                os.fchown(descriptor, uid, -1)
            except PermissionError:
                if not in_user_namespace():
                    raise
                # Somebody's whom this user namespace does not know: it can be used, but not opened again.


def write_pid_file(path: Path, pid: int) -> None:
    aside = path.with_name(f".{path.name}")
    aside.write_text(str(pid))
    aside.rename(path)
