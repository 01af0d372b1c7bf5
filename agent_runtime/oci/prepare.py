"""Open what a start program expects: the rootfs, bind sources, namespaces, devices, cgroup files.

Blocking. Every path here is one of the machine's, named by whoever wrote the config.json; paths inside the container
are the program's to resolve.
"""

import os
import stat
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from pyswarm.agent_runtime.bundle import mount_options
from pyswarm.agent_runtime.bundle.compile_bundle import NAMESPACE_FLAGS, Handover, binds, copies_up
from pyswarm.agent_runtime.bundle.runtime_spec import Mount, Spec
from pyswarm.agent_runtime.bundle.spec_linux import IdMapping, Namespace
from pyswarm.agent_runtime.bundle.validate import InvalidConfig, reject
from pyswarm.agent_runtime.kernel import mounts
from pyswarm.agent_runtime.kernel import numbers as n
from pyswarm.agent_runtime.kernel.syscalls import syscall, unshare
from pyswarm.agent_runtime.oci.cgroup import ContainerCgroup
from pyswarm.agent_runtime.oci.copy_up import filled_tmpfs

_NS_GET_NSTYPE = 0xB703


def rootfs_path(spec: Spec, bundle: Path) -> Path:
    """Return the directory of the rootfs. Raises InvalidConfig."""
    path = Path(os.path.realpath(bundle / spec.root.path))
    if not path.is_dir():
        reject("root.path", f"there is no directory {path}")
    return path


def with_cgroup_mounts(spec: Spec, cgroup: ContainerCgroup) -> Spec:
    """Replace each mount of type `cgroup` by what shows the container its own cgroups: the v2 directory, or one bind
    mount a v1 hierarchy in a small file system."""
    found: list[Mount] = []
    after: list[Mount] = []
    for mount in spec.mounts:
        if mount.type not in ("cgroup", "cgroup2") or mount_options.parse(mount.options).binds:
            found.append(mount)
            continue
        folders = cgroup.folders()
        if list(folders) == [""]:
            source, options = str(folders[""]), ("bind", *mount.options)
            found.append(msgspec.structs.replace(mount, type="bind", source=source, options=options))
            continue
        plain = tuple(each for each in mount.options if each not in ("ro", "rro"))
        found.append(Mount(mount.destination, "tmpfs", "tmpfs", (*_without_data(plain), "mode=755")))
        for name, folder in folders.items():
            target = f"{mount.destination.rstrip('/')}/{name or 'unified'}"
            after.append(Mount(target, "bind", str(folder), ("bind", *mount.options)))
        if len(plain) < len(mount.options):
            after.append(Mount(mount.destination, "", "", ("remount", "ro")))
    return msgspec.structs.replace(spec, mounts=(*found, *after))


def _without_data(options: Sequence[str]) -> tuple[str, ...]:
    data = mount_options.parse(options).data
    return tuple(option for option in options if option not in data)


class Opened:
    """Descriptors by the names of a `Handover`; closed with the stack."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.by_name: dict[str, int] = {}
        self.directories: set[str] = set()

    def keep(self, name: str, descriptor: int) -> int:
        self._stack.callback(os.close, descriptor)
        self.by_name[name] = descriptor
        return descriptor

    def in_order(self, given: Handover) -> list[int]:
        return [self.by_name[name] for name in given.names]


def open_all(
    spec: Spec, bundle: Path, rootfs: Path, cgroup_files: Sequence[Path], given: Handover, opened: Opened
) -> None:
    """Open everything but the pipes. Raises InvalidConfig naming the field, OSError."""
    opened.keep("rootfs", _rootfs(rootfs, spec.linux.rootfs_propagation))
    for index, path in enumerate(cgroup_files):
        opened.keep(f"cgroup {index}", os.open(path, os.O_WRONLY | os.O_CLOEXEC))
    for index, namespace in enumerate(spec.linux.namespaces):
        if namespace.path and namespace.type != "pid":
            opened.keep(f"namespace {namespace.type}", open_namespace(f"linux.namespaces[{index}]", namespace))
    for index, mount in enumerate(spec.mounts):
        if binds(mount):
            name = f"mounts[{index}]"
            tree = opened.keep(name, _bind_source(name, mount, bundle, spec))
            if stat.S_ISDIR(os.fstat(tree).st_mode):
                opened.directories.add(name)
        elif copies_up(mount):
            opened.keep(f"mounts[{index}]", _filled_tmpfs(f"mounts[{index}]", mount, opened.by_name["rootfs"]))
            opened.directories.add(f"mounts[{index}]")
    for name in given.names:
        if name.startswith("device "):
            try:
                opened.keep(name, mounts.clone_tree(Path(name.removeprefix("device ")), recursive=False))
            except OSError as error:
                raise InvalidConfig("linux.devices", f"{name}: {os.strerror(error.errno or 0)}") from error


def _filled_tmpfs(field: str, mount: Mount, rootfs: int) -> int:
    try:
        return filled_tmpfs(mount, rootfs)
    except OSError as error:
        raise InvalidConfig(f"{field}.options", f"tmpcopyup: {os.strerror(error.errno or 0)}") from error


def _rootfs(path: Path, propagation: str) -> int:
    tree = mounts.clone_tree(path)
    # Whether it takes part in what happens on the machine; never the other way before the root is changed.
    keeps_in_touch = propagation.removeprefix("r") in ("shared", "slave")
    mounts.change(tree, propagation=n.MS_SLAVE if keeps_in_touch else n.MS_PRIVATE, recursive=True)
    return tree


def open_namespace(field: str, namespace: Namespace) -> int:
    try:
        descriptor = os.open(namespace.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidConfig(f"{field}.path", f"{namespace.path}: {os.strerror(error.errno or 0)}") from error
    try:
        kind = syscall("ioctl", descriptor, _NS_GET_NSTYPE, 0)
    except OSError:
        kind = 0
    if kind != NAMESPACE_FLAGS[namespace.type]:
        os.close(descriptor)
        raise InvalidConfig(f"{field}.path", f"{namespace.path} is no {namespace.type} namespace")
    return descriptor


def _bind_source(field: str, mount: Mount, bundle: Path, spec: Spec) -> int:
    options = mount_options.parse(mount.options)
    try:
        tree = mounts.clone_tree(bundle / mount.source, recursive="rbind" in options.own)
    except OSError as error:
        raise InvalidConfig(f"{field}.source", f"{mount.source}: {os.strerror(error.errno or 0)}") from error
    try:
        propagation = options.propagation
        if propagation is None:
            mounts.change(tree, propagation=n.MS_PRIVATE, recursive=True)
        else:
            mounts.change(tree, propagation=propagation.flag, recursive=propagation.recursive)
        for attributes, recursive in ((options.attributes, False), (options.recursive, True)):
            if attributes:
                mounts.change(tree, add=attributes.set, remove=attributes.clear, recursive=recursive)
        if mount.uid_mappings or options.own & {"idmap", "ridmap"}:
            uids = mount.uid_mappings or spec.linux.uid_mappings
            gids = mount.gid_mappings or spec.linux.gid_mappings
            _map_ids(tree, uids, gids, recursive="ridmap" in options.own)
    except OSError as error:
        os.close(tree)
        raise InvalidConfig(f"{field}.options", f"{mount.source}: {os.strerror(error.errno or 0)}") from error
    return tree


def _map_ids(tree: int, uids: Sequence[IdMapping], gids: Sequence[IdMapping], *, recursive: bool) -> None:
    namespace = user_namespace(uids, gids)
    try:
        mounts.change(tree, id_map=namespace, recursive=recursive)
    finally:
        os.close(namespace)


def user_namespace(uids: Sequence[IdMapping], gids: Sequence[IdMapping]) -> int:
    """Return a new user namespace with these ids, held by nothing but the descriptor."""
    ready_read, ready_write = os.pipe2(os.O_CLOEXEC)
    done_read, done_write = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        try:
            os.close(done_write)
            unshare(n.CLONE_NEWUSER)
            os.write(ready_write, b"1")
            os.read(done_read, 1)
        finally:
            os._exit(0)
    os.close(ready_write)
    os.close(done_read)
    try:
        if os.read(ready_read, 1) != b"1":
            raise OSError(1, "no user namespace can be made")
        write_id_maps(child, uids, gids)
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(done_write)
        os.close(ready_read)
        os.waitpid(child, 0)


def write_id_maps(pid: int, uids: Sequence[IdMapping], gids: Sequence[IdMapping]) -> None:
    for name, mappings in (("gid_map", gids), ("uid_map", uids)):
        lines = "".join(f"{each.container_id} {each.host_id} {each.size}\n" for each in mappings)
        Path(f"/proc/{pid}/{name}").write_text(lines)
