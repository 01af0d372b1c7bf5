"""Reach files beneath a directory and nothing else, whatever links and names an archive brings.

Paths are lists of components. They are walked from the directory's own descriptor, one component at a time; symbolic
links on the way are resolved as if that directory were `/`, as they would be in the container; the last component is
never followed. What is written there is decided by `extract.py`.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from pyswarm.proto.errors import InvalidArgument

LINKS_FOLLOWED_MAX = 40
DEPTH_MAX = 256
"""Directories in one another. Linux bounds a path's length, not a tree's depth: a deeper one could not be removed."""

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class BadLayer(InvalidArgument):
    """A layer that tries what no honest one does, or is broken."""

    code = "bad-layer"
    remedy = "The image is broken or malicious: have it built and pushed anew. Nothing of it was kept."


def parts_of(path: str) -> list[str]:
    """Return the components of a path; `..` goes up, but never above the directory."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            if parts:
                parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return parts


@contextmanager
def parent_of(root: int, parts: list[str], *, create: bool) -> Iterator[tuple[int, str]]:
    """Yield (descriptor of the directory that holds the last component, that component).

    With `create`, missing directories on the way are made. Raises BadLayer, FileNotFoundError.
    """
    assert parts, "the directory itself has no parent that may be touched"
    opened: list[int] = []
    try:
        yield _walk(root, parts[:-1], opened, create=create), parts[-1]
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _walk(root: int, parts: list[str], opened: list[int], *, create: bool) -> int:
    waiting, stack, links = list(parts), [root], 0
    while waiting:
        part = waiting.pop(0)
        if part in ("", "."):
            continue
        if part == "..":
            if len(stack) > 1:
                stack.pop()
            continue
        descriptor = _enter(stack[-1], part, create=create)
        if descriptor is not None:
            opened.append(descriptor)
            stack.append(descriptor)
            if len(stack) > DEPTH_MAX:
                raise BadLayer(f"directories lie more than {DEPTH_MAX} deep in the layer")
            continue
        links += 1
        if links > LINKS_FOLLOWED_MAX:
            raise BadLayer("too many symbolic links on a path in the layer")
        target = os.readlink(part, dir_fd=stack[-1])
        if target.startswith("/"):
            stack = [root]
        waiting = target.split("/") + waiting
    return stack[-1]


def _enter(parent: int, name: str, *, create: bool) -> int | None:
    """Return a descriptor of a directory, or None for a symbolic link."""
    try:
        return os.open(name, _DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        if not create:
            raise
    except NotADirectoryError:
        mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
        if stat.S_ISLNK(mode):
            return None
        if not (create and is_whiteout(parent, name)):
            raise BadLayer(f"{name} is used as a directory in the layer but is none") from None
    make_directory(parent, name)
    return os.open(name, _DIRECTORY, dir_fd=parent)


def make_directory(parent: int, name: str) -> None:
    """Make a directory of mode 0755 in place of nothing, of a whiteout, or of itself.

    One that follows a whiteout in its own layer is opaque: only what lies below in other layers was meant to vanish.
    """
    hides = is_whiteout(parent, name)
    if hides:
        os.unlink(name, dir_fd=parent)
    try:
        os.mkdir(name, 0o755, dir_fd=parent)
    except FileExistsError:
        if not is_directory(parent, name):
            raise
        return
    os.chmod(name, 0o755, dir_fd=parent)  # the daemon's umask is not the image's
    if hides:
        with opened_directory(parent, name) as descriptor:
            set_opaque(descriptor)


@contextmanager
def opened_directory(parent: int, name: str) -> Iterator[int]:
    """Yield a readable descriptor of a directory, never of what a link names."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def is_directory(parent: int, name: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def is_whiteout(parent: int, name: str) -> bool:
    """Whether overlayfs takes the file for the mark that lower layers' file of this name is gone."""
    try:
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def set_opaque(directory: int) -> None:
    """Mark a directory as hiding everything lower layers have in it."""
    os.setxattr(directory, "trusted.overlay.opaque", b"y")


def clear(parent: int, name: str) -> None:
    """Remove whatever has a name, so that an entry replaces it instead of following it."""
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return
    except IsADirectoryError:
        with opened_directory(parent, name) as descriptor:
            for child in os.listdir(descriptor):
                clear(descriptor, child)
        os.rmdir(name, dir_fd=parent)
