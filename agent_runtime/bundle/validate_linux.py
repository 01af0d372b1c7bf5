"""Say no to a `linux` object that could never become a container, naming the field. Pure; see `validate.py`."""

import re

from pyswarm.agent_runtime.bundle.machine_facts import (
    DEVICE_TYPES,
    NAMESPACES,
    PERSONALITIES,
    SECCOMP_ACTIONS,
    SECCOMP_OPERATORS,
)
from pyswarm.agent_runtime.bundle.mount_options import propagation_named
from pyswarm.agent_runtime.bundle.runtime_spec import Spec
from pyswarm.agent_runtime.bundle.spec_linux import IdMapping, Linux, Resources, Seccomp
from pyswarm.agent_runtime.bundle.validate import LARGEST_ID, absolute, number, one_of, reject, text
from pyswarm.agent_runtime.kernel.numbers import SECCOMP_FILTER_FLAGS

_U64, _I64, _U32 = 2**64 - 1, 2**63 - 1, 2**32 - 1
_SYSCTL = re.compile(r"[a-z0-9_]+([./][A-Za-z0-9_-]+)+")
_IPC_SYSCTLS = frozenset({
    "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax",
    "kernel.shmmni", "kernel.shm_rmid_forced",
})  # fmt: skip
_MOST_MAPPINGS = 340
_MOST_INSTRUCTIONS_NAMES = 4096


def validate_linux(spec: Spec) -> None:
    """Raise InvalidConfig for the first thing that is wrong in `linux`."""
    linux = spec.linux
    _namespaces(linux)
    _devices(linux)
    kinds = {namespace.type for namespace in linux.namespaces}
    for key, value in linux.sysctl.items():
        _sysctl(key, value, kinds)
    for name, paths in (("maskedPaths", linux.masked_paths), ("readonlyPaths", linux.readonly_paths)):
        for index, path in enumerate(paths):
            absolute(f"linux.{name}[{index}]", path)
    text("linux.cgroupsPath", linux.cgroups_path)
    if ".." in linux.cgroups_path.split("/"):
        reject("linux.cgroupsPath", "leads out of the hierarchy")
    if linux.rootfs_propagation:
        try:
            propagation_named(linux.rootfs_propagation)
        except KeyError:
            reject("linux.rootfsPropagation", f"{linux.rootfs_propagation!r} is no propagation")
    if linux.intel_rdt:
        reject("linux.intelRdt", "is not supported: this runtime does not manage caches")
    if linux.personality is not None:
        one_of("linux.personality.domain", linux.personality.domain, PERSONALITIES)
        if linux.personality.flags:
            reject("linux.personality.flags", "the specification has none")
    if linux.mount_label:
        reject("linux.mountLabel", "is not supported: leave it out")
    validate_resources(linux.resources)
    if linux.seccomp is not None:
        _seccomp(linux.seccomp)


def _namespaces(linux: Linux) -> None:
    by_type: dict[str, str] = {}
    for index, namespace in enumerate(linux.namespaces):
        field = f"linux.namespaces[{index}]"
        one_of(f"{field}.type", namespace.type, NAMESPACES)
        if namespace.type in by_type:
            reject(f"{field}.type", f"a second {namespace.type} namespace")
        by_type[namespace.type] = namespace.path
        if namespace.path:
            absolute(f"{field}.path", namespace.path)
    if by_type.get("mount", "joined"):
        reject("linux.namespaces", "a container needs a mount namespace of its own")
    if by_type.get("user") and by_type.get("pid") == "":
        reject("linux.namespaces", "a new pid namespace cannot be made in a user namespace that is joined")
    for name, mappings in (("uidMappings", linux.uid_mappings), ("gidMappings", linux.gid_mappings)):
        validate_mappings(f"linux.{name}", mappings)
        if mappings and "user" not in by_type:
            reject(f"linux.{name}", "there is no user namespace")
        if by_type.get("user") == "" and not mappings:
            reject(f"linux.{name}", "is missing, and a user namespace is wanted")
    for clock, offset in linux.time_offsets.items():
        field = f"linux.timeOffsets.{clock}"
        one_of(field, clock, ("monotonic", "boottime"))
        number(f"{field}.secs", offset.secs, -_I64, _I64)
        number(f"{field}.nanosecs", offset.nanosecs, 0, 999_999_999)
        if by_type.get("time", "joined"):
            reject(field, "there is no time namespace of the container's own")


def validate_mappings(field: str, mappings: tuple[IdMapping, ...]) -> None:
    if len(mappings) > _MOST_MAPPINGS:
        reject(field, f"more than {_MOST_MAPPINGS} lines")
    for index, mapping in enumerate(mappings):
        number(f"{field}[{index}].containerID", mapping.container_id, 0, LARGEST_ID)
        number(f"{field}[{index}].hostID", mapping.host_id, 0, LARGEST_ID)
        number(f"{field}[{index}].size", mapping.size, 1, _U32)


def _devices(linux: Linux) -> None:
    seen: set[str] = set()
    for index, device in enumerate(linux.devices):
        field = f"linux.devices[{index}]"
        absolute(f"{field}.path", device.path)
        if device.path in seen or device.path.endswith("/"):
            reject(f"{field}.path", f"{device.path} is given twice, or is a directory")
        seen.add(device.path)
        one_of(f"{field}.type", device.type, DEVICE_TYPES)
        number(f"{field}.major", device.major, 0, 4095)
        number(f"{field}.minor", device.minor, 0, 1048575)
        number(f"{field}.fileMode", device.file_mode, 0, 0o177777)
        number(f"{field}.uid", device.uid, 0, LARGEST_ID)
        number(f"{field}.gid", device.gid, 0, LARGEST_ID)


def _sysctl(key: str, value: str, kinds: set[str]) -> None:
    """Only what belongs to a namespace of the container may be set: all else is the whole machine's."""
    field, dotted = f"linux.sysctl.{key}", key.replace("/", ".")
    text(field, value)
    if not _SYSCTL.fullmatch(key):
        reject(field, "is no name of a sysctl")
    if dotted in _IPC_SYSCTLS or dotted.startswith("fs.mqueue."):
        needed = "ipc"
    elif dotted.startswith("net."):
        needed = "network"
    elif dotted in ("kernel.hostname", "kernel.domainname"):
        needed = "uts"
    else:
        reject(field, "does not belong to a namespace: it would change the whole machine")
    if needed not in kinds:
        reject(field, f"needs a {needed} namespace of the container's own")


def validate_resources(resources: Resources, *, at: str = "linux.resources") -> None:
    """Raise InvalidConfig for limits that no cgroup takes."""
    for index, rule in enumerate(resources.devices):
        field = f"{at}.devices[{index}]"
        one_of(f"{field}.type", rule.type, ("a", "b", "c"))
        number(f"{field}.major", rule.major, -1, 4095)
        number(f"{field}.minor", rule.minor, -1, 1048575)
        if set(rule.access) - set("rwm"):
            reject(f"{field}.access", f"{rule.access!r} is not made of r, w and m")
    memory, cpu = resources.memory, resources.cpu
    for name in ("limit", "swap", "reservation", "kernel", "kernel_tcp"):
        number(f"{at}.memory.{name}", getattr(memory, name), -1, _I64)
    if memory.limit > 0 and 0 < memory.swap < memory.limit:
        reject(f"{at}.memory.swap", "is memory and swap together: it cannot be less than the limit of memory")
    if memory.swappiness is not None:
        number(f"{at}.memory.swappiness", memory.swappiness, 0, 200)
    number(f"{at}.cpu.shares", cpu.shares, 0, _U64)
    number(f"{at}.cpu.quota", cpu.quota, -1, _I64)
    number(f"{at}.cpu.period", cpu.period, 0, _U64)
    for name in ("cpus", "mems"):
        value = getattr(cpu, name)
        if value and not re.fullmatch(r"[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*", value):
            reject(f"{at}.cpu.{name}", f"{value!r} is no list such as 0-3,5")
    if resources.pids is not None:
        number(f"{at}.pids.limit", resources.pids.limit, -1, _I64)
    if resources.block_io.weight:
        number(f"{at}.blockIO.weight", resources.block_io.weight, 10, 1000)
    for key, value in resources.unified.items():
        text(f"{at}.unified.{key}", value)
        if not re.fullmatch(r"[a-z0-9]+\.[A-Za-z0-9_.]+", key):
            reject(f"{at}.unified.{key}", "is no name of a cgroup file")


def _seccomp(seccomp: Seccomp) -> None:
    one_of("linux.seccomp.defaultAction", seccomp.default_action, SECCOMP_ACTIONS)
    for index, flag in enumerate(seccomp.flags):
        one_of(f"linux.seccomp.flags[{index}]", flag, SECCOMP_FILTER_FLAGS)
    for index, name in enumerate(seccomp.architectures):
        if not re.fullmatch(r"SCMP_ARCH_[A-Z0-9_]+", name):
            reject(f"linux.seccomp.architectures[{index}]", f"{name!r} is no architecture")
    if seccomp.listener_path:
        absolute("linux.seccomp.listenerPath", seccomp.listener_path)
    if seccomp.default_errno_ret is not None:
        number("linux.seccomp.defaultErrnoRet", seccomp.default_errno_ret, 0, 4095)
    for index, rule in enumerate(seccomp.syscalls):
        field = f"linux.seccomp.syscalls[{index}]"
        if not rule.names or len(rule.names) > _MOST_INSTRUCTIONS_NAMES:
            reject(f"{field}.names", "is empty or too long")
        for at, name in enumerate(rule.names):
            text(f"{field}.names[{at}]", name, empty=False)
        one_of(f"{field}.action", rule.action, SECCOMP_ACTIONS)
        if rule.errno_ret is not None:
            number(f"{field}.errnoRet", rule.errno_ret, 0, 4095)
        for at, argument in enumerate(rule.args):
            number(f"{field}.args[{at}].index", argument.index, 0, 5)
            one_of(f"{field}.args[{at}].op", argument.op, SECCOMP_OPERATORS)
            number(f"{field}.args[{at}].value", argument.value, 0, _U64)
            number(f"{field}.args[{at}].valueTwo", argument.value_two, 0, _U64)
