"""What the options of a mount mean: attributes, propagation, binding, and what is left for the file system. Pure.

The names are those of the OCI specification's table, which are mount(8)'s; an `r` in front applies an attribute or a
propagation to every mount below as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pyswarm.agent_runtime.kernel import numbers as n

_SET = {
    "ro": n.MOUNT_ATTR_RDONLY, "nosuid": n.MOUNT_ATTR_NOSUID, "nodev": n.MOUNT_ATTR_NODEV,
    "noexec": n.MOUNT_ATTR_NOEXEC, "noatime": n.MOUNT_ATTR_NOATIME, "strictatime": n.MOUNT_ATTR_STRICTATIME,
    "nodiratime": n.MOUNT_ATTR_NODIRATIME, "nosymfollow": n.MOUNT_ATTR_NOSYMFOLLOW, "relatime": 0,
}  # fmt: skip
_CLEAR = {
    "rw": n.MOUNT_ATTR_RDONLY, "suid": n.MOUNT_ATTR_NOSUID, "dev": n.MOUNT_ATTR_NODEV, "exec": n.MOUNT_ATTR_NOEXEC,
    "diratime": n.MOUNT_ATTR_NODIRATIME, "symfollow": n.MOUNT_ATTR_NOSYMFOLLOW, "atime": n.MOUNT_ATTR_ATIME,
    "norelatime": n.MOUNT_ATTR_ATIME, "nostrictatime": n.MOUNT_ATTR_ATIME,
}  # fmt: skip
_ATIMES = frozenset({"noatime", "strictatime", "relatime"})
_PROPAGATION = {
    "shared": n.MS_SHARED, "slave": n.MS_SLAVE, "private": n.MS_PRIVATE, "unbindable": n.MS_UNBINDABLE,
}  # fmt: skip
_OURS = frozenset({"bind", "rbind", "remount", "tmpcopyup", "idmap", "ridmap", "defaults"})


@dataclass(frozen=True)
class Attributes:
    """Mount attributes to set and to clear (`MOUNT_ATTR_*`)."""

    set: int = 0
    clear: int = 0

    def __bool__(self) -> bool:
        return bool(self.set or self.clear)


@dataclass(frozen=True)
class Propagation:
    flag: int
    recursive: bool


@dataclass(frozen=True)
class MountOptions:
    """`data` is for the file system; `recursive` attributes hold for mounts below as well."""

    attributes: Attributes
    recursive: Attributes
    propagation: Propagation | None
    own: frozenset[str]
    data: tuple[str, ...]

    @property
    def copies_up(self) -> bool:
        """Whether a tmpfs shall begin with what the rootfs has at its place."""
        return "tmpcopyup" in self.own

    @property
    def binds(self) -> bool:
        return bool(self.own & {"bind", "rbind"})


def parse(options: Sequence[str]) -> MountOptions:
    """Sort out the options of one mount; the later of two that contradict each other wins."""
    plain, recursive = Attributes(), Attributes()
    propagation: Propagation | None = None
    own, data = set(), []
    for option in options:
        without_r = option[1:]
        if option in _SET or option in _CLEAR:
            plain = _with(plain, option)
        elif option in _PROPAGATION:
            propagation = Propagation(_PROPAGATION[option], recursive=False)
        elif option in _OURS:
            own.add(option)
        elif option.startswith("r") and (without_r in _SET or without_r in _CLEAR):
            recursive = _with(recursive, without_r)
        elif option.startswith("r") and without_r in _PROPAGATION:
            propagation = Propagation(_PROPAGATION[without_r], recursive=True)
        else:
            data.append(option)
    return MountOptions(plain, recursive, propagation, frozenset(own), tuple(data))


def known() -> set[str]:
    """Return every option that is not the file system's."""
    recursive = {f"r{name}" for name in (*_SET, *_CLEAR, *_PROPAGATION)}
    return {*_SET, *_CLEAR, *_PROPAGATION, *_OURS, *recursive}


def propagation_named(name: str) -> Propagation:
    """Return what `shared`, `rslave` and the like stand for; raises KeyError."""
    if name in _PROPAGATION:
        return Propagation(_PROPAGATION[name], recursive=False)
    return Propagation(_PROPAGATION[name.removeprefix("r")], recursive=True)


def _with(attributes: Attributes, option: str) -> Attributes:
    if option in _ATIMES:
        # The three exclude each other: whichever was set must be cleared.
        kept = attributes.set & ~n.MOUNT_ATTR_ATIME
        return Attributes(kept | _SET[option], attributes.clear | n.MOUNT_ATTR_ATIME)
    if option in _SET:
        return Attributes(attributes.set | _SET[option], attributes.clear & ~_SET[option])
    bit = _CLEAR[option]
    return Attributes(attributes.set & ~bit, attributes.clear | bit)
