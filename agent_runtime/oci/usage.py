"""What a container uses, in the shape of runc's `events --stats`, from v1 or v2 files.

A file that this kernel does not have counts as 0.
"""

import errno
from pathlib import Path
from typing import Any

from pyswarm.agent_runtime.kernel.cgroup_limits import counter
from pyswarm.agent_runtime.oci.cgroup import ContainerCgroup


def usage(cgroup: ContainerCgroup) -> dict[str, Any]:
    layout = cgroup.cgroups.layout
    v2 = layout.unified / cgroup.path if layout.unified else None

    def folder(controller: str) -> Path | None:
        top = layout.v1.get(controller)
        return top / cgroup.path if top else v2

    return {
        "cpu": _cpu_v1(layout.v1["cpuacct"] / cgroup.path, folder("cpu")) if "cpuacct" in layout.v1 else _cpu_v2(v2),
        "memory": _memory_v1(layout.v1["memory"] / cgroup.path) if "memory" in layout.v1 else _memory_v2(v2),
        "pids": {"current": _number(folder("pids"), "pids.current"), "limit": _number(folder("pids"), "pids.max")},
    }


def _cpu_v1(accounting: Path, cpu: Path | None) -> dict[str, Any]:
    stat = _text(accounting, "cpuacct.stat")
    per_cpu = [int(word) for word in _text(accounting, "cpuacct.usage_percpu").split()]
    ticks = 10_000_000
    return {
        "usage": {
            "total": _number(accounting, "cpuacct.usage"), "percpu": per_cpu,
            "kernel": counter(stat, "system") * ticks, "user": counter(stat, "user") * ticks,
        },
        "throttling": _throttling(_text(cpu, "cpu.stat"), "throttled_time", 1),
    }  # fmt: skip


def _cpu_v2(folder: Path | None) -> dict[str, Any]:
    stat = _text(folder, "cpu.stat")
    names = {"total": "usage_usec", "kernel": "system_usec", "user": "user_usec"}
    return {
        "usage": {name: counter(stat, key) * 1000 for name, key in names.items()},
        "throttling": _throttling(stat, "throttled_usec", 1000),
    }


def _throttling(stat: str, time_key: str, factor: int) -> dict[str, int]:
    return {
        "periods": counter(stat, "nr_periods"), "throttledPeriods": counter(stat, "nr_throttled"),
        "throttledTime": counter(stat, time_key) * factor,
    }  # fmt: skip


def _memory_v1(folder: Path) -> dict[str, Any]:
    def entry(prefix: str) -> dict[str, int]:
        return {
            "usage": _number(folder, f"{prefix}.usage_in_bytes"),
            "max": _number(folder, f"{prefix}.max_usage_in_bytes"),
            "failcnt": _number(folder, f"{prefix}.failcnt"),
            "limit": _number(folder, f"{prefix}.limit_in_bytes"),
        }

    raw = _raw(_text(folder, "memory.stat"))
    return {
        "cache": raw.get("total_cache", 0), "usage": entry("memory"), "swap": entry("memory.memsw"),
        "kernel": entry("memory.kmem"), "raw": raw,
    }  # fmt: skip


def _memory_v2(folder: Path | None) -> dict[str, Any]:
    raw = _raw(_text(folder, "memory.stat"))
    swap = {"usage": _number(folder, "memory.swap.current"), "limit": _number(folder, "memory.swap.max")}
    used = {
        "usage": _number(folder, "memory.current"), "limit": _number(folder, "memory.max"),
        "max": _number(folder, "memory.peak"), "failcnt": counter(_text(folder, "memory.events"), "max"),
    }  # fmt: skip
    return {"cache": raw.get("file", 0), "usage": used, "swap": swap, "raw": raw}


def _raw(text: str) -> dict[str, int]:
    return {name: int(value) for name, _, value in (line.partition(" ") for line in text.splitlines())}


def _text(folder: Path | None, name: str) -> str:
    try:
        return (folder / name).read_text() if folder else ""
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
            return ""
        raise


def _number(folder: Path | None, name: str) -> int:
    """Return a file's number; 0 stands for "max" too, as in runc."""
    text = _text(folder, name).strip()
    return int(text) if text.isdecimal() else 0
