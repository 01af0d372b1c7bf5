"""Make everything a container needs before it can be cloned: cgroup, rootfs, files, program, descriptors.

Blocking; runs in a worker thread. Whatever fails half-way is undone here. Deciding what the container shall be is
`bundle`'s work; this module looks at the disk, opens what the program expects, and hands it over.
"""

import os
import stat
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pyswarm.agent_runtime.bundle import build, etc_files, runtime_spec, users
from pyswarm.agent_runtime.bundle.compile import Handover, compile_program, mount_attributes
from pyswarm.agent_runtime.bundle.runtime_spec import Mount, Spec
from pyswarm.agent_runtime.container.log_format import STDIN, STREAMS
from pyswarm.agent_runtime.container.record import Record
from pyswarm.agent_runtime.container.state_directory import StateDirectory
from pyswarm.agent_runtime.kernel import mounts, rootfs_files
from pyswarm.agent_runtime.kernel.cgroups import Cgroups
from pyswarm.agent_runtime.kernel.program import Program
from pyswarm.agent_runtime.kernel.seccomp import SeccompFilters
from pyswarm.proto.errors import FailedPrecondition, NotFound


@dataclass(frozen=True)
class Prepared:
    """A container ready to be cloned. `descriptors` as `spawner_protocol` has them; `close` them when handed over."""

    spec: Spec
    program: Program
    descriptors: tuple[int, ...]
    into_cgroup: bool
    terminal: int | None
    """Our end of the container's terminal, if it has one; `close` closes it, too."""
    opened: ExitStack

    def close(self) -> None:
        self.opened.close()


@dataclass(frozen=True)
class Preparer:
    state: StateDirectory
    cgroups: Cgroups
    filters: SeccompFilters
    host: build.HostFacts

    def prepare(self, record: Record, built: Spec | None = None, *, held: bool = False) -> Prepared:
        """Make and open everything. `built`: the spec as it was when the container was created, if it is at hand;
        `held`: the program waits for its start. Raises SwarmError or OSError, leaving no cgroup behind."""
        config = record.present_config
        if built is None or record.limits is not None:
            built = build.build(record.id, config, record.created.image, self.host)
        opened = ExitStack()
        try:
            self.cgroups.create(record.id, build.limits_of(config.limits))
            return self._open_all(record, built, opened, held=held)
        except BaseException:
            opened.close()
            self.cgroups.remove(record.id)
            raise

    def _open_all(self, record: Record, spec: Spec, opened: ExitStack, *, held: bool) -> Prepared:
        def keep(descriptor: int) -> int:
            opened.callback(os.close, descriptor)
            return descriptor

        folder = self.state.path(record.id)
        rootfs = keep(self._overlay(record, folder))
        wanted = record.config.user or record.created.image.get("User") or ""
        spec = _with_user(spec, wanted, record.config.groups, rootfs)
        self._write_etc(record, spec, rootfs)
        self.state.write_spec(record.id, runtime_spec.encode(spec))

        directory = keep(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        terminal = None
        if spec.process.terminal:
            terminal, slave = map(keep, _terminal(spec))
            outputs = [slave, slave]
        else:
            outputs = [keep(_fifo(folder / stream, spec)) for stream in STREAMS]
        has_stdin = record.config.open_stdin and terminal is None
        inputs = [keep(_fifo(folder / STDIN, spec))] if has_stdin else []
        files = [keep(os.open(path, os.O_WRONLY | os.O_CLOEXEC)) for path in self.cgroups.attach_files(record.id)]
        network = [keep(_namespace(record.config.network_namespace))] if record.config.network_namespace else []
        trees = {m.destination: keep(_bind_source(m)) for m in spec.mounts if m.type == "bind"}

        handover = Handover.of(spec, cgroup_files=len(files), has_stdin=has_stdin)
        kinds = {destination: stat.S_ISDIR(os.fstat(tree).st_mode) for destination, tree in trees.items()}
        granted = frozenset(spec.process.capabilities.bounding)
        program = compile_program(
            spec, handover, seccomp=self.filters.filter_for(granted), bind_is_directory=kinds, held=held
        )
        slots = (rootfs, *outputs, *files, *network, *trees.values(), *inputs)
        assert len(slots) == handover.count
        folder_v2 = self.cgroups.birthplace(record.id)
        birthplace = [keep(os.open(folder_v2, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))] if folder_v2 else []
        ours = () if terminal is None else (terminal,)
        first = (keep(memory_file(program.encode())), directory, *birthplace, *ours)
        return Prepared(spec, program, (*first, *slots), bool(birthplace), terminal, opened)

    def _overlay(self, record: Record, folder: Path) -> int:
        layers = [Path(layer) for layer in record.created.layers]
        try:
            return mounts.overlay(layers, folder / "upper", folder / "work", at=folder / "rootfs")
        except FileNotFoundError as error:
            raise NotFound(
                f"a layer of the image {record.config.image} is gone from this node",
                remedy=f"Remove the container and pull the image again: `pyswarm image pull {record.config.image}`.",
            ) from error

    def _write_etc(self, record: Record, spec: Spec, rootfs: int) -> None:
        machine = Path("/etc/resolv.conf")
        resolver = machine.read_text(errors="replace") if machine.is_file() else ""
        rootfs_files.write_files(rootfs, "/etc", {
            "hostname": f"{spec.hostname}\n",
            "hosts": etc_files.hosts(spec.hostname, record.config.extra_hosts),
            "resolv.conf": etc_files.resolv_conf(record.config, resolver),
        })  # fmt: skip


def _with_user(spec: Spec, wanted: str, groups: Sequence[str], rootfs: int) -> Spec:
    """Return the spec with its user looked up in the rootfs, and HOME set as a login would."""
    found = users.resolve(
        wanted, rootfs_files.read_file(rootfs, "/etc/passwd"), rootfs_files.read_file(rootfs, "/etc/group"), groups
    )
    env = spec.process.env
    if not any(line.startswith("HOME=") for line in env):
        env = (*env, f"HOME={found.home}")
    process = users.with_rights(msgspec.structs.replace(spec.process, user=found.user, env=env))
    return msgspec.structs.replace(spec, process=process)


def _terminal(spec: Spec) -> tuple[int, int]:
    """Return (our end, the container's) of a new terminal that the container's user owns."""
    master, slave = os.openpty()
    os.set_blocking(master, False)
    os.fchown(slave, spec.process.user.uid, -1)
    return master, slave


def _fifo(fifo: Path, spec: Spec) -> int:
    """Open a FIFO for the container; its user may open it again, as /dev/stdout."""
    os.chown(fifo, spec.process.user.uid, spec.process.user.gid)
    return os.open(fifo, os.O_RDWR | os.O_CLOEXEC)


def _namespace(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise FailedPrecondition(
            f"cannot open the network namespace {path}: {os.strerror(error.errno or 0)}",
            remedy="Make the namespace before the container is started.",
        ) from error


def _bind_source(mount: Mount) -> int:
    try:
        tree = mounts.clone_tree(Path(mount.source))
    except OSError as error:
        raise FailedPrecondition(
            f"cannot mount {mount.source} on {mount.destination}: {os.strerror(error.errno or 0)}",
            remedy="Make the directory on this node first, or place the service where it exists.",
        ) from error
    try:
        mounts.set_attributes(tree, mount_attributes(mount))
    except BaseException:
        os.close(tree)
        raise
    return tree


def memory_file(content: bytes) -> int:
    """Return a descriptor of a file in memory with this content, which is the caller's to close."""
    descriptor = os.memfd_create("program", os.MFD_CLOEXEC)
    os.write(descriptor, content)
    return descriptor
