"""Mounts that are nowhere yet: overlays and bind sources as descriptors, to be attached inside a container.

The daemon makes them with the new mount API and hands them to the spawner, so that nothing of a container is ever
mounted in the machine's own mount namespace, and nothing is left there when it dies.
"""

import errno
import os
import struct
from collections.abc import Sequence
from pathlib import Path

from pyswarm.agent_runtime.kernel import numbers as n
from pyswarm.agent_runtime.kernel.syscalls import mount, syscall, unmount


def overlay(lower: Sequence[Path], upper: Path, work: Path, *, at: Path) -> int:
    """Return a detached overlay mount; `lower` is lowest first.

    Kernels before 6.5 cannot take many layers through fsconfig: there it is mounted at the directory `at` for a
    moment and picked up from there. Raises OSError.
    """
    try:
        return _overlay_detached(lower, upper, work)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS):
            raise
    return _overlay_picked_up(lower, upper, work, at)


def _overlay_detached(lower: Sequence[Path], upper: Path, work: Path) -> int:
    context = syscall("fsopen", b"overlay\0", n.FSOPEN_CLOEXEC)
    try:
        for layer in reversed(lower):
            _set(context, "lowerdir+", layer)
        _set(context, "upperdir", upper)
        _set(context, "workdir", work)
        syscall("fsconfig", context, n.FSCONFIG_CMD_CREATE, None, None, 0)
        return syscall("fsmount", context, n.FSMOUNT_CLOEXEC, 0)
    finally:
        os.close(context)


def _set(context: int, key: str, value: Path | str) -> None:
    syscall("fsconfig", context, n.FSCONFIG_SET_STRING, key.encode(), os.fsencode(value), 0)


def tmpfs(options: Sequence[str], attributes: int) -> int:
    """Return a detached tmpfs with options such as `size=64k` and `MOUNT_ATTR_*`. Raises OSError."""
    context = syscall("fsopen", b"tmpfs\0", n.FSOPEN_CLOEXEC)
    try:
        for option in options:
            key, equals, value = option.partition("=")
            if equals:
                _set(context, key, value)
            else:
                syscall("fsconfig", context, n.FSCONFIG_SET_FLAG, key.encode(), None, 0)
        syscall("fsconfig", context, n.FSCONFIG_CMD_CREATE, None, None, 0)
        return syscall("fsmount", context, n.FSMOUNT_CLOEXEC, attributes)
    finally:
        os.close(context)


def _overlay_picked_up(lower: Sequence[Path], upper: Path, work: Path, at: Path) -> int:
    # Short names through our own descriptors: the options of mount(2) must fit one page.
    descriptors = [os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for path in (*reversed(lower), upper, work)]
    try:
        at.mkdir(exist_ok=True)
        names = [f"/proc/self/fd/{descriptor}" for descriptor in descriptors]
        options = f"lowerdir={':'.join(names[:-2])},upperdir={names[-2]},workdir={names[-1]}"
        mount("overlay", at, "overlay", 0, options)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    try:
        return clone_tree(at, recursive=False)
    finally:
        unmount(at)


def clone_tree(path: Path, *, recursive: bool = True) -> int:
    """Return a detached copy of the mount at or above `path`, showing `path`: the source of a bind mount."""
    flags = n.OPEN_TREE_CLONE | n.OPEN_TREE_CLOEXEC | (n.AT_RECURSIVE if recursive else 0)
    return syscall("open_tree", n.AT_FDCWD, os.fsencode(path), flags)


def set_attributes(tree: int, attributes: int) -> None:
    """Add mount attributes (`MOUNT_ATTR_*`) to a detached tree and all mounts in it, and cut it off from its source:
    what is mounted in one must not appear in the other."""
    block = struct.pack("=4Q", attributes, 0, n.MS_PRIVATE, 0)
    syscall("mount_setattr", tree, b"", n.AT_EMPTY_PATH | n.AT_RECURSIVE, block, len(block))


def change(
    tree: int, *, add: int = 0, remove: int = 0, propagation: int = 0, recursive: bool = False, id_map: int = 0
) -> None:
    """Change the attributes and the propagation of a detached tree, or of all mounts in it. `id_map` is a descriptor
    of the user namespace whose ids its files shall be seen with. Raises OSError."""
    block = struct.pack("=4Q", add | (n.MOUNT_ATTR_IDMAP if id_map else 0), remove, propagation, id_map)
    flags = n.AT_EMPTY_PATH | (n.AT_RECURSIVE if recursive else 0)
    syscall("mount_setattr", tree, b"", flags, block, len(block))


def mounts_below(folder: Path) -> list[Path]:
    """Return the mount points under `folder` in our mount namespace, deepest first."""
    prefix = f"{os.path.realpath(folder)}/"
    points = [
        line.split()[4].encode().decode("unicode_escape")
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
    ]
    return [Path(point) for point in sorted(points, reverse=True) if point.startswith(prefix)]
