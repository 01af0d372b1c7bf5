"""From a container config and an image's config to an OCI spec, and from there to a start program. All pure."""

import errno
from typing import Any

import msgspec
import pytest

from pyswarm.agent_runtime.bundle import build, etc_files, runtime_spec, users
from pyswarm.agent_runtime.bundle.become import Steps, explain_failure
from pyswarm.agent_runtime.bundle.compile import Handover, compile_program
from pyswarm.agent_runtime.bundle.compile_exec import ExecHandover, compile_exec
from pyswarm.agent_runtime.bundle.runtime_spec import Spec, User
from pyswarm.agent_runtime.kernel import capabilities
from pyswarm.agent_runtime.kernel.program import HEADER, OPERATION
from pyswarm.proto.errors import InvalidArgument
from pyswarm.proto.v1 import runtime_pb2 as pb
from pyswarm.proto.v1 import types_pb2 as types

HOST = build.HostFacts(frozenset(capabilities.NAMES), 20000, "pyswarm", cgroup_v2=False)
IMAGE = {"Entrypoint": ["/entry"], "Cmd": ["serve"], "Env": ["A=1", "B=2"], "WorkingDir": "/srv"}


def spec_of(image: dict[str, Any] | None = None, **config: Any) -> Spec:
    return build.build("task1", pb.ContainerConfig(image="i", **config), IMAGE if image is None else image, HOST)


@pytest.mark.parametrize(
    ("image", "entrypoint", "args", "words"),
    [
        pytest.param(IMAGE, [], [], ("/entry", "serve"), id="the image's own"),
        pytest.param(IMAGE, [], ["other"], ("/entry", "other"), id="other arguments"),
        pytest.param(IMAGE, ["/mine"], [], ("/mine",), id="an entrypoint voids the image's command"),
        pytest.param(IMAGE, ["/mine"], ["x"], ("/mine", "x"), id="both"),
        pytest.param({"Cmd": ["sh"]}, [], [], ("sh",), id="no entrypoint"),
        pytest.param({"Entrypoint": None, "Cmd": None}, [], ["ls"], ("ls",), id="nulls, as images have them"),
    ],
)
def test_what_is_run(image: dict[str, Any], entrypoint: list[str], args: list[str], words: tuple[str, ...]) -> None:
    assert spec_of(image, entrypoint=entrypoint, args=args).process.args == words


def test_an_image_without_a_command_needs_one() -> None:
    with pytest.raises(InvalidArgument, match="nothing to run"):
        spec_of({})


def test_ones_own_environment_wins_and_a_bare_name_unsets() -> None:
    env = spec_of(env=["B=9", "C=3=x", "A"]).process.env
    assert set(env) == {"B=9", "C=3=x", f"PATH={'/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'}"}


@pytest.mark.parametrize(
    "config",
    [
        {"env": ["=x"]},
        {"env": ["A=\0"]},
        {"args": ["a\0b"]},
        {"hostname": "x" * 65},
        {"hostname": "a/b"},
        {"init": True},
        {"limits": types.Resources(memory_bytes=-1)},
        {"mounts": [types.Mount(type=types.TMPFS, target="/")]},
        {"mounts": [types.Mount(type=types.TMPFS, target="/a/../proc")]},
        {"mounts": [types.Mount(type=types.TMPFS, target="//sys/x")]},
        {"mounts": [types.Mount(target="/x")]},
        {"mounts": [types.Mount(type=types.TMPFS, target="/x"), types.Mount(type=types.TMPFS, target="/x/")]},
    ],
    ids=str,
)
def test_what_can_never_work_is_refused_with_a_remedy(config: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument) as refused:
        spec_of(**config)
    assert refused.value.remedy


def test_an_init_is_put_before_the_command_and_mounted_read_only_or_refused() -> None:
    config = pb.ContainerConfig(image="i", args=["run", "it"], init=True)
    spec = build.build("box", config, {}, msgspec.structs.replace(HOST, init_program="/opt/pyswarm-init"))
    assert spec.process.args == (build.INIT_POINT, "--", "run", "it")
    (mount,) = [mount for mount in spec.mounts if mount.destination == build.INIT_POINT]
    assert (mount.type, mount.source) == ("bind", "/opt/pyswarm-init")
    assert "ro" in mount.options
    with pytest.raises(InvalidArgument, match="no init"):
        build.build("box", config, {}, HOST)


def test_outer_mounts_come_before_inner_ones() -> None:
    mounts = [types.Mount(type=types.TMPFS, target=t) for t in ("/a/b/c", "/a", "/a/b")]
    assert [m.destination for m in spec_of(mounts=mounts).mounts][-3:] == ["/a", "/a/b", "/a/b/c"]


def test_capabilities_the_machine_lacks_are_left_out() -> None:
    host = build.HostFacts(frozenset({"CAP_CHOWN"}), 1000, "p", cgroup_v2=True)
    spec = build.build("t", pb.ContainerConfig(image="i", args=["x"]), {}, host)
    assert spec.process.capabilities.bounding == ("CAP_CHOWN",)
    assert spec.process.rlimits[0].hard == 1000
    assert spec.mounts[-1].type == "cgroup2"


def test_config_json_is_read_again_as_it_was_written() -> None:
    spec = spec_of(mounts=[types.Mount(type=types.BIND, source="/x", target="/y")], labels={"a": "b"})
    encoded = runtime_spec.encode(spec)
    assert runtime_spec.decode(encoded) == spec
    for name in (b'"ociVersion"', b'"noNewPrivileges"', b'"maskedPaths"', b'"cgroupsPath"'):
        assert name in encoded


PASSWD = "root:x:0:0:root:/root:/bin/sh\n# a comment\nbroken\nweb:x:1000:1001::/home/web:/bin/sh\n7:x:70:70::/seven:\n"
GROUP = "root:x:0:\nweb:x:1001:\nlogs:x:2000:web,other\nwheel:x:10:web\n"


@pytest.mark.parametrize(
    ("wanted", "user", "home"),
    [
        pytest.param("", User(0, 0), "/root", id="nobody asked"),
        pytest.param("web", User(1000, 1001, (10, 2000)), "/home/web", id="by name, with its groups"),
        pytest.param("1000", User(1000, 1001, (10, 2000)), "/home/web", id="by number"),
        pytest.param("web:logs", User(1000, 2000), "/home/web", id="a group of its own"),
        pytest.param("web:5", User(1000, 5), "/home/web", id="a group number"),
        pytest.param("4242", User(4242, 0), "/", id="a number nobody has"),
        pytest.param("7", User(70, 70), "/seven", id="a name that looks like a number"),
    ],
)
def test_the_user_is_looked_up_in_the_image(wanted: str, user: User, home: str) -> None:
    found = users.resolve(wanted, PASSWD, GROUP)
    assert (found.user, found.home) == (user, home)


@pytest.mark.parametrize("wanted", ["nobody", "web:nogroup", "99999999999", "0:99999999999"])
def test_an_unknown_user_or_group_is_refused(wanted: str) -> None:
    with pytest.raises(InvalidArgument):
        users.resolve(wanted, PASSWD, GROUP)


def test_a_resolver_on_the_machines_loopback_is_not_handed_to_containers() -> None:
    machine = "nameserver 127.0.0.53\nnameserver 10.0.0.2\nsearch lan\noptions edns0\n"
    assert etc_files.resolv_conf(pb.ContainerConfig(), machine) == "nameserver 10.0.0.2\nsearch lan\noptions edns0\n"
    own = pb.ContainerConfig(dns_servers=["1.1.1.1"], dns_search=["x"])
    assert etc_files.resolv_conf(own, machine) == "nameserver 1.1.1.1\nsearch x\noptions edns0\n"


def test_extra_hosts_may_name_the_container_itself() -> None:
    text = etc_files.hosts("web", ["web:10.0.0.9"])
    assert "10.0.0.9\tweb\n" in text
    assert "127.0.1.1" not in text
    with pytest.raises(InvalidArgument, match="name:address"):
        etc_files.hosts("web", ["nonsense"])


def program_for(spec: Spec) -> tuple[Any, Handover]:
    handover = Handover.of(spec, cgroup_files=2)
    return compile_program(spec, handover, seccomp=bytes(16), bind_is_directory={"/data": True}), handover


def test_a_program_encodes_every_operation_and_ends_in_execve() -> None:
    program, _ = program_for(spec_of())
    encoded = program.encode()
    count = HEADER.unpack_from(encoded)[2]
    assert count == len(program.operations)
    assert len(encoded) >= HEADER.size + count * OPERATION.size + len(program.data)
    assert program.operations[-1].label == "execute /entry"


def test_rights_are_given_up_after_the_rootfs_is_ready_and_before_anything_is_executed() -> None:
    program, _ = program_for(spec_of())
    order = [operation.call for operation in program.operations]
    assert order.index("unshare") > max(i for i, o in enumerate(program.operations) if o.label == "join the cgroup")
    for earlier, later in [
        ("pivot_root", "capset"),
        ("setgroups", "setresuid"),
        ("setresgid", "setresuid"),
        ("setresuid", "capset"),
        ("capset", "seccomp"),
        ("close_range", "seccomp"),
        ("seccomp", "execve"),
    ]:
        assert order.index(earlier) < order.index(later), (earlier, later)
    assert order[-2:] == ["seccomp", "execve"]


def test_a_container_and_whatever_joins_it_leaves_the_machines_keys_behind_before_it_executes_anything() -> None:
    spec = spec_of()
    joining = compile_exec(spec.process, ExecHandover(cgroup_files=0), seccomp=bytes(16))
    for program in (program_for(spec)[0], joining):
        order = [operation.call for operation in program.operations]
        assert order.index("keyctl") < order.index("setresuid") < order.index("execve")


def test_a_bare_name_is_tried_in_every_directory_of_the_path() -> None:
    program, _ = program_for(spec_of({}, args=["web"], env=["PATH=/a:/b"]))
    assert [o.label for o in program.operations[-2:]] == ["execute /a/web", "execute /b/web"]


def test_the_slots_of_what_is_handed_over_do_not_overlap() -> None:
    spec = spec_of(network_namespace="/n", mounts=[types.Mount(type=types.BIND, source="/x", target="/data")])
    _, handover = program_for(spec)
    assert handover.count == 3 + 2 + 1 + 1
    assert handover.bind("/data").index == 6


@pytest.mark.parametrize(
    ("from_end", "number", "text", "code"),
    [(0, 0, "not found in $PATH", 127), (1, errno.ENOENT, "no such file", 127), (1, errno.EACCES, "Permission", 126)],
)
def test_failures_are_put_into_words(from_end: int, number: int, text: str, code: int) -> None:
    spec = spec_of()
    program, _ = program_for(spec)
    name, index = spec.process.args[0], len(program.operations) - from_end
    reason, exit_code = explain_failure(Steps.of(program), name, index, number)
    assert text in reason
    assert exit_code == code


def test_a_failure_on_the_way_names_what_was_being_done() -> None:
    spec = spec_of()
    program, _ = program_for(spec)
    index = next(i for i, o in enumerate(program.operations) if o.label == "mount proc on /proc")
    assert explain_failure(Steps.of(program), spec.process.args[0], index, errno.EPERM) == (
        "cannot mount proc on /proc: Operation not permitted",
        128,
    )


@pytest.mark.parametrize("key", ["kernel.panic", "vm.swappiness", "net/../kernel/panic", "net.ipv4/../../vm/x", "net"])
def test_a_setting_of_the_machine_cannot_be_reached_from_a_container(key: str) -> None:
    with pytest.raises(InvalidArgument, match="is not the container's own"):
        spec_of(sysctls={key: "1"})


def test_limits_and_settings_are_set_over_our_own() -> None:
    spec = spec_of(
        sysctls={"net.ipv4.ip_unprivileged_port_start": "1024"},
        ulimits=[types.Ulimit(name="core", soft=-1, hard=-1), types.Ulimit(name="nproc", soft=5, hard=6)],
    )
    limits = {limit.type: (limit.soft, limit.hard) for limit in spec.process.rlimits}
    assert limits["RLIMIT_CORE"] == (2**64 - 1, 2**64 - 1)
    assert limits["RLIMIT_NPROC"] == (5, 6)
    assert spec.linux.sysctl["net.ipv4.ip_unprivileged_port_start"] == "1024"
    assert "net.ipv4.ping_group_range" in spec.linux.sysctl
    with pytest.raises(InvalidArgument, match="no limit called 'files'"):
        spec_of(ulimits=[types.Ulimit(name="files")])
