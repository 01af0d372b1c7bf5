"""A config.json for other runtimes that asks for what our containers get by default: namespaces, mounts, hidden paths,
docker's capabilities, a seccomp profile, limits."""

import json
import os
from pathlib import Path
from typing import Any

from pyswarm.agent_runtime.kernel.capabilities import effective

MEMORY_BYTES, PIDS, CPUS = 64 * 1024 * 1024, 64, 1
_PROFILE = Path("/usr/share/containers/seccomp.json")
"""Debian's package of the containers project's common files, which podman depends on."""
_NAMESPACES = ("pid", "network", "ipc", "uts", "mount", "cgroup")


def oci_config(layer: Path, cgroups_path: str, *, args: tuple[str, ...] = ("/bin/true",)) -> dict[str, Any]:
    """Return the config of a container whose root file system is `layer`, read-only."""
    names = sorted(effective((), ()))
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": list(args),
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), names),
            "noNewPrivileges": True,
        },
        "root": {"path": str(layer), "readonly": True},
        "hostname": "bench",
        "mounts": _MOUNTS,
        "linux": {
            "cgroupsPath": cgroups_path,
            "namespaces": [{"type": kind} for kind in _NAMESPACES],
            "resources": {
                "devices": [{"allow": False, "access": "rwm"}],
                "memory": {"limit": MEMORY_BYTES, "swap": MEMORY_BYTES},
                "cpu": {"quota": 100_000 * CPUS, "period": 100_000},
                "pids": {"limit": PIDS},
            },
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
            "seccomp": _seccomp(frozenset(names)),
        },
    }


def _mount(target: str, kind: str, *options: str) -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": kind, "options": ["nosuid", *options]}


_MOUNTS = [
    {"destination": "/proc", "type": "proc", "source": "proc"},
    _mount("/dev", "tmpfs", "strictatime", "mode=755", "size=65536k"),
    _mount("/dev/pts", "devpts", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"),
    _mount("/dev/shm", "tmpfs", "noexec", "nodev", "mode=1777", "size=65536k"),
    _mount("/dev/mqueue", "mqueue", "noexec", "nodev"),
    _mount("/sys", "sysfs", "noexec", "nodev", "ro"),
]


def _seccomp(capabilities: frozenset[str]) -> dict[str, Any]:
    """Return the default profile of podman in the form OCI runtimes take."""
    profile = json.loads(_PROFILE.read_text())
    machine = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}[os.uname().machine]
    family = next(entry for entry in profile["archMap"] if entry["architecture"] == machine)
    short = {"SCMP_ARCH_X86_64": "amd64", "SCMP_ARCH_AARCH64": "arm64"}[machine]

    def holds(conditions: dict[str, Any]) -> bool:
        architectures = conditions.get("arches", [short])
        return short in architectures and capabilities.issuperset(conditions.get("caps", []))

    def applies(entry: dict[str, Any]) -> bool:
        excludes = entry.get("excludes") or {}
        excluded = short in excludes.get("arches", []) or not capabilities.isdisjoint(excludes.get("caps", []))
        return holds(entry.get("includes") or {}) and not excluded

    kept = ("names", "action", "errnoRet", "args")
    syscalls_kept = [
        {key: entry[key] for key in kept if entry.get(key) not in (None, [])}
        for entry in profile["syscalls"]
        if applies(entry)
    ]
    return {
        "defaultAction": profile["defaultAction"],
        "defaultErrnoRet": profile.get("defaultErrnoRet", 1),
        "architectures": [machine, *family["subArchitectures"]],
        "syscalls": syscalls_kept,
    }
