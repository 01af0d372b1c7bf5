"""`pyswarm-oci` for an ordinary user, in a real kernel: what works, and what is refused with the reason."""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from lib.oci_command import Config, OciCommand
from lib.ordinary_user import FIRST_SUBID, SUBIDS, UID, OrdinaryUser, ordinary_user

from pyswarm.agent_runtime.bundle.runtime_spec import PidsLimit, Resources, Spec
from pyswarm.agent_runtime.bundle.spec_linux import DeviceRule
from pyswarm.agent_runtime.kernel import cgroup_layout
from pyswarm.agent_runtime.oci.cgroup_place import asked_for, own_path
from pyswarm.agent_runtime.oci.rootless import rootless_spec

kernel = pytest.mark.kernel
_LAYOUT = cgroup_layout.detect()
on_v1 = pytest.mark.skipif(not _LAYOUT.v1, reason="here a subtree could be delegated")
on_v2 = pytest.mark.skipif(bool(_LAYOUT.v1), reason="only cgroup v2 can be delegated")


@pytest.fixture
def user() -> Iterator[OrdinaryUser]:
    with ordinary_user() as user:
        yield user


@pytest.fixture
def oci(user: OrdinaryUser, layer: Path) -> OciCommand:
    return command_of(user, layer, user.prefix())


def command_of(user: OrdinaryUser, layer: Path, prefix: Sequence[str]) -> OciCommand:
    rootfs = user.folder / "rootfs"
    shutil.copytree(layer, rootfs, symlinks=True)
    user.own(rootfs)
    return OciCommand(user.folder, rootfs, prefix=prefix, spec=("--rootless",), cgroup="")


@kernel
def test_a_container_has_the_ids_that_are_granted_and_devices_and_a_network_of_its_own(oci: OciCommand) -> None:
    def edit(config: Config) -> None:
        config["root"]["readonly"] = False
        for name in ("bounding", "effective", "permitted"):
            config["process"]["capabilities"][name].append("CAP_CHOWN")

    out = oci.output(
        "a",
        "id -u; tr -s ' ' < /proc/self/uid_map; echo x > /dev/null && head -c 4 /dev/zero | wc -c; ls /sys/class/net;"
        "touch /tmp/file; chown 7:8 /tmp/file; stat -c %u:%g /tmp/file; hostname",
        edit,
    ).split("\n")
    assert out == [
        "0", f" 0 {UID} 1", f" 1 {FIRST_SUBID} {SUBIDS}", "4", "lo", "7:8", "pyswarm", "",
    ]  # fmt: skip
    found = (oci.layer / "tmp/file").stat()
    assert (found.st_uid, found.st_gid) == (FIRST_SUBID + 6, FIRST_SUBID + 7)


@kernel
def test_the_life_of_a_container(oci: OciCommand) -> None:
    oci.create("a", "sh", "-c", "trap 'exit 3' TERM; while :; do sleep 1000 & wait; done")
    assert oci.state("a")["status"] == "created"
    oci("start", "a")
    assert oci.state("a")["status"] == "running"
    assert oci("exec", "a", "sh", "-c", "id -u; cat /proc/1/comm").split() == ["0", "sh"]
    assert oci("exec", "--user", "7:8", "a", "id", "-u") == "7\n"
    for words in (("pause", "a"), ("ps", "a"), ("events", "--stats", "a"), ("update", "--pids-limit", "3", "a")):
        assert "the container has no cgroup" in oci.attempt(*words).stderr
    oci("kill", "--all", "a", "KILL")
    oci("delete", "--force", "a")
    assert oci("list", "--quiet") == ""


@kernel
def test_without_granted_ids_there_is_ones_own(user: OrdinaryUser, oci: OciCommand) -> None:
    user.grant(0)
    assert oci.output("a", "id -u; wc -l < /proc/self/uid_map; cat /proc/self/setgroups").split() == ["0", "1", "deny"]


@kernel
def test_ids_that_are_not_granted_are_refused_by_their_keeper(user: OrdinaryUser, oci: OciCommand) -> None:
    bundle = oci.bundle("a", "true")
    user.grant(1000)
    refused = oci.attempt("run", "--bundle", str(bundle), "a")
    assert refused.returncode == 1
    assert "linux.uidMappings" in refused.stderr
    assert "not allowed" in refused.stderr
    assert "/etc/subuid" in refused.stderr


@kernel
@pytest.mark.parametrize(
    ("member", "said"),
    [
        ("namespaces", "linux.namespaces: an ordinary user's container needs a user namespace"),
        ("uidMappings", f"linux.uidMappings: does not map 0 to {UID}, who calls"),
    ],
)
def test_what_an_ordinary_user_cannot_have_is_refused(oci: OciCommand, member: str, said: str) -> None:
    def edit(config: Config) -> None:
        linux = config["linux"]
        if member == "namespaces":
            linux["namespaces"] = [each for each in linux["namespaces"] if each["type"] != "user"]
            linux["uidMappings"] = linux["gidMappings"] = []
        else:
            linux["uidMappings"] = [{"containerID": 0, "hostID": FIRST_SUBID, "size": 10}]

    assert said in oci.run("a", "true", edit=edit).stderr
    assert oci("list", "--quiet") == ""


@kernel
@on_v1
def test_limits_are_refused_where_no_cgroup_is_delegated(oci: OciCommand) -> None:
    def edit(config: Config) -> None:
        config["linux"]["resources"] = {"pids": {"limit": 10}, "devices": [{"allow": False, "access": "rwm"}]}

    refused = oci.run("a", "true", edit=edit).stderr
    assert "linux.resources: no cgroup is delegated to this user" in refused
    assert "pids.max" in refused


@kernel
@on_v2
def test_a_delegated_subtree_limits(user: OrdinaryUser, layer: Path) -> None:
    assert _LAYOUT.unified is not None
    delegated = _LAYOUT.unified / f"pyswarm-user-{os.getpid()}"
    (delegated / "own").mkdir(parents=True)
    try:
        for folder, names in ((_LAYOUT.unified, ("+pids", "+memory")), (delegated, ())):
            for name in names:
                (folder / "cgroup.subtree_control").write_text(name)
        for folder in (delegated, delegated / "own"):
            for name in ("", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"):
                os.chown(folder / name, UID, UID)
        oci = command_of(user, layer, user.prefix(cgroup=delegated / "own"))

        def edit(config: Config) -> None:
            config["linux"]["resources"] = {"pids": {"limit": 10}, "memory": {"limit": 64 << 20}}

        oci.start("a", "sleep", "1000", edit=edit)
        (folder,) = delegated.glob("pyswarm-oci/a")
        assert (folder / "pids.max").read_text() == "10\n"
        assert (folder / "cgroup.procs").read_text().split() == [str(oci.state("a")["pid"])]
        oci("pause", "a")
        assert oci.state("a")["status"] == "paused"
        oci("delete", "--force", "a")
        assert not (delegated / "pyswarm-oci").exists()
    finally:
        (delegated / "own").rmdir()
        delegated.rmdir()


@kernel
def test_a_user_without_a_place_for_state_is_told_so(user: OrdinaryUser, oci: OciCommand) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "XDG_RUNTIME_DIR"}
    told = oci.attempt("list", env=environment, root=False)
    assert "XDG_RUNTIME_DIR is not set" in told.stderr
    place = user.folder / "run"
    assert oci.attempt("list", env={**environment, "XDG_RUNTIME_DIR": str(place)}, root=False).returncode == 0


def test_our_own_cgroup_is_read_from_the_unified_hierarchys_line() -> None:
    assert own_path(["4:memory:/x", "0::/user.slice/a.scope"]) == "/user.slice/a.scope"
    assert own_path(["4:memory:/x"]) == "/"


def test_rules_for_devices_are_no_limits() -> None:
    assert asked_for(Resources(devices=(DeviceRule(),))) == []
    assert asked_for(Resources(pids=PidsLimit(3))) == ["pids.max"]


def test_a_rootless_example_asks_for_nothing_that_is_refused() -> None:
    spec = rootless_spec(Spec())
    assert [each.type for each in spec.linux.namespaces] == ["user"]
    assert (spec.linux.uid_mappings[0].container_id, spec.linux.uid_mappings[0].host_id) == (0, os.getuid())
    assert asked_for(spec.linux.resources) == []
