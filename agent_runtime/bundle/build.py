"""What a container shall be: its ContainerConfig and its image's config become an OCI runtime spec. Pure.

Says no to everything that could never work, before anything is made. The user is resolved later, when the rootfs can
be read (`users.py`); descriptors, cgroups and mounts are made by `container/prepare.py`.
"""

import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from pyswarm.agent_runtime.bundle import defaults
from pyswarm.agent_runtime.bundle.runtime_spec import (
    Capabilities,
    CpuLimit,
    Linux,
    MemoryLimit,
    Mount,
    Namespace,
    PidsLimit,
    Process,
    Resources,
    Rlimit,
    Root,
    Spec,
)
from pyswarm.agent_runtime.kernel import capabilities
from pyswarm.agent_runtime.kernel.cgroup_limits import DEFAULT_PIDS, PERIOD_MICROSECONDS, Limits
from pyswarm.agent_runtime.kernel.numbers import RLIMIT_NUMBERS
from pyswarm.proto.codec.validate_surroundings import is_namespaced_sysctl
from pyswarm.proto.errors import InvalidArgument
from pyswarm.proto.v1 import runtime_pb2 as pb
from pyswarm.proto.v1 import types_pb2 as types

MEMORY_MINIMUM_BYTES = 6 * 1024 * 1024
"""Docker's minimum: below it a container cannot even start."""

INIT_POINT = "/dev/pyswarm-init"
"""In /dev, which is the container's own and nothing else may be mounted on: it leaves nothing in the writable layer."""

_UNLIMITED = 2**64 - 1


class HostFacts(msgspec.Struct, frozen=True):
    """What this machine can give. `capabilities`: our own bounding set; `nofile_hard`: our own limit; `init_program`:
    the path of the init for containers that ask for one, "" where it was not built."""

    capabilities: frozenset[str]
    nofile_hard: int
    cgroup_parent: str
    cgroup_v2: bool
    init_program: str = ""


def build(container_id: str, config: pb.ContainerConfig, image: Mapping[str, Any], host: HostFacts) -> Spec:
    """Return the spec of a container. `image` is the OCI image config's `config` object. Raises InvalidArgument."""
    if config.init and not host.init_program:
        raise InvalidArgument(
            "`init: true`: this node has no init to put into the container: it was installed without a C compiler",
            remedy="Install gcc there and build again, or put an init such as tini into the image as its entrypoint.",
        )
    granted = capabilities.effective(config.capability_add, config.capability_drop) & host.capabilities
    names = tuple(sorted(granted))
    spec = Spec(
        process=Process(
            args=(*((INIT_POINT, "--") if config.init else ()), *command_line(config, image)),
            cwd=_absolute(config.dir or image.get("WorkingDir") or "/", "the working directory"),
            env=environment(config, image),
            capabilities=Capabilities(bounding=names, effective=names, permitted=names),
            rlimits=_rlimits(host),
            no_new_privileges=True,
            terminal=config.tty,
            oom_score_adj=_oom_score(config.oom_score_adj),
        ),
        root=Root(readonly=config.read_only),
        hostname=hostname_of(container_id, config),
        mounts=(*_default_mounts(host), *_init_mount(config, host), *_mounts(config.mounts)),
        linux=Linux(
            namespaces=(
                *(Namespace(kind) for kind in ("pid", "mount", "uts", "ipc", "cgroup")),
                Namespace("network", config.network_namespace),
            ),
            cgroups_path=f"/{host.cgroup_parent}/{container_id}",
            resources=_resources(limits_of(config.limits)),
            sysctl={**defaults.SYSCTL, **_sysctls(config.sysctls)},
            masked_paths=defaults.MASKED_PATHS,
            readonly_paths=defaults.READONLY_PATHS,
        ),
        annotations=dict(config.labels),
    )
    return _with_ulimits(spec, config.ulimits)


def _oom_score(adjustment: int) -> int | None:
    if not -1000 <= adjustment <= 1000:
        raise InvalidArgument(f"the OOM score is adjusted by {adjustment}", remedy="Give a number from -1000 to 1000.")
    return adjustment or None


def command_line(config: pb.ContainerConfig, image: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the words to execute. An entrypoint of the container's own voids the image's command as well."""
    if config.entrypoint:
        words = (*config.entrypoint, *config.args)
    else:
        words = (*(image.get("Entrypoint") or ()), *(config.args or image.get("Cmd") or ()))
    if not words or not words[0]:
        raise InvalidArgument(
            f"nothing to run: neither the service nor the image {config.image} gives a command",
            remedy="Give one: `pyswarm service create ... IMAGE COMMAND`, or `command:` in the stack file.",
        )
    for word in words:
        _no_nul(word, "an argument")
    return tuple(words)


def environment(config: pb.ContainerConfig, image: Mapping[str, Any]) -> tuple[str, ...]:
    """Return NAME=value, the container's own over the image's; PATH and HOSTNAME as Docker sets them."""
    merged: dict[str, str] = {"PATH": defaults.PATH} | ({"TERM": "xterm"} if config.tty else {})
    for line in (*(image.get("Env") or ()), *config.env):
        name, equals, value = line.partition("=")
        if not name:
            raise InvalidArgument(f"the environment line {line!r} has no name", remedy="Write NAME=value.")
        _no_nul(line, f"the environment variable {name}")
        if equals:
            merged[name] = value
        else:
            merged.pop(name, None)  # a bare NAME unsets it, as in Docker
    return tuple(f"{name}={value}" for name, value in merged.items())


def hostname_of(container_id: str, config: pb.ContainerConfig) -> str:
    name = config.hostname or container_id[:12]
    if len(name) > 64 or "\0" in name or "/" in name:
        raise InvalidArgument(f"{name!r} is no host name", remedy="Use at most 64 letters, digits, `-` and `.`.")
    return name


def limits_of(limits: types.Resources) -> Limits:
    """Raises InvalidArgument for limits that no container could have."""
    if limits.nano_cpus < 0 or limits.memory_bytes < 0 or limits.pids < 0:
        raise InvalidArgument("a limit is negative", remedy="Use 0 for no limit.")
    if 0 < limits.memory_bytes < MEMORY_MINIMUM_BYTES:
        raise InvalidArgument(
            f"a memory limit of {limits.memory_bytes} bytes is too small for any process",
            remedy="Give at least 6 MiB.",
        )
    return Limits(limits.nano_cpus, limits.memory_bytes, limits.pids)


def _resources(limits: Limits) -> Resources:
    return Resources(
        memory=MemoryLimit(limits.memory_bytes, limits.memory_bytes),
        cpu=CpuLimit(limits.quota_microseconds, PERIOD_MICROSECONDS) if limits.nano_cpus else CpuLimit(),
        pids=PidsLimit(limits.pids or DEFAULT_PIDS),
    )


def _rlimits(host: HostFacts) -> tuple[Rlimit, ...]:
    # A high soft limit slows programs that close every possible descriptor: they raise it themselves.
    hard = min(defaults.NOFILE_HARD, host.nofile_hard)
    return (Rlimit("RLIMIT_NOFILE", min(defaults.NOFILE_SOFT, hard), hard), Rlimit("RLIMIT_CORE", 0, 0))


def _with_ulimits(spec: Spec, wanted: Sequence[types.Ulimit]) -> Spec:
    """Return the spec with the limits that were asked for over our own. Raises InvalidArgument for an unknown one."""
    limits = {limit.type: limit for limit in spec.process.rlimits}
    for limit in wanted:
        name = f"RLIMIT_{limit.name.upper()}"
        if name not in RLIMIT_NUMBERS:
            raise InvalidArgument(f"there is no limit called {limit.name!r}", remedy="See setrlimit(2) for the names.")
        limits[name] = Rlimit(name, *(_UNLIMITED if value < 0 else value for value in (limit.soft, limit.hard)))
    process = msgspec.structs.replace(spec.process, rlimits=tuple(limits.values()))
    return msgspec.structs.replace(spec, process=process)


def _sysctls(wanted: Mapping[str, str]) -> dict[str, str]:
    """Only what the container's own namespaces hold: any other setting is the machine's."""
    for key, value in wanted.items():
        if not is_namespaced_sysctl(key):
            raise InvalidArgument(f"sysctl {key} is not the container's own", remedy="Set it on the machine.")
        _no_nul(value, f"the sysctl {key}")
    return dict(wanted)


def _default_mounts(host: HostFacts) -> tuple[Mount, ...]:
    return (*defaults.MOUNTS, defaults.CGROUP_V2_MOUNT) if host.cgroup_v2 else defaults.MOUNTS


def _init_mount(config: pb.ContainerConfig, host: HostFacts) -> tuple[Mount, ...]:
    """Read-only, as everything of the machine's that a container can execute (CVE-2019-5736)."""
    options = ("bind", "ro", "nosuid", "nodev", "rprivate")
    return (Mount(INIT_POINT, "bind", host.init_program, options),) if config.init else ()


def _mounts(wanted: Sequence[types.Mount]) -> tuple[Mount, ...]:
    mounts = [_mount(mount) for mount in wanted]
    seen: set[str] = set()
    for mount in mounts:
        if mount.destination in seen:
            raise InvalidArgument(
                f"two mounts have the target {mount.destination}", remedy="Give each mount a target of its own."
            )
        seen.add(mount.destination)
    # Outer directories first, so that a mount inside another one is not hidden by it.
    return tuple(sorted(mounts, key=lambda mount: mount.destination.count("/")))


def _mount(mount: types.Mount) -> Mount:
    target = _absolute(mount.target, "the mount target")
    for forbidden in ("/proc", "/sys", "/dev"):
        inside = target.startswith(f"{forbidden}/") and forbidden != "/dev"
        if target == forbidden or inside or target == "/":
            raise InvalidArgument(
                f"a mount may not have the target {target}", remedy="Mount it elsewhere, for example under /mnt."
            )
    if mount.type == types.TMPFS:
        size = (f"size={mount.tmpfs_size_bytes}",) if mount.tmpfs_size_bytes else ()
        options = ("nosuid", "nodev", "noexec", "mode=1777", *size, *(("ro",) if mount.read_only else ()))
        return Mount(target, "tmpfs", "tmpfs", options)
    if mount.type in (types.BIND, types.VOLUME):
        source = _absolute(mount.source, f"the source of the mount {target}")
        return Mount(target, "bind", source, ("rbind", "rprivate", *(("ro",) if mount.read_only else ())))
    raise InvalidArgument(f"the mount {target} has no type", remedy="Use bind, volume or tmpfs.")


def _absolute(path: str, what: str) -> str:
    _no_nul(path, what)
    if not path.startswith("/"):
        raise InvalidArgument(f"{what} {path!r} is not an absolute path", remedy="Start it with `/`.")
    # normpath keeps two leading slashes, which POSIX lets mean something else.
    return "/" + posixpath.normpath(path).lstrip("/")


def _no_nul(value: str, what: str) -> None:
    if "\0" in value:
        raise InvalidArgument(f"{what} holds a NUL character", remedy="Remove it.")
