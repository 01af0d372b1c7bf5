"""What a container has used so far: CPU, memory, processes, block I/O, and how long it had to wait (PSI).

Reads the files of whichever cgroup version has each controller; the parsers are pure. A file that is missing, because
the kernel has no such thing or the container has just gone, counts as zero or None. Rates are the reader's business.
"""

import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pyswarm.agent_runtime.kernel.cgroup_limits import counter
from pyswarm.agent_runtime.kernel.cgroups import Cgroups

_MISSING = (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP, errno.ESRCH)
_TICK_NANOSECONDS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_UNLIMITED = 1 << 62
"""v1 tells "no limit" as a number of about 2^63."""


@dataclass(frozen=True)
class Pressure:
    """Per cent of the last 10, 60, 300 seconds in which some, or all, processes waited; total in microseconds."""

    some: tuple[float, float, float] = (0.0, 0.0, 0.0)
    some_total: int = 0
    full: tuple[float, float, float] = (0.0, 0.0, 0.0)
    full_total: int = 0


@dataclass(frozen=True)
class Usage:
    """Times in nanoseconds, sizes in bytes; a limit of 0 is none. `memory` counts what nobody used lately, `inactive`,
    too."""

    cpu: int
    cpu_user: int
    cpu_system: int
    throttled_periods: int
    throttled: int
    memory: int
    memory_inactive: int
    memory_limit: int
    pids: int
    pids_limit: int
    read: int
    written: int
    pressure: dict[str, Pressure]
    """By resource: cpu, memory, io; those that this kernel tells."""


def read_usage(cgroups: Cgroups, name: str) -> Usage:
    """Return what the container `name` has used. Raises OSError."""
    v1 = {kind: top / cgroups.parent / name for kind, top in cgroups.layout.v1.items()}
    v2 = (cgroups.layout.unified or Path("/nonexistent")) / cgroups.parent / name
    cpu = _cpu_v1(v1) if "cpu" in v1 else _cpu_v2(_text(v2 / "cpu.stat"))
    memory = _memory_v1(v1["memory"]) if "memory" in v1 else _memory_v2(v2)
    pids = v1.get("pids", v2)
    return Usage(
        *cpu,
        *memory,
        pids=_number(_text(pids / "pids.current")),
        pids_limit=_number(_text(pids / "pids.max")),
        **_block_io(cgroups, name, _text(v2 / "io.stat")),
        pressure={
            kind: parse_pressure(text) for kind in ("cpu", "memory", "io") if (text := _text(v2 / f"{kind}.pressure"))
        },
    )


def _cpu_v1(folders: dict[str, Path]) -> tuple[int, int, int, int, int]:
    accounting = folders.get("cpuacct", folders["cpu"])
    stat, throttling = _text(accounting / "cpuacct.stat"), _text(folders["cpu"] / "cpu.stat")
    return (
        _number(_text(accounting / "cpuacct.usage")),
        counter(stat, "user") * _TICK_NANOSECONDS,
        counter(stat, "system") * _TICK_NANOSECONDS,
        counter(throttling, "nr_throttled"),
        counter(throttling, "throttled_time"),
    )


def _cpu_v2(stat: str) -> tuple[int, int, int, int, int]:
    return (
        counter(stat, "usage_usec") * 1000,
        counter(stat, "user_usec") * 1000,
        counter(stat, "system_usec") * 1000,
        counter(stat, "nr_throttled"),
        counter(stat, "throttled_usec") * 1000,
    )


def _memory_v1(folder: Path) -> tuple[int, int, int]:
    limit = _number(_text(folder / "memory.limit_in_bytes"))
    return (
        _number(_text(folder / "memory.usage_in_bytes")),
        counter(_text(folder / "memory.stat"), "total_inactive_file"),
        limit if limit < _UNLIMITED else 0,
    )


def _memory_v2(folder: Path) -> tuple[int, int, int]:
    return (
        _number(_text(folder / "memory.current")),
        counter(_text(folder / "memory.stat"), "inactive_file"),
        _number(_text(folder / "memory.max")),
    )


def _block_io(cgroups: Cgroups, name: str, io_stat: str) -> dict[str, int]:
    if io_stat:
        read, written = parse_io_stat(io_stat)
    else:
        # Without a controller: a process counts for itself and the children it has waited for.
        texts = [_text(Path(f"/proc/{pid}/io")) for pid in cgroups.processes(name)]
        read = sum(counter(text, "read_bytes:") for text in texts)
        written = sum(counter(text, "write_bytes:") for text in texts)
    return {"read": read, "written": written}


def parse_io_stat(text: str) -> tuple[int, int]:
    """Return bytes (read, written) of all devices in a v2 `io.stat`."""
    sums = {"rbytes": 0, "wbytes": 0}
    for line in text.splitlines():
        for word in line.split()[1:]:
            key, _, value = word.partition("=")
            if key in sums:
                sums[key] += int(value)
    return sums["rbytes"], sums["wbytes"]


def parse_pressure(text: str) -> Pressure:
    """Return what a pressure file tells; older kernels have no `full` line for the CPU."""
    lines: dict[str, tuple[tuple[float, float, float], int]] = {}
    for line in text.splitlines():
        kind, *words = line.split()
        values = dict(word.split("=", 1) for word in words)
        averages = (float(values["avg10"]), float(values["avg60"]), float(values["avg300"]))
        lines[kind] = averages, int(values["total"])
    nothing = (0.0, 0.0, 0.0), 0
    return Pressure(*lines.get("some", nothing), *lines.get("full", nothing))


def parse_net_dev(lines: Iterable[str]) -> tuple[int, int]:
    """Return bytes (received, sent) over all interfaces but loopback in a /proc/PID/net/dev."""
    received = sent = 0
    for line in lines:
        interface, colon, counters = line.partition(":")
        if colon and interface.strip() != "lo":
            fields = counters.split()
            received += int(fields[0])
            sent += int(fields[8])
    return received, sent


def read_network(pid: int) -> tuple[int, int]:
    """Return bytes (received, sent) in the network namespace of a process; nothing for one that is gone."""
    return parse_net_dev(_text(Path(f"/proc/{pid}/net/dev")).splitlines())


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        if error.errno in _MISSING:
            return ""
        raise


def _number(text: str) -> int:
    stripped = text.strip()
    return int(stripped) if stripped.isdecimal() else 0
