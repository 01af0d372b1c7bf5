"""Judge what a task's container shall look like (pure). Part of validate.py, which is the way in."""

import re
from collections.abc import Iterator
from typing import Final

from pyswarm.proto.codec.image_reference import parse_reference
from pyswarm.proto.codec.placeholders import has_placeholder, placeholder_problems
from pyswarm.proto.codec.problems import Problem, caught, negative
from pyswarm.proto.codec.signals import is_signal
from pyswarm.proto.codec.validate_health import health_problems
from pyswarm.proto.codec.validate_payload import reference_problems
from pyswarm.proto.codec.validate_surroundings import surroundings_problems
from pyswarm.proto.errors import InvalidReference
from pyswarm.proto.model.spec import ContainerSpec, Mount
from pyswarm.proto.model.states import MountType

CAPABILITIES: Final = frozenset(
    """AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE
    DAC_READ_SEARCH FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD
    NET_ADMIN NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN
    SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME
    SYS_TTY_CONFIG WAKE_ALARM""".split()  # noqa: SIM905
)
"""Names of Linux capabilities (capability.h), without CAP_."""

_HOSTNAME = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9][A-Za-z0-9-]{0,62})*"
)


def container_problems(spec: ContainerSpec) -> Iterator[Problem]:
    """Yield what is wrong with `spec`."""
    if spec.image:
        yield from caught(parse_reference, spec.image)
    else:
        yield Problem("the image is missing", "Name the image to run, as in registry:5000/name:tag.", InvalidReference)
    for variable in spec.env:
        name, equals, _ = variable.partition("=")
        if not name or not equals:
            yield Problem(f"environment entry {variable[:80]!r} has no name or no =", "Write NAME=value.")
    for text in (*spec.command, *spec.args, *spec.env, spec.dir, spec.user):
        if "\0" in text:
            yield Problem(f"{text[:80]!r} contains a NUL character", "Leave it out: no process can be given one.")
    if spec.dir and not spec.dir.startswith("/"):
        yield Problem(f"working directory {spec.dir!r} is relative", "Give the working directory from the root on.")
    for what, text in _texts_with_placeholders(spec):
        yield from placeholder_problems(what, text)
    if spec.hostname and not has_placeholder(spec.hostname) and not _HOSTNAME.fullmatch(spec.hostname):
        yield Problem(f"{spec.hostname!r} is no hostname", "Use letters, digits and dashes, with dots between names.")
    if spec.stop_signal and not is_signal(spec.stop_signal):
        yield Problem(
            f"stop signal {spec.stop_signal!r} is unknown", "Name a signal (SIGTERM) or give its number (15)."
        )
    yield from negative("stop grace period", spec.stop_grace_period_seconds)
    for capability in (*spec.capability_add, *spec.capability_drop):
        if capability.upper().removeprefix("CAP_") not in CAPABILITIES | {"ALL"}:
            yield Problem(f"capability {capability!r} is unknown", "See capabilities(7) for the names, or use ALL.")
    for key in spec.labels:
        if not key:
            yield Problem("a container label has no name", "Name every label.")
    yield from _mount_problems(spec.mounts)
    yield from health_problems(spec)
    yield from surroundings_problems(spec)
    for secret in spec.secrets:
        yield from reference_problems(secret)
    for config in spec.configs:
        yield from reference_problems(config)


def _texts_with_placeholders(spec: ContainerSpec) -> Iterator[tuple[str, str]]:
    for variable in spec.env:
        yield f"environment entry {variable.partition('=')[0]}", variable
    yield "the hostname", spec.hostname
    for mount in spec.mounts:
        yield f"the mount at {mount.target}", mount.source + mount.target


def _mount_problems(mounts: tuple[Mount, ...]) -> Iterator[Problem]:
    targets: set[str] = set()
    for mount in mounts:
        target = mount.target.rstrip("/") or "/"
        if not mount.target.startswith("/") or ".." in mount.target.split("/"):
            yield Problem(
                f"mount target {mount.target!r} is not absolute", "Give the path inside the container, from /."
            )
        elif target == "/":
            yield Problem("a mount cannot replace the container's root", "Mount below /.")
        elif target in targets:
            yield Problem(f"{target} is the target of two mounts", "Mount each path once.")
        targets.add(target)
        if mount.type is MountType.UNSET:
            yield Problem(f"the mount at {target} has no type", "Mount types are bind, volume and tmpfs.")
        if mount.type is MountType.BIND and not mount.source.startswith("/"):
            yield Problem(
                f"the bind mount at {target} has the source {mount.source!r}", "Give the path on the node, from / on."
            )
        if mount.type is MountType.TMPFS and mount.source:
            yield Problem(f"the tmpfs at {target} has a source", "A tmpfs is empty at first: leave out its source.")
        yield from negative(f"tmpfs size at {target}", mount.tmpfs_size_bytes)
