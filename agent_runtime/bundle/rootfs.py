"""Write the part of a start program that assembles the rootfs: attach, mount, hide, protect, pivot. Pure.

Nothing here trusts a path: every target is opened with openat2 below the rootfs' own descriptor and mounts are moved
onto that descriptor, so that a symbolic link in an image or a volume cannot redirect a mount.
"""

import errno
import os
import struct
from collections.abc import Sequence

from pyswarm.agent_runtime.bundle import mount_options
from pyswarm.agent_runtime.bundle.mount_options import Attributes, Propagation
from pyswarm.agent_runtime.bundle.runtime_spec import Mount
from pyswarm.agent_runtime.kernel import numbers as n
from pyswarm.agent_runtime.kernel.program import Data, Slot, Writer, open_how

_IN_ROOT = n.RESOLVE_IN_ROOT | n.RESOLVE_NO_MAGICLINKS
_NO_LINKS = _IN_ROOT | n.RESOLVE_NO_SYMLINKS
_BOTH_EMPTY = n.MOVE_MOUNT_F_EMPTY_PATH | n.MOVE_MOUNT_T_EMPTY_PATH
_EMPTY = ("ro", "nosuid", "nodev", "noexec", "size=0")
_NO_ATTRIBUTES, _READ_ONLY = Attributes(), Attributes(n.MOUNT_ATTR_RDONLY)


class RootfsWriter:
    """Appends to a program; `proc` and `dev` are the slots of those mounts once they are attached."""

    def __init__(self, w: Writer, root: Slot, *, proc: Slot | None = None, dev: Slot | None = None) -> None:
        self._w = w
        self._root = root
        self._empty = w.text("")
        self.proc = proc or root
        self.dev = dev or root

    def attach(self, point: str) -> None:
        """Attach the detached rootfs mount to a directory of the spawner's tiny file system."""
        self._w.call(
            "move_mount", self._root, self._empty, n.AT_FDCWD, self._w.text(point), n.MOVE_MOUNT_F_EMPTY_PATH,
            label="attach the rootfs",
        )  # fmt: skip

    def pivot(self) -> None:
        """Make the rootfs the root and let go of everything else."""
        here = self._w.text(".")
        self._w.call("fchdir", self._root, label="enter the rootfs")
        self._w.call("pivot_root", here, here, label="make the rootfs the root")
        self._w.call("umount2", here, n.MNT_DETACH, label="leave the machine's file system")
        self._w.call("chdir", self._w.text("/"), label="enter the root directory")

    def change_root(self) -> None:
        """Make the rootfs the root where it cannot be pivoted to: on a machine whose own root is its initramfs."""
        here = self._w.text(".")
        self._w.call("fchdir", self._root, label="enter the rootfs")
        self._w.call("mount", here, self._w.text("/"), 0, n.MS_MOVE, 0, label="move the rootfs over the root")
        self._w.call("chroot", here, label="make the rootfs the root")
        self._w.call("chdir", self._w.text("/"), label="enter the root directory")

    def make_read_only(self) -> None:
        self._set_attributes(self._root, "make the rootfs read-only", _READ_ONLY)

    def mount(self, mount: Mount) -> Slot:
        """Mount a file system of its own (proc, tmpfs, ...); return the slot of the mount."""
        # The kernel's own trees must be where programs look for them, not behind a link of the image.
        resolve = _NO_LINKS if mount.destination in ("/proc", "/sys", "/dev") else _IN_ROOT
        label = f"mount {mount.type} on {mount.destination}"
        attached = self.unattached(mount.type, mount.options, label)
        target = self.directory(mount.destination, resolve=resolve)
        self._w.call("move_mount", attached, self._empty, target, self._empty, _BOTH_EMPTY, label=label)
        self.propagate(attached, mount_options.parse(mount.options).propagation, label)
        return attached

    def propagate(self, mount: Slot, wanted: Propagation | None, label: str) -> None:
        """Choose which mounts of others appear in this one, and whose see ours."""
        if wanted is not None:
            self._set_attributes(mount, label, propagation=wanted.flag, recursive=wanted.recursive)

    def change(self, mount: Mount) -> None:
        """Change the attributes of what is mounted already: the option `remount`."""
        options = mount_options.parse(mount.options)
        label, target = f"remount {mount.destination}", self._w.new_slot()
        self._open(mount.destination.lstrip("/") or ".", os.O_PATH, _IN_ROOT, label, target)
        for attributes, recursive in ((options.attributes, False), (options.recursive, True)):
            if attributes:
                self._set_attributes(target, label, attributes, recursive=recursive)
        self.propagate(target, options.propagation, label)

    def unattached(self, kind: str, options: Sequence[str], label: str) -> Slot:
        """Make a mount that is nowhere yet."""
        w = self._w
        context, attached = w.new_slot(), w.new_slot()
        w.call("fsopen", w.text(kind), n.FSOPEN_CLOEXEC, label=label, save=context)
        parsed = mount_options.parse(options)
        for option in parsed.data:
            key, equals, value = option.partition("=")
            data: Data | int = w.text(value) if equals else 0
            command = n.FSCONFIG_SET_STRING if equals else n.FSCONFIG_SET_FLAG
            w.call("fsconfig", context, command, w.text(key), data, 0, label=f"{label} with {option}")
        w.call("fsconfig", context, n.FSCONFIG_CMD_CREATE, 0, 0, 0, label=label)
        attributes = parsed.attributes.set | parsed.recursive.set
        w.call("fsmount", context, n.FSMOUNT_CLOEXEC, attributes, label=label, save=attached)
        return attached

    def bind(self, mount: Mount, source: Slot, is_directory: bool) -> None:
        """Attach a detached copy of something of the machine, making the target if it is missing."""
        target = self.directory(mount.destination) if is_directory else self.file(mount.destination)
        label = f"mount {mount.source} on {mount.destination}"
        self._w.call("move_mount", source, self._empty, target, self._empty, _BOTH_EMPTY, label=label)

    def directory(self, path: str, *, resolve: int = _IN_ROOT) -> Slot:
        """Open a directory of the rootfs, making it and its parents if they are missing."""
        parts = [part for part in path.split("/") if part]
        if not parts:
            return self._root
        w, found, label = self._w, self._w.new_slot(), f"open the directory {path}"
        flags = os.O_PATH | os.O_DIRECTORY
        slow_path = 2 * len(parts)  # one mkdirat each, one openat2 for every parent but the root, and the final one
        self._open("/".join(parts), flags, resolve, label, found, skip=slow_path, tolerated=((errno.ENOENT, 0),))
        parent = self._root
        for depth, part in enumerate(parts):
            if depth:
                parent = w.new_slot()
                self._open("/".join(parts[:depth]), flags, resolve, label, parent)
            w.call(
                "mkdirat", parent, w.text(part), 0o755, label=f"make the directory {path}",
                tolerated=((errno.EEXIST, 0),),
            )  # fmt: skip
        self._open("/".join(parts), flags, resolve, label, found)
        return found

    def file(self, path: str) -> Slot:
        """Open a file of the rootfs, making an empty one if it is missing."""
        relative, label = path.lstrip("/"), f"open the file {path}"
        folder = os.path.dirname(relative)
        if folder:
            self.directory(folder)
        found, made = self._w.new_slot(), self._w.new_slot()
        self._open(relative, os.O_PATH, _IN_ROOT, label, found, skip=3, tolerated=((errno.ENOENT, 0),))
        create = os.O_CREAT | os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY
        self._open(relative, create, _IN_ROOT, f"make the file {path}", made, mode=0o644)
        # What is open for writing keeps the rootfs from becoming read-only.
        self._w.call("close", made, label=f"make the file {path}")
        self._open(relative, os.O_PATH, _IN_ROOT, label, found)
        return found

    def _open(
        self,
        path: str,
        flags: int,
        resolve: int,
        label: str,
        save: Slot,
        *,
        mode: int = 0,
        skip: int = 0,
        tolerated: tuple[tuple[int, int], ...] = (),
    ) -> None:
        how = open_how(flags, resolve, mode)
        self._w.call(
            "openat2", self._root, self._w.text(path), self._w.block(how), len(how),
            label=label, save=save, skip=skip, tolerated=tolerated,
        )  # fmt: skip

    def hide(self, paths: Sequence[str], empty_point: str) -> None:
        """Cover files with the container's own /dev/null and directories with an empty file system."""
        w = self._w
        empty = self.unattached("tmpfs", _EMPTY, "make an empty file system")
        # Attached, so that it can be cloned on every kernel; it goes away with the old root.
        w.call(
            "move_mount", empty, self._empty, n.AT_FDCWD, w.text(empty_point), n.MOVE_MOUNT_F_EMPTY_PATH,
            label="make an empty file system",
        )  # fmt: skip
        self._cover(paths, (self.dev, w.text("null")), (n.AT_FDCWD, w.text(empty_point), 0))

    def attach_here(self) -> Slot:
        """Attach an empty file system, and over it the rootfs, to the working directory, which is the rootfs' own on
        the machine; return the slot of the empty one. Needs no right to look up any path."""
        w, here = self._w, (n.AT_FDCWD, self._empty, _BOTH_EMPTY)
        empty = self.unattached("tmpfs", _EMPTY, "make an empty file system")
        w.call("move_mount", empty, self._empty, *here, label="make an empty file system")
        w.call("move_mount", self._root, self._empty, *here, label="attach the rootfs")
        return empty

    def hide_by(self, paths: Sequence[str], empty: Slot) -> None:
        """As `hide`, while the machine's /dev/null is in sight; `empty` comes from `attach_here`."""
        null = (n.AT_FDCWD, self._w.text("/dev/null"))
        self._cover(paths, null, (empty, self._empty, n.AT_EMPTY_PATH))

    def _cover(self, paths: Sequence[str], null: tuple[Slot | int, Data], empty: tuple[Slot | int, Data, int]) -> None:
        w, clone = self._w, n.OPEN_TREE_CLONE | n.OPEN_TREE_CLOEXEC
        for path in paths:
            label, target, cover = f"hide {path}", w.new_slot(), w.new_slot()
            relative = path.lstrip("/")
            self._open(
                relative, os.O_PATH | os.O_DIRECTORY, _NO_LINKS, label, target,
                skip=3, tolerated=((errno.ENOENT, 5), (errno.ENOTDIR, 0)),
            )  # fmt: skip
            self._open(relative, os.O_PATH, _NO_LINKS, label, target)
            w.call("open_tree", *null, clone, label=label, save=cover)
            w.call("move_mount", cover, self._empty, target, self._empty, _BOTH_EMPTY, label=label, skip=2)
            w.call("open_tree", *empty[:2], clone | empty[2], label=label, save=cover)
            w.call("move_mount", cover, self._empty, target, self._empty, _BOTH_EMPTY, label=label)

    def protect(self, path: str) -> None:
        """Make a path read-only, if it exists."""
        w, label = self._w, f"make {path} read-only"
        target, copy = w.new_slot(), w.new_slot()
        self._open(path.lstrip("/"), os.O_PATH, _NO_LINKS, label, target, tolerated=((errno.ENOENT, 3),))
        flags = n.OPEN_TREE_CLONE | n.OPEN_TREE_CLOEXEC | n.AT_EMPTY_PATH | n.AT_RECURSIVE
        w.call("open_tree", target, self._empty, flags, label=label, save=copy)
        self._set_attributes(copy, label, _READ_ONLY, recursive=True)
        w.call("move_mount", copy, self._empty, target, self._empty, _BOTH_EMPTY, label=label)

    def _set_attributes(
        self,
        mount: Slot,
        label: str,
        attributes: Attributes = _NO_ATTRIBUTES,
        *,
        propagation: int = 0,
        recursive: bool = False,
    ) -> None:
        block = struct.pack("=4Q", attributes.set, attributes.clear, propagation, 0)
        flags = n.AT_EMPTY_PATH | (n.AT_RECURSIVE if recursive else 0)
        self._w.call("mount_setattr", mount, self._empty, flags, self._w.block(block), len(block), label=label)
