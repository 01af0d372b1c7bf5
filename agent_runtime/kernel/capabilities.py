"""Capabilities: their numbers, Docker's default set, and what `cap_add`/`cap_drop` make of it. Pure."""

from collections.abc import Sequence

from pyswarm.proto.errors import InvalidArgument

NAMES: tuple[str, ...] = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
)  # fmt: skip
"""Every capability; its place is its number."""

NUMBERS = {name: number for number, name in enumerate(NAMES)}

DEFAULT: frozenset[str] = frozenset(
    {
        "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
        "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL",
        "CAP_AUDIT_WRITE",
    }
)  # fmt: skip
"""What Docker gives a container that asks for nothing."""


def effective(add: Sequence[str], drop: Sequence[str]) -> frozenset[str]:
    """Return the set a container gets. `ALL` stands for every capability; names may lack `CAP_` and be lower case.

    A capability both added and dropped is dropped, except that naming one beats `ALL`. Raises InvalidArgument.
    """
    added, dropped = {_normal(name) for name in add}, {_normal(name) for name in drop}
    chosen = set(NAMES) if "ALL" in added else set() if "ALL" in dropped else set(DEFAULT)
    return frozenset((chosen | (added - {"ALL"})) - (dropped - {"ALL"}))


def mask(names: frozenset[str] | set[str]) -> int:
    """Return the set as the kernel's bit mask."""
    return sum(1 << NUMBERS[name] for name in names)


def from_mask(bits: int) -> frozenset[str]:
    return frozenset(name for name, number in NUMBERS.items() if bits >> number & 1)


def _normal(name: str) -> str:
    upper = name.upper()
    if upper == "ALL":
        return upper
    full = upper if upper.startswith("CAP_") else f"CAP_{upper}"
    if full not in NUMBERS:
        raise InvalidArgument(
            f"there is no capability {name!r}", remedy="`man 7 capabilities` lists them, such as NET_ADMIN."
        )
    return full
