"""A config.json to begin with, and what this runtime can do, for programs that ask."""

import os
from pathlib import Path
from typing import Any

from pyswarm.agent_runtime.bundle import defaults, mount_options, runtime_spec
from pyswarm.agent_runtime.bundle.machine_facts import NAMESPACES, SECCOMP_ACTIONS, SECCOMP_OPERATORS
from pyswarm.agent_runtime.bundle.runtime_spec import Capabilities, Linux, Mount, Namespace, Process, Rlimit, Root, Spec
from pyswarm.agent_runtime.bundle.spec_linux import DeviceRule, Resources
from pyswarm.agent_runtime.kernel import capabilities
from pyswarm.agent_runtime.kernel.numbers import SECCOMP_FILTER_FLAGS
from pyswarm.agent_runtime.oci.rootless import rootless_spec
from pyswarm.proto.errors import AlreadyExists

_RIGHTS = ("CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE")
_CGROUPS = Mount("/sys/fs/cgroup", "cgroup", "cgroup", ("nosuid", "noexec", "nodev", "relatime", "ro"))


def example_spec() -> Spec:
    """Return the spec of a shell on a read-only rootfs, with a terminal, as runc's `spec` has it."""
    return Spec(
        process=Process(
            terminal=True,
            args=("sh",),
            env=(f"PATH={defaults.PATH}", "TERM=xterm"),
            capabilities=Capabilities(bounding=_RIGHTS, effective=_RIGHTS, permitted=_RIGHTS),
            rlimits=(Rlimit("RLIMIT_NOFILE", 1024, 1024),),
            no_new_privileges=True,
        ),
        root=Root("rootfs", readonly=True),
        hostname="pyswarm",
        mounts=(*defaults.MOUNTS, _CGROUPS),
        linux=Linux(
            namespaces=tuple(Namespace(kind) for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")),
            resources=Resources(devices=(DeviceRule(allow=False, access="rwm"),)),
            masked_paths=defaults.MASKED_PATHS,
            readonly_paths=defaults.READONLY_PATHS,
        ),
    )


def write_spec(bundle: Path, *, rootless: bool) -> None:
    """Write config.json, `rootless` for the ordinary user who calls. Raises AlreadyExists."""
    spec = rootless_spec(example_spec()) if rootless else example_spec()
    path = bundle / "config.json"
    try:
        with path.open("xb") as file:
            file.write(runtime_spec.encode(spec) + b"\n")
    except FileExistsError:
        raise AlreadyExists(f"{path} exists", remedy="Remove it first, or name another --bundle.") from None


def features() -> dict[str, Any]:
    """Return the features object of the specification."""
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": runtime_spec.OCI_VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": sorted(mount_options.known()),
        "linux": {
            "namespaces": sorted(NAMESPACES),
            "capabilities": list(capabilities.NAMES),
            "cgroup": {"v1": True, "v2": True, "systemd": False, "systemdUser": False, "rdma": True},
            "seccomp": {
                "enabled": True,
                "actions": list(SECCOMP_ACTIONS),
                "operators": list(SECCOMP_OPERATORS),
                "archs": [{"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}[os.uname().machine]],
                "knownFlags": list(SECCOMP_FILTER_FLAGS),
                "supportedFlags": list(SECCOMP_FILTER_FLAGS),
            },
            "apparmor": {"enabled": False},
            "selinux": {"enabled": False},
            "intelRdt": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": True}},
        },
        "potentiallyUnsafeConfigAnnotations": [],
    }
