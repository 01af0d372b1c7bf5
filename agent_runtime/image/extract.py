"""Write a layer's tar into a directory: files with owners, modes, times and attributes, whiteouts as overlayfs has
them.

Every name is reached through `beneath.py`, so that `..`, absolute paths, links that point outside and links that
replace directories touch nothing else. Hashing and decompression belong to `layers.py`.
"""

import errno
import os
import stat
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, Self

from pyswarm.agent_runtime.image.beneath import (
    BadLayer,
    clear,
    is_directory,
    is_whiteout,
    make_directory,
    opened_directory,
    parent_of,
    parts_of,
    set_opaque,
)

ENTRIES_MAX = 2_000_000
BYTES_MAX = 100 * 1024**3
HEADER_BYTES_MAX = 1024**2
"""Of a long name or a block of attributes, which are read into memory."""

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
AUFS_OWN = ".wh..wh."

_READ_BYTES = 1 << 18
_PAX_XATTR = "SCHILY.xattr."
_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_REFUSED_NAMES = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.ELOOP, errno.EPERM, errno.EEXIST)
"""What a file system answers to entries that no file system could have held."""


class _Entry(tarfile.TarInfo):
    """An entry whose headers are bounded before they are read."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        entry = super().frombuf(buf, encoding, errors)
        if entry.size < 0 or (entry.type in _HEADERS and entry.size > HEADER_BYTES_MAX):
            raise BadLayer(f"a header in the layer's archive claims {entry.size} bytes")
        return entry


def extract(stream: IO[bytes], directory: int) -> None:
    """Extract the tar in `stream` under the directory descriptor, which must be readable.

    Raises BadLayer, and OSError when the disk fails; leaves what was written so far.
    """
    folders: dict[tuple[str, ...], float] = {}
    try:
        with tarfile.open(fileobj=stream, mode="r|", bufsize=_READ_BYTES, tarinfo=_Entry) as tar:
            for entry in _bounded(tar):
                parts = parts_of(entry.name)
                if entry.isdir():
                    folders[tuple(parts)] = entry.mtime
                if parts:
                    _write(tar, entry, parts, directory)
                elif entry.isdir():
                    _dress(entry, directory)
        # Times of directories last: writing into them changed them. Later entries may have replaced some.
        for path in reversed(folders):
            with suppress(FileNotFoundError, BadLayer):
                _set_time(directory, list(path), folders[path])
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise BadLayer(f"the layer's archive is broken: {error}") from error
    except OSError as error:
        if error.errno not in _REFUSED_NAMES:
            raise
        raise BadLayer(f"the layer has an entry that cannot be made: {error}") from error


def _bounded(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    entries = total = 0
    while (entry := tar.next()) is not None:
        # tarfile remembers all it has seen, to look things up that we never ask for.
        tar.members = []  # type: ignore[attr-defined]
        entries += 1
        total += entry.size
        if entries > ENTRIES_MAX or total > BYTES_MAX:
            raise BadLayer(f"the layer has more than {ENTRIES_MAX} entries or {BYTES_MAX >> 30} GiB")
        yield entry


def _write(tar: tarfile.TarFile, entry: tarfile.TarInfo, parts: list[str], directory: int) -> None:
    with parent_of(directory, parts, create=True) as (parent, name):
        if name == OPAQUE:
            with opened_directory(parent, ".") as hiding:
                set_opaque(hiding)
        elif name.startswith(AUFS_OWN):
            return  # notes that an old storage driver kept for itself
        elif name.startswith(WHITEOUT):
            _white_out(parent, name.removeprefix(WHITEOUT))
        elif entry.isdir():
            if not is_directory(parent, name) and not is_whiteout(parent, name):
                clear(parent, name)
            make_directory(parent, name)
            with opened_directory(parent, name) as made:
                _dress(entry, made)
        else:
            clear(parent, name)
            _write_file(tar, entry, directory, parent, name)


def _white_out(parent: int, name: str) -> None:
    """Hide what lower layers have under a name; what this layer has there stays (OCI image-spec, layer.md)."""
    if name in ("", ".", ".."):
        raise BadLayer("a whiteout in the layer names nothing")
    if is_directory(parent, name):
        with opened_directory(parent, name) as hiding:
            set_opaque(hiding)
        return
    with suppress(FileExistsError):
        os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent)


def _write_file(tar: tarfile.TarFile, entry: tarfile.TarInfo, directory: int, parent: int, name: str) -> None:
    if entry.isreg():
        _write_regular(tar, entry, parent, name)
        return
    if entry.islnk():
        _link(entry, directory, parent, name)
        return
    if entry.issym():
        os.symlink(entry.linkname, name, dir_fd=parent)
    elif entry.ischr() or entry.isblk():
        kind = stat.S_IFCHR if entry.ischr() else stat.S_IFBLK
        os.mknod(name, kind | 0o600, os.makedev(entry.devmajor, entry.devminor), dir_fd=parent)
    elif entry.isfifo():
        os.mkfifo(name, 0o600, dir_fd=parent)
    else:
        raise BadLayer(f"{entry.name} is of an unknown kind")
    os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
    if not entry.issym():
        # No link: we made it a moment ago, and nobody else writes here.
        os.chmod(name, entry.mode & 0o7777, dir_fd=parent)
    os.utime(name, (entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)


def _write_regular(tar: tarfile.TarFile, entry: tarfile.TarInfo, parent: int, name: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    source = tar.extractfile(entry)
    assert source is not None, "a regular file has content"
    with os.fdopen(os.open(name, flags, 0o600, dir_fd=parent), "wb") as file:
        while chunk := source.read(1 << 20):
            file.write(chunk)
        file.flush()
        _dress(entry, file.fileno())
        os.utime(file.fileno(), (entry.mtime, entry.mtime))


def _dress(entry: tarfile.TarInfo, descriptor: int) -> None:
    """Give a file its owner, mode and attributes, in this order: each would undo something of the next."""
    os.fchown(descriptor, entry.uid, entry.gid)
    os.fchmod(descriptor, entry.mode & 0o7777)
    for key, value in entry.pax_headers.items():
        attribute = key.removeprefix(_PAX_XATTR)
        # An image must not speak to the overlay driver but through whiteouts.
        if attribute == key or attribute.startswith("trusted.overlay."):
            continue
        try:
            os.setxattr(descriptor, attribute, value.encode("utf-8", "surrogateescape"))
        except OSError as error:
            # Not every file system keeps user attributes; capabilities must not be lost.
            if error.errno != errno.ENOTSUP or attribute == "security.capability":
                raise


def _link(entry: tarfile.TarInfo, directory: int, parent: int, name: str) -> None:
    target = parts_of(entry.linkname)
    if not target:
        raise BadLayer(f"{entry.name} is a hard link to nothing")
    try:
        with parent_of(directory, target, create=False) as (target_parent, target_name):
            os.link(target_name, name, src_dir_fd=target_parent, dst_dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError as error:
        raise BadLayer(f"{entry.name} is a hard link to {entry.linkname}, which is not in the layer") from error


def _set_time(directory: int, parts: list[str], moment: float) -> None:
    if not parts:
        os.utime(directory, (moment, moment))
        return
    with parent_of(directory, parts, create=False) as (parent, name):
        if is_directory(parent, name):
            os.utime(name, (moment, moment), dir_fd=parent, follow_symlinks=False)
