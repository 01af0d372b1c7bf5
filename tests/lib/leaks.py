"""What a test run may leave behind on the machine, and what it did leave.

A census of processes, mounts, cgroups, network namespaces and links, nft tables, sockets and loop devices,
taken before and after: whatever is new afterwards is a leak.
"""

import os
import subprocess
from pathlib import Path

OURS = ("pyswarm", "docker-registry", "lab/init.py")
"""Words in a command line that make a process one of the product's or its tests'."""


def census() -> dict[str, frozenset[str]]:
    """Return what there is on the machine now, by kind."""
    return {
        "process": frozenset(_processes()),
        "mount": frozenset(line.split()[4] for line in _lines("/proc/self/mountinfo")),
        "cgroup": frozenset(_cgroups()),
        "network namespace": frozenset(_network_namespaces()),
        "link": frozenset(path.name for path in Path("/sys/class/net").iterdir()),
        "nft table": frozenset(_output("nft", "list", "tables")),
        "socket": frozenset(line.split()[-1] for line in _lines("/proc/net/unix") if "pyswarm" in line),
        "loop device": frozenset(_output("losetup", "--noheadings", "--output", "NAME,BACK-FILE")),
    }


def leaks(before: dict[str, frozenset[str]], after: dict[str, frozenset[str]]) -> list[str]:
    """Return a line for each thing that is there after and was not before."""
    return [f"{kind}: {thing}" for kind in before for thing in sorted(after[kind] - before[kind])]


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def _processes() -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        if int(folder.name) in _ancestors():
            continue
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            state = (folder / "stat").read_text().rsplit(")", 1)[1].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state != "Z" and any(word in command for word in OURS):
            found.append(f"{folder.name} {command[:160]}")
    return found


def _ancestors() -> set[int]:
    """The test runner and what started it: their command lines may name the product too."""
    pids, pid = set(), os.getpid()
    while pid > 1:
        pids.add(pid)
        pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    return pids


def _cgroups() -> list[str]:
    roots = [line.split()[4] for line in _lines("/proc/self/mountinfo") if line.split(" - ")[1].startswith("cgroup")]
    return [str(path) for root in roots for path in Path(root).glob("pyswarm*")]


def _network_namespaces() -> set[str]:
    found = set()
    for link in Path("/proc").glob("[0-9]*/ns/net"):
        try:
            found.add(os.readlink(link))
        except OSError:
            continue  # the process is gone or a kernel thread
    return found


def _output(*command: str) -> list[str]:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
