"""The mount option `tmpcopyup`: a tmpfs that begins with what the rootfs has at its place.

Made and filled before the container is: what is copied is the rootfs' own, also where another mount of the same
config.json lies above it. Every path is opened below a descriptor, following no link but inside the rootfs.
"""

import errno
import os
import stat

from pyswarm.agent_runtime.bundle import mount_options
from pyswarm.agent_runtime.bundle.runtime_spec import Mount
from pyswarm.agent_runtime.kernel import mounts
from pyswarm.agent_runtime.kernel import numbers as n
from pyswarm.agent_runtime.kernel.syscalls import openat2

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_OWN = ("mode=", "uid=", "gid=")
"""Options that say what the tmpfs' own directory shall be: then it is not what the rootfs has."""
_PIECE_BYTES = 1024 * 1024
_IN_ROOT = n.RESOLVE_IN_ROOT | n.RESOLVE_NO_MAGICLINKS


def filled_tmpfs(mount: Mount, rootfs: int) -> int:
    """Return a detached tmpfs, the caller's to close, with what lies at its place in the rootfs. Raises OSError."""
    options = mount_options.parse(mount.options)
    attributes = options.attributes.set | options.recursive.set
    # Written to before it may become read-only.
    tree = mounts.tmpfs(options.data, attributes & ~n.MOUNT_ATTR_RDONLY)
    try:
        _copy_place(rootfs, mount.destination, tree, keep_own=any(data.startswith(_OWN) for data in options.data))
        mounts.change(tree, add=attributes & n.MOUNT_ATTR_RDONLY, propagation=n.MS_PRIVATE)
    except BaseException:
        os.close(tree)
        raise
    return tree


def _copy_place(rootfs: int, path: str, tree: int, *, keep_own: bool) -> None:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        source = openat2(rootfs, path.lstrip("/") or ".", flags, resolve=_IN_ROOT)
    except FileNotFoundError:
        return
    try:
        into = os.open(".", flags, dir_fd=tree)
        try:
            _copy_content(source, into)
            if not keep_own:
                _copy_attributes(source, into)
        finally:
            os.close(into)
    finally:
        os.close(source)


def _copy_content(source: int, into: int) -> None:
    for name in os.listdir(source):
        _copy(source, into, name)


def _copy(source: int, into: int, name: str) -> None:
    found = os.stat(name, dir_fd=source, follow_symlinks=False)
    if stat.S_ISLNK(found.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=into)
        os.chown(name, found.st_uid, found.st_gid, dir_fd=into, follow_symlinks=False)
        return
    if not stat.S_ISDIR(found.st_mode) and not stat.S_ISREG(found.st_mode):
        os.mknod(name, found.st_mode, found.st_rdev, dir_fd=into)
        os.chown(name, found.st_uid, found.st_gid, dir_fd=into, follow_symlinks=False)
        os.chmod(name, stat.S_IMODE(found.st_mode), dir_fd=into)
        return
    is_directory = stat.S_ISDIR(found.st_mode)
    old = os.open(name, _OPEN | (os.O_DIRECTORY if is_directory else 0), dir_fd=source)
    try:
        if is_directory:
            os.mkdir(name, 0o700, dir_fd=into)
        new = os.open(name, _OPEN | os.O_DIRECTORY, dir_fd=into) if is_directory else _new_file(name, into)
        try:
            if is_directory:
                _copy_content(old, new)
            else:
                while os.sendfile(new, old, None, _PIECE_BYTES):
                    pass
            _copy_attributes(old, new)
        finally:
            os.close(new)
    finally:
        os.close(old)


def _new_file(name: str, into: int) -> int:
    return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=into)


def _copy_attributes(old: int, new: int) -> None:
    found = os.fstat(old)
    os.fchown(new, found.st_uid, found.st_gid)
    os.fchmod(new, stat.S_IMODE(found.st_mode))
    for name in os.listxattr(old):
        try:
            os.setxattr(new, name, os.getxattr(old, name))
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:  # a tmpfs keeps no attributes of users before Linux 6.6
                raise
    os.utime(new, ns=(found.st_atime_ns, found.st_mtime_ns))
