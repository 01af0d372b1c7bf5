"""`container stats` and `container top`: what was used between two readings, and processes, as rows (pure)."""

import time
from collections.abc import Mapping, Sequence

from pyswarm.manager.cli.view.human import binary_size, size
from pyswarm.manager.cli.view.table import Row, column
from pyswarm.proto.v1 import runtime_pb2 as pb

STATS_COLUMNS = (
    column("CONTAINER ID", "ID"),
    column("NAME", "Name"),
    column("CPU %", "CPUPerc"),
    column("MEM USAGE / LIMIT", "MemUsage"),
    column("MEM %", "MemPerc"),
    column("NET I/O", "NetIO"),
    column("BLOCK I/O", "BlockIO"),
    column("PIDS", "PIDs"),
)
PRESSURE_COLUMNS = (
    column("CPU PSI", "CPUPressure"),
    column("MEM PSI", "MemPressure"),
    column("IO PSI", "IOPressure"),
)
TOP_COLUMNS = (
    column("UID", "UID"),
    column("PID", "PID"),
    column("PPID", "PPID"),
    column("C", "C"),
    column("STIME", "STime"),
    column("TTY", "TTY"),
    column("TIME", "Time"),
    column("CMD", "Command"),
)
_DAY = 86400.0


def stats_rows(
    before: Sequence[pb.ContainerStats], after: Sequence[pb.ContainerStats], *, no_trunc: bool = False
) -> list[Row]:
    """Return a row for each container in `after`, in its order; one that `before` lacks has no rate yet."""
    earlier = {one.id: one for one in before}
    return [_stats_row(earlier.get(one.id), one, no_trunc) for one in after]


def cpu_percent(before: pb.ContainerStats | None, after: pb.ContainerStats) -> float:
    """Return the share of one processor, in per cent; 250 for two and a half processors."""
    if before is None or after.read_at <= before.read_at or after.cpu_ns < before.cpu_ns:
        return 0.0
    return 100.0 * (after.cpu_ns - before.cpu_ns) / 1e9 / (after.read_at - before.read_at)


def _stats_row(before: pb.ContainerStats | None, after: pb.ContainerStats, no_trunc: bool) -> Row:
    memory = 100.0 * after.memory_bytes / after.memory_limit_bytes if after.memory_limit_bytes else 0.0
    return {
        "ID": after.id if no_trunc else after.id[:12],
        "Container": after.id,
        "Name": after.id,
        "CPUPerc": f"{cpu_percent(before, after):.2f}%",
        "MemUsage": f"{binary_size(after.memory_bytes)} / {binary_size(after.memory_limit_bytes)}",
        "MemPerc": f"{memory:.2f}%",
        "NetIO": f"{size(after.net_received_bytes)} / {size(after.net_sent_bytes)}",
        "BlockIO": f"{size(after.block_read_bytes)} / {size(after.block_written_bytes)}",
        "PIDs": after.pids,
        "CPUPressure": _pressure(after, "cpu_pressure"),
        "MemPressure": _pressure(after, "memory_pressure"),
        "IOPressure": _pressure(after, "io_pressure"),
    }


def _pressure(stats: pb.ContainerStats, field: str) -> str:
    """Return how much of the last ten seconds some, and all, processes waited; `--` where the kernel does not tell."""
    if not stats.HasField(field):  # type: ignore[arg-type]
        return "--"
    pressure: pb.Pressure = getattr(stats, field)
    return f"{pressure.some_avg10:.2f}% / {pressure.full_avg10:.2f}%"


def top_rows(processes: Sequence[pb.ProcessRow], names: Mapping[int, str], *, now: float) -> list[Row]:
    """Return what `ps -ef` would show. `names` are those of this machine's users."""
    return [
        {
            "UID": names.get(one.uid, str(one.uid)),
            "PID": one.pid,
            "PPID": one.parent_pid,
            "C": int(100 * one.cpu_seconds / max(1.0, now - one.started_at)),
            "STime": time.strftime("%H:%M" if now - one.started_at < _DAY else "%b%d", time.localtime(one.started_at)),
            "TTY": one.terminal,
            "Time": _clock_time(int(one.cpu_seconds)),
            "Command": one.command,
        }
        for one in processes
    ]


def _clock_time(seconds: int) -> str:
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
