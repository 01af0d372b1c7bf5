"""What `ps` shows of a few processes, read from /proc. A process that ends meanwhile is left out.

Standard library only; `cgroups` says which processes a container has.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PTY_MAJORS = range(136, 144)
_CONSOLE_MAJOR = 4


@dataclass(frozen=True)
class ProcessFacts:
    """`started_at`: seconds since the epoch; `cpu_seconds`: user and system; `terminal`: "?" for none."""

    pid: int
    parent_pid: int
    uid: int
    started_at: float
    cpu_seconds: float
    terminal: str
    command: str


def read_processes(pids: Iterable[int]) -> list[ProcessFacts]:
    """Return facts about these processes, by pid."""
    booted_at = _booted_at(Path("/proc/stat").read_text())
    found = (_read(pid, booted_at) for pid in sorted(pids))
    return [process for process in found if process is not None]


def _read(pid: int, booted_at: float) -> ProcessFacts | None:
    folder = Path(f"/proc/{pid}")
    try:
        stat = (folder / "stat").read_text(errors="replace")
        words = (folder / "cmdline").read_bytes().rstrip(b"\0")
        status = (folder / "status").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # Not the directory's owner: that is root while a process is not dumpable.
    uid = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("Uid:"))
    return parse_process(pid, uid, stat, words, booted_at)


def parse_process(pid: int, uid: int, stat: str, words: bytes, booted_at: float) -> ProcessFacts:
    """Return what a process's `stat` and `cmdline` say (proc(5)); one without arguments is named in brackets."""
    name, _, rest = stat.partition("(")[2].rpartition(")")
    fields = rest.split()
    command = words.replace(b"\0", b" ").decode(errors="replace") or f"[{name}]"
    return ProcessFacts(
        pid=pid,
        parent_pid=int(fields[1]),
        uid=uid,
        started_at=booted_at + int(fields[19]) / _TICKS,
        cpu_seconds=(int(fields[11]) + int(fields[12])) / _TICKS,
        terminal=_terminal(int(fields[4])),
        command=command,
    )


def _terminal(number: int) -> str:
    major, minor = os.major(number), os.minor(number)
    if major in _PTY_MAJORS:
        return f"pts/{(major - _PTY_MAJORS.start) * 256 + minor}"
    return f"tty{minor}" if major == _CONSOLE_MAJOR else "?"


def _booted_at(stat: str) -> float:
    return next(float(line.split()[1]) for line in stat.splitlines() if line.startswith("btime "))
