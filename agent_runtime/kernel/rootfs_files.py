"""Read and write files of a container's root file system without ever leaving it.

An image may hold any symbolic link, such as /etc/passwd -> /proc/1/environ. Every path is resolved by the kernel
with the rootfs as its root (openat2, RESOLVE_IN_ROOT) and never through magic links.
"""

import errno
import os
import stat
from collections.abc import Mapping

from pyswarm.agent_runtime.kernel import numbers as n
from pyswarm.agent_runtime.kernel.syscalls import openat2

_RESOLVE = n.RESOLVE_IN_ROOT | n.RESOLVE_NO_MAGICLINKS
LARGEST_READ_BYTES = 4 * 1024 * 1024


def read_file(root: int, path: str) -> str:
    """Return a small text file's content, "" if it is missing or no regular file. Raises OSError when too large."""
    try:
        # A FIFO in the image must not make us wait.
        descriptor = openat2(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY, resolve=_RESOLVE)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO):
            return ""
        raise
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            return ""
        if facts.st_size > LARGEST_READ_BYTES:
            raise OSError(errno.EFBIG, f"{path} in the image is larger than {LARGEST_READ_BYTES} bytes")
        return os.read(descriptor, facts.st_size).decode("utf-8", "replace")
    finally:
        os.close(descriptor)


def write_files(root: int, folder: str, contents: Mapping[str, str]) -> None:
    """Replace files of a directory of the rootfs, making that if need be; a symbolic link is replaced as well."""
    parent = make_directory(root, folder)
    try:
        for name, content in contents.items():
            _write_file(parent, name, content.encode())
    finally:
        os.close(parent)


def _write_file(parent: int, name: str, content: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, 0o644, dir_fd=parent)
    except FileExistsError:
        os.unlink(name, dir_fd=parent)
        descriptor = os.open(name, flags, 0o644, dir_fd=parent)
    try:
        os.fchmod(descriptor, 0o644)  # whatever our umask is
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
    finally:
        os.close(descriptor)


def make_directory(root: int, path: str) -> int:
    """Return a descriptor of a directory of the rootfs, making it and its parents if they are missing."""
    current = ""
    descriptor = os.dup(root)
    for part in [part for part in path.split("/") if part]:
        current = f"{current}/{part}" if current else part
        try:
            found = openat2(root, current, os.O_PATH | os.O_DIRECTORY, resolve=_RESOLVE)
        except FileNotFoundError:
            os.mkdir(part, 0o755, dir_fd=descriptor)
            found = openat2(root, current, os.O_PATH | os.O_DIRECTORY, resolve=_RESOLVE)
        finally:
            os.close(descriptor)
        descriptor = found
    return descriptor
