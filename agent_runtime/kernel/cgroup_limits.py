"""What a container's limits mean as cgroup files, v1 and v2. Pure.

Values come from the model: CPUs in billionths, memory in bytes, number of processes; 0 means no limit. Memory and
swap share one limit: a container that may use 64 MiB may not use 64 MiB more on disk.
"""

from dataclasses import dataclass

PERIOD_MICROSECONDS = 100_000
_QUOTA_MINIMUM_MICROSECONDS = 1_000
DEFAULT_PIDS = 4096
"""Processes of a container that asks for no limit: enough for a database, too few for a fork bomb to hurt."""


@dataclass(frozen=True)
class Limits:
    nano_cpus: int = 0
    memory_bytes: int = 0
    pids: int = 0

    @property
    def quota_microseconds(self) -> int:
        """CPU time per period; the kernel refuses less than a millisecond."""
        return max(_QUOTA_MINIMUM_MICROSECONDS, self.nano_cpus * PERIOD_MICROSECONDS // 1_000_000_000)


@dataclass(frozen=True)
class Setting:
    """Write `value` to `file` of the container's cgroup in the hierarchy of `controller`."""

    controller: str
    file: str
    value: str
    optional: bool = False


DEVICES_ALLOWED = (
    "c *:* m", "b *:* m",  # making a node is harmless, opening it is not
    "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm",  # null zero full random urandom
    "c 5:0 rwm", "c 5:1 rwm", "c 5:2 rwm", "c 136:* rwm",  # tty console ptmx pts
)  # fmt: skip


def v1_settings(limits: Limits) -> list[Setting]:
    settings = [Setting("pids", "pids.max", str(limits.pids or DEFAULT_PIDS))]
    if limits.memory_bytes:
        settings.append(Setting("memory", "memory.limit_in_bytes", str(limits.memory_bytes)))
        # Missing when the kernel does not account swap. Never below the limit, so written after it.
        settings.append(Setting("memory", "memory.memsw.limit_in_bytes", str(limits.memory_bytes), optional=True))
    if limits.nano_cpus:
        settings.append(Setting("cpu", "cpu.cfs_period_us", str(PERIOD_MICROSECONDS)))
        settings.append(Setting("cpu", "cpu.cfs_quota_us", str(limits.quota_microseconds)))
    settings.append(Setting("devices", "devices.deny", "a"))
    settings.extend(Setting("devices", "devices.allow", rule) for rule in DEVICES_ALLOWED)
    return settings


def v2_settings(limits: Limits) -> list[Setting]:
    """Device rules are not files in v2 but an eBPF program, which is not attached here."""
    settings = [Setting("pids", "pids.max", str(limits.pids or DEFAULT_PIDS))]
    if limits.memory_bytes:
        settings.append(Setting("memory", "memory.max", str(limits.memory_bytes)))
        settings.append(Setting("memory", "memory.swap.max", "0", optional=True))
    if limits.nano_cpus:
        settings.append(Setting("cpu", "cpu.max", f"{limits.quota_microseconds} {PERIOD_MICROSECONDS}"))
    return settings


def v1_changes(old: Limits, new: Limits) -> list[Setting]:
    """Return what to write for a container whose limits change. Memory alone may never exceed memory and swap."""
    changes = []
    if new.pids != old.pids:
        changes.append(Setting("pids", "pids.max", str(new.pids or DEFAULT_PIDS)))
    if new.memory_bytes != old.memory_bytes:
        value = str(new.memory_bytes or -1)
        memory = Setting("memory", "memory.limit_in_bytes", value)
        with_swap = Setting("memory", "memory.memsw.limit_in_bytes", value, optional=True)
        shrinks = bool(new.memory_bytes) and (not old.memory_bytes or new.memory_bytes < old.memory_bytes)
        changes += [memory, with_swap] if shrinks else [with_swap, memory]
    if new.nano_cpus != old.nano_cpus:
        changes.append(Setting("cpu", "cpu.cfs_period_us", str(PERIOD_MICROSECONDS)))
        changes.append(Setting("cpu", "cpu.cfs_quota_us", str(new.quota_microseconds if new.nano_cpus else -1)))
    return changes


def v2_changes(old: Limits, new: Limits) -> list[Setting]:
    """Return what to write for a container whose limits change."""
    changes = []
    if new.pids != old.pids:
        changes.append(Setting("pids", "pids.max", str(new.pids or DEFAULT_PIDS)))
    if new.memory_bytes != old.memory_bytes:
        changes.append(Setting("memory", "memory.max", str(new.memory_bytes or "max")))
        changes.append(Setting("memory", "memory.swap.max", "0" if new.memory_bytes else "max", optional=True))
    if new.nano_cpus != old.nano_cpus:
        quota = str(new.quota_microseconds) if new.nano_cpus else "max"
        changes.append(Setting("cpu", "cpu.max", f"{quota} {PERIOD_MICROSECONDS}"))
    return changes


def counter(text: str, name: str) -> int:
    """Return the value of `name` in a flat keyed file such as memory.events or memory.oom_control; 0 if absent."""
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0
