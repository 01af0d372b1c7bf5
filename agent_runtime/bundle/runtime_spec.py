"""The OCI runtime specification's `config.json`, as far as this runtime goes, in frozen records.

Field names are the specification's. What is absent here (hooks, user namespaces, terminals, id-mapped mounts) is not
supported yet; `compile.py` turns the rest into system calls.
"""

import msgspec

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


class Process(msgspec.Struct, frozen=True, rename="camel"):
    args: tuple[str, ...]
    cwd: str = "/"
    env: tuple[str, ...] = ()
    user: User = User()
    capabilities: Capabilities = Capabilities()
    rlimits: tuple[Rlimit, ...] = ()
    no_new_privileges: bool = True
    terminal: bool = False


class Root(msgspec.Struct, frozen=True):
    path: str = "rootfs"
    readonly: bool = False


class Mount(msgspec.Struct, frozen=True):
    destination: str
    type: str
    source: str
    options: tuple[str, ...] = ()


class Namespace(msgspec.Struct, frozen=True, omit_defaults=True):
    type: str
    path: str = ""


class MemoryLimit(msgspec.Struct, frozen=True, omit_defaults=True):
    limit: int = 0
    swap: int = 0


class CpuLimit(msgspec.Struct, frozen=True, omit_defaults=True):
    quota: int = 0
    period: int = 0


class PidsLimit(msgspec.Struct, frozen=True):
    limit: int


class Resources(msgspec.Struct, frozen=True, omit_defaults=True):
    memory: MemoryLimit = MemoryLimit()
    cpu: CpuLimit = CpuLimit()
    pids: PidsLimit | None = None


class Linux(msgspec.Struct, frozen=True, rename="camel"):
    namespaces: tuple[Namespace, ...]
    cgroups_path: str
    resources: Resources = Resources()
    sysctl: dict[str, str] = {}
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()


class Spec(msgspec.Struct, frozen=True, rename="camel"):
    """One container, wholly described. `annotations` carries our labels."""

    process: Process
    root: Root
    hostname: str
    mounts: tuple[Mount, ...]
    linux: Linux
    annotations: dict[str, str] = {}
    oci_version: str = OCI_VERSION


def encode(spec: Spec) -> bytes:
    """Return the spec as config.json."""
    return msgspec.json.format(msgspec.json.encode(spec), indent=1)


def decode(text: bytes) -> Spec:
    """Read a config.json; raises msgspec.ValidationError."""
    return msgspec.json.decode(text, type=Spec)
