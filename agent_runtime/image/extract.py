"""Write a layer's tar into a directory without ever leaving it.

Every path is walked from the directory's own descriptor, one component at a time; symbolic links on the way are
resolved inside the directory, as if it were the root; the last component is never followed. So `..`, absolute paths,
links that point outside and links that replace directories cannot reach anything else. Whiteouts become overlayfs's.
"""

import os
import stat
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

from pyswarm.proto.errors import InvalidArgument

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
LINKS_FOLLOWED_MAX = 40
ENTRIES_MAX = 2_000_000
BYTES_MAX = 100 * 1024**3

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PAX_XATTR = "SCHILY.xattr."


class BadLayer(InvalidArgument):
    """A layer that tries what no honest one does, or is broken."""

    code = "bad-layer"


def extract(stream: IO[bytes], directory: int) -> None:
    """Extract the tar in `stream` under the directory descriptor. Raises BadLayer; leaves what was written so far."""
    entries = total = 0
    directories: list[tuple[tarfile.TarInfo, list[str]]] = []
    try:
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for entry in tar:
                entries += 1
                total += max(0, entry.size)
                if entries > ENTRIES_MAX or total > BYTES_MAX:
                    raise BadLayer("the layer is too large", remedy="It has more entries or bytes than are allowed.")
                parts = _parts(entry.name)
                if parts:
                    _write(tar, entry, parts, directory)
                if entry.isdir():
                    directories.append((entry, parts))
    except (tarfile.TarError, EOFError, UnicodeError) as error:
        raise BadLayer(f"the layer's archive is broken: {error}") from error
    # Times of directories last: writing into them changed them.
    for entry, parts in reversed(directories):
        with _parent(directory, parts, create=False) as (parent, name):
            os.utime(name, (entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)


def _parts(name: str) -> list[str]:
    """Return the components of a path; `..` goes up, but never above the layer."""
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            if parts:
                parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return parts


def _write(tar: tarfile.TarFile, entry: tarfile.TarInfo, parts: list[str], directory: int) -> None:
    with _parent(directory, parts, create=True) as (parent, name):
        if name == OPAQUE:
            _set_opaque(parent)
            return
        if name.startswith(WHITEOUT):
            _clear(parent, name.removeprefix(WHITEOUT))
            os.mknod(name.removeprefix(WHITEOUT), stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent)
            return
        if not (entry.isdir() and _is_directory(parent, name)):
            _clear(parent, name)
        if entry.isreg():
            _write_file(tar, entry, parent, name)
            return
        if entry.islnk():
            _link(entry, directory, parent, name)
            return
        if entry.isdir():
            with suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=parent)
        elif entry.issym():
            os.symlink(entry.linkname, name, dir_fd=parent)
        elif entry.ischr() or entry.isblk():
            kind = stat.S_IFCHR if entry.ischr() else stat.S_IFBLK
            os.mknod(name, kind | 0o600, os.makedev(entry.devmajor, entry.devminor), dir_fd=parent)
        elif entry.isfifo():
            os.mkfifo(name, 0o600, dir_fd=parent)
        else:
            raise BadLayer(f"{entry.name} is of an unknown kind")
        _own(entry, parent, name)


def _write_file(tar: tarfile.TarFile, entry: tarfile.TarInfo, parent: int, name: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    source = tar.extractfile(entry)
    assert source is not None, "a regular file has content"
    with os.fdopen(os.open(name, flags, 0o600, dir_fd=parent), "wb") as file:
        while chunk := source.read(1 << 20):
            file.write(chunk)
        file.flush()
        descriptor = file.fileno()
        os.fchown(descriptor, entry.uid, entry.gid)
        os.fchmod(descriptor, entry.mode & 0o7777)
        for key, value in entry.pax_headers.items():
            if key.startswith(_PAX_XATTR) and not key.startswith(_PAX_XATTR + "trusted.overlay."):
                os.setxattr(descriptor, key.removeprefix(_PAX_XATTR), value.encode("utf-8", "surrogateescape"))
        os.utime(descriptor, (entry.mtime, entry.mtime))


def _link(entry: tarfile.TarInfo, directory: int, parent: int, name: str) -> None:
    target = _parts(entry.linkname)
    if not target:
        raise BadLayer(f"{entry.name} is a hard link to nothing")
    try:
        with _parent(directory, target, create=False) as (target_parent, target_name):
            os.link(target_name, name, src_dir_fd=target_parent, dst_dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError as error:
        raise BadLayer(f"{entry.name} is a hard link to {entry.linkname}, which is not in the layer") from error


def _own(entry: tarfile.TarInfo, parent: int, name: str) -> None:
    os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
    if not entry.issym():
        # Not a link: it was made a moment ago by us, and nobody else writes here.
        os.chmod(name, entry.mode & 0o7777, dir_fd=parent)
    if not entry.isdir():
        os.utime(name, (entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)


def _set_opaque(parent: int) -> None:
    os.setxattr(f"/proc/self/fd/{parent}", "trusted.overlay.opaque", b"y")


def _is_directory(parent: int, name: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _clear(parent: int, name: str) -> None:
    """Remove whatever is under a name, so that an entry replaces it instead of following it."""
    if not name or name in (".", ".."):
        raise BadLayer("a whiteout names nothing")
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return
    except IsADirectoryError:
        _clear_directory(parent, name)


def _clear_directory(parent: int, name: str) -> None:
    descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        for child in os.listdir(descriptor):
            _clear(descriptor, child)
    finally:
        os.close(descriptor)
    os.rmdir(name, dir_fd=parent)


@contextmanager
def _parent(root: int, parts: list[str], *, create: bool) -> Iterator[tuple[int, str]]:
    """Yield (descriptor of the directory that holds the last component, that component)."""
    if not parts:
        raise BadLayer("an entry has no name")
    opened: list[int] = []
    try:
        yield _walk(root, parts[:-1], opened, create=create), parts[-1]
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _walk(root: int, parts: list[str], opened: list[int], *, create: bool) -> int:
    """Return a descriptor of the directory at `parts`, resolving links as if `root` were `/`."""
    waiting, stack, links = list(parts), [root], 0
    while waiting:
        part = waiting.pop(0)
        if part in ("", "."):
            continue
        if part == "..":
            if len(stack) > 1:
                stack.pop()
            continue
        try:
            descriptor = os.open(part, _DIRECTORY, dir_fd=stack[-1])
        except FileNotFoundError:
            if not create:
                raise
            os.mkdir(part, 0o755, dir_fd=stack[-1])
            descriptor = os.open(part, _DIRECTORY, dir_fd=stack[-1])
        except NotADirectoryError:
            links += 1
            if links > LINKS_FOLLOWED_MAX:
                raise BadLayer("too many links on a path") from None
            try:
                target = os.readlink(part, dir_fd=stack[-1])
            except OSError as error:
                raise BadLayer(f"{part} is used as a directory but is none") from error
            if target.startswith("/"):
                stack = [root]
            waiting = target.split("/") + waiting
            continue
        opened.append(descriptor)
        stack.append(descriptor)
    return stack[-1]
