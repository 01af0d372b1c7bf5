"""The OCI runtime specification's `config.json` for Linux, in frozen records named as the specification names them.

What runs and where its files are; namespaces, devices, filters and resources are in `spec_linux.py`. `compile.py` and
`compile_bundle.py` turn it into system calls. 0, "" or () means "not given", which for every limit of the
specification is the same as the kernel's default.
"""

from typing import Any

import msgspec

from pyswarm.agent_runtime.bundle.spec_linux import (
    CpuLimit,
    IdMapping,
    Linux,
    MemoryLimit,
    Namespace,
    PidsLimit,
    Resources,
)

__all__ = [
    "OCI_VERSION", "Capabilities", "ConsoleSize", "CpuLimit", "Hook", "Hooks", "IdMapping", "Linux", "MemoryLimit",
    "Mount", "Namespace", "PidsLimit", "Process", "Resources", "Rlimit", "Root", "Spec", "User", "decode",
    "decode_config", "encode",
]  # fmt: skip

OCI_VERSION = "1.2.0"


class User(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    uid: int = 0
    gid: int = 0
    additional_gids: tuple[int, ...] = ()
    umask: int = 0o022


class Capabilities(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    bounding: tuple[str, ...] = ()
    effective: tuple[str, ...] = ()
    permitted: tuple[str, ...] = ()
    inheritable: tuple[str, ...] = ()
    ambient: tuple[str, ...] = ()


class Rlimit(msgspec.Struct, frozen=True):
    type: str
    soft: int
    hard: int


class ConsoleSize(msgspec.Struct, frozen=True):
    height: int
    width: int


class IoPriority(msgspec.Struct, frozen=True, rename={"level": "class"}):
    level: str = "IOPRIO_CLASS_NONE"
    priority: int = 0


class Scheduler(msgspec.Struct, frozen=True):
    policy: str
    nice: int = 0
    priority: int = 0
    flags: tuple[str, ...] = ()
    runtime: int = 0
    deadline: int = 0
    period: int = 0


class Process(msgspec.Struct, frozen=True, rename="camel"):
    args: tuple[str, ...] = ()
    cwd: str = "/"
    env: tuple[str, ...] = ()
    user: User = User()
    capabilities: Capabilities = Capabilities()
    rlimits: tuple[Rlimit, ...] = ()
    no_new_privileges: bool = False
    terminal: bool = False
    console_size: ConsoleSize | None = None
    oom_score_adj: int | None = None
    apparmor_profile: str = ""
    selinux_label: str = ""
    scheduler: Scheduler | None = None
    io_priority: IoPriority | None = None


class Root(msgspec.Struct, frozen=True):
    path: str = "rootfs"
    readonly: bool = False


class Mount(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    destination: str
    type: str = ""
    source: str = ""
    options: tuple[str, ...] = ()
    uid_mappings: tuple[IdMapping, ...] = ()
    gid_mappings: tuple[IdMapping, ...] = ()


class Hook(msgspec.Struct, frozen=True):
    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout: int | None = None


class Hooks(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    prestart: tuple[Hook, ...] = ()
    create_runtime: tuple[Hook, ...] = ()
    create_container: tuple[Hook, ...] = ()
    start_container: tuple[Hook, ...] = ()
    poststart: tuple[Hook, ...] = ()
    poststop: tuple[Hook, ...] = ()


class Spec(msgspec.Struct, frozen=True, rename="camel"):
    """One container, wholly described. `annotations` carries labels."""

    process: Process = Process()
    root: Root = Root()
    hostname: str = ""
    mounts: tuple[Mount, ...] = ()
    linux: Linux = Linux()
    annotations: dict[str, str] = {}
    oci_version: str = OCI_VERSION
    domainname: str = ""
    hooks: Hooks = Hooks()


def encode(spec: Spec) -> bytes:
    """Return the spec as config.json."""
    return msgspec.json.format(msgspec.json.encode(spec), indent=1)


def decode(text: bytes) -> Spec:
    """Read a config.json of our own; raises msgspec.ValidationError."""
    return msgspec.json.decode(text, type=Spec)


def decode_config(text: bytes) -> Spec:
    """Read anybody's config.json: null stands for "not given", as Go writes it. Raises msgspec.MsgspecError."""
    return msgspec.convert(_without_nulls(msgspec.json.decode(text)), Spec)


def decode_process(text: bytes) -> Process:
    """Read a process.json, the `process` object of a config.json by itself. Raises msgspec.MsgspecError."""
    return msgspec.convert(_without_nulls(msgspec.json.decode(text)), Process)


def decode_resources(text: bytes) -> Resources:
    """Read a `linux.resources` object by itself. Raises msgspec.MsgspecError."""
    return msgspec.convert(_without_nulls(msgspec.json.decode(text)), Resources)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_without_nulls(inner) for inner in value]
    return value
