"""Any config.json at all: it is decoded and compiled, or refused by naming the member that is wrong."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyswarm.agent_runtime.bundle import compile_bundle, runtime_spec
from pyswarm.agent_runtime.bundle.become import NO_FILTER
from pyswarm.agent_runtime.bundle.runtime_spec import Capabilities
from pyswarm.agent_runtime.bundle.validate import InvalidConfig, grantable
from pyswarm.agent_runtime.oci.create import decode
from pyswarm.agent_runtime.oci.example import example_spec

GOOD: dict[str, Any] = json.loads(runtime_spec.encode(example_spec()))


def config(path: str, value: Any) -> bytes:
    """Return the example with the member at `path`, as in `linux.devices.0.type`, replaced."""
    changed = copy.deepcopy(GOOD)
    at: Any = changed
    *parents, last = path.split(".")
    for name in parents:
        at = at.setdefault(name, {}) if isinstance(at, dict) else at[int(name)]
    at[last] = value
    return json.dumps(changed).encode()


@pytest.mark.parametrize(("path", "value", "field"), [
    ("ociVersion", "2.0.0", "ociVersion"),
    ("process.args", [], "process.args"),
    ("process.args", ["a", 1], "process.args[1]"),
    ("process.args", ["a\0b"], "process.args[0]"),
    ("process.cwd", "relative", "process.cwd"),
    ("process.user", {"uid": -1}, "process.user.uid"),
    ("process.user", {"additionalGids": [2**32]}, "process.user.additionalGids[0]"),
    ("process.rlimits", [{"type": "RLIMIT_X", "soft": 1, "hard": 1}], "process.rlimits[0].type"),
    ("process.rlimits", [{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}], "process.rlimits[0].soft"),
    ("process.rlimits", [{"type": "RLIMIT_CPU", "soft": 1, "hard": 1}] * 2, "process.rlimits[1].type"),
    ("process.oomScoreAdj", 5000, "process.oomScoreAdj"),
    ("process.ioPriority", {"class": "X"}, "process.ioPriority.class"),
    ("hostname", "x" * 65, "hostname"),
    ("mounts", [{"destination": "/x"}], "mounts[0].type"),
    ("mounts", [{"destination": "/x", "type": "bind"}], "mounts[0].source"),
    ("mounts", [{"destination": "/x", "source": "/", "options": ["bind", "idmap"]}], "mounts[0].options"),
    ("mounts", [{"destination": "/x", "source": "/", "options": ["bind", "copy-symlink"]}], "mounts[0].options"),
    ("mounts", [{"destination": "/x", "source": "/", "options": ["bind", "tmpcopyup"]}], "mounts[0].options"),
    ("hooks", {"poststop": [{"path": "x"}]}, "hooks.poststop[0].path"),
    ("hooks", {"createRuntime": [{"path": "/x", "timeout": 0}]}, "hooks.createRuntime[0].timeout"),
    ("linux.namespaces", [{"type": "uts"}, {"type": "x"}], "linux.namespaces[1].type"),
    ("linux.namespaces", [{"type": "uts"}, {"type": "mount"}, {"type": "mount"}], "linux.namespaces[2].type"),
    ("linux.namespaces", [{"type": "mount"}, {"type": "uts"}, {"type": "user"}], "linux.uidMappings"),
    ("linux.namespaces", [{"type": "uts"}], "linux.namespaces"),
    ("linux.timeOffsets", {"boottime": {"secs": 1}}, "linux.timeOffsets.boottime"),
    ("linux.devices", [{"path": "/dev/x", "type": "z"}], "linux.devices[0].type"),
    ("linux.sysctl", {"kernel.panic": "1"}, "linux.sysctl.kernel.panic"),
    ("linux.sysctl", {"net.../../kernel/x": "1"}, "linux.sysctl.net.../../kernel/x"),
    ("linux.cgroupsPath", "/a/../../b", "linux.cgroupsPath"),
    ("linux.rootfsPropagation", "x", "linux.rootfsPropagation"),
    ("linux.seccomp", {"defaultAction": "X"}, "linux.seccomp.defaultAction"),
    ("linux.resources.memory", {"limit": 100, "swap": 50}, "linux.resources.memory.swap"),
    ("linux.resources.devices", [{"allow": True, "access": "x"}], "linux.resources.devices[0].access"),
    ("linux.intelRdt", {"closID": "x"}, "linux.intelRdt"),
    ("process.apparmorProfile", "docker-default", "process.apparmorProfile"),
    ("process.selinuxLabel", "system_u:system_r:container_t:s0", "process.selinuxLabel"),
    ("linux.mountLabel", "system_u:object_r:container_file_t:s0", "linux.mountLabel"),
])  # fmt: skip
def test_what_is_wrong_is_named(path: str, value: Any, field: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        decode(config(path, value))
    assert caught.value.field == field
    assert caught.value.message.startswith(f"config.json: {field}: ")


def test_null_stands_for_nothing_given() -> None:
    assert decode(config("linux.devices", None)).linux.devices == ()


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b'{"process": 1}', b"[" * 100_000])
def test_what_is_no_config_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidConfig):
        decode(text)


def test_capabilities_that_cannot_be_granted_are_left_out_with_a_warning() -> None:
    sets, warnings = grantable(
        Capabilities(bounding=("CAP_KILL", "CAP_X"), permitted=("CAP_KILL",), ambient=("CAP_KILL",)),
        frozenset({"CAP_KILL"}),
    )
    assert sets == Capabilities(bounding=("CAP_KILL",), permitted=("CAP_KILL",))
    assert warnings == ["the capability CAP_X cannot be granted here and is left out"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("\ud800") | st.just("/x"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [found for key, each in inner for found in _paths(each, (*path, key))]


FULL = GOOD | {
    "hooks": {"prestart": [{"path": "/x", "args": ["x"], "env": ["A=b"], "timeout": 1}]},
    "linux": GOOD["linux"] | {
        "devices": [{"path": "/dev/a/b", "type": "c", "major": 1, "minor": 3, "fileMode": 438, "uid": 1, "gid": 1}],
        "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}],
        "timeOffsets": {"monotonic": {"secs": 1, "nanosecs": 1}},
        "seccomp": {
            "defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [
                {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]}
            ],
        },
        "resources": {
            "memory": {"limit": 1 << 26, "swap": 1 << 26}, "cpu": {"shares": 5, "cpus": "0-1"}, "unified": {"a.b": "1"},
        },
        "personality": {"domain": "LINUX"}, "rootfsPropagation": "rslave",
        "sysctl": {"net.ipv4.ip_forward": "1"},
    },
    "process": GOOD["process"] | {
        "consoleSize": {"height": 1, "width": 2}, "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 1},
        "scheduler": {"policy": "SCHED_OTHER", "nice": 1}, "oomScoreAdj": 1,
    },
}  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(path=st.sampled_from(_paths(FULL)), value=JSON)
def test_any_config_is_compiled_or_refused_by_naming_a_member(path: tuple[Any, ...], value: Any) -> None:
    changed = copy.deepcopy(FULL)
    at: Any = changed
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    try:
        spec = decode(json.dumps(changed).encode())
    except InvalidConfig:  # whose constructor wants a field; anything else fails the test
        return
    given_slots = compile_bundle.handover(spec, cgroup_files=2)
    compile_bundle.compile_bundle(spec, given_slots, seccomp=NO_FILTER, is_directory=frozenset()).encode()
