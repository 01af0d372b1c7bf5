"""Cgroups in every version: what is written where. Plain files stand in for cgroupfs where only that matters."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pyswarm.agent_runtime.kernel import cgroup_layout
from pyswarm.agent_runtime.kernel.cgroup_layout import Layout, parse_mountinfo
from pyswarm.agent_runtime.kernel.cgroup_limits import Limits, counter, v1_changes, v1_settings, v2_changes, v2_settings
from pyswarm.agent_runtime.kernel.cgroups import Cgroups
from pyswarm.proto.errors import FailedPrecondition

MIB = 1024 * 1024


def mount_line(point: str, kind: str, options: str) -> str:
    return f"25 20 0:22 / {point} rw,relatime shared:9 - {kind} {kind} rw,{options}"


V1 = [
    mount_line("/cg/cpu", "cgroup", "cpu,cpuacct"),
    mount_line("/cg/memory", "cgroup", "memory"),
    mount_line("/cg/pids", "cgroup", "pids"),
    mount_line("/cg/devices", "cgroup", "devices"),
    mount_line("/cg/freezer", "cgroup", "freezer"),
    mount_line("/cg/systemd", "cgroup", "name=systemd"),
    mount_line("/", "ext4", "errors=remount-ro"),
]
V2 = [mount_line("/cg", "cgroup2", "nsdelegate")]


@pytest.mark.parametrize(
    ("lines", "controllers", "version", "hierarchies"),
    [
        pytest.param(V1, [], "v1", ["/cg/cpu", "/cg/memory", "/cg/pids", "/cg/devices", "/cg/freezer"], id="v1"),
        pytest.param(V2, ["cpu", "memory", "pids", "io"], "v2", ["/cg"], id="v2"),
        pytest.param(
            [*V1, mount_line("/cg/unified", "cgroup2", "x")],
            [],
            "hybrid",
            ["/cg/cpu", "/cg/memory", "/cg/pids", "/cg/devices", "/cg/unified"],
            id="hybrid: v2 freezes and kills",
        ),
        pytest.param(
            [*V1[:1], *V1[3:], mount_line("/cg/unified", "cgroup2", "x")],
            ["memory", "pids"],
            "hybrid",
            ["/cg/cpu", "/cg/devices", "/cg/unified"],
            id="some controllers in v2",
        ),
    ],
)
def test_the_layout_is_read_from_the_mount_table(
    lines: list[str], controllers: list[str], version: str, hierarchies: list[str]
) -> None:
    layout = parse_mountinfo(lines, v2_controllers=controllers)
    assert layout.version == version
    assert [str(path) for path in layout.hierarchies] == hierarchies


def test_a_machine_without_a_needed_controller_is_refused_by_name() -> None:
    with pytest.raises(FailedPrecondition, match="memory"):
        parse_mountinfo(V2, v2_controllers=["cpu", "pids"])


@pytest.mark.parametrize(
    ("nano_cpus", "quota"), [(1_000_000_000, 100_000), (500_000_000, 50_000), (2_500_000_000, 250_000), (1, 1_000)]
)
def test_cpus_become_quota_over_period(nano_cpus: int, quota: int) -> None:
    v1 = {s.file: s.value for s in v1_settings(Limits(nano_cpus=nano_cpus))}
    assert (v1["cpu.cfs_quota_us"], v1["cpu.cfs_period_us"]) == (str(quota), "100000")
    v2 = {s.file: s.value for s in v2_settings(Limits(nano_cpus=nano_cpus))}
    assert v2["cpu.max"] == f"{quota} 100000"


def test_memory_and_swap_share_one_limit() -> None:
    v1 = [(s.file, s.value) for s in v1_settings(Limits(memory_bytes=64 * MIB)) if s.controller == "memory"]
    # The order matters: the kernel refuses a sum below the limit.
    assert v1 == [("memory.limit_in_bytes", str(64 * MIB)), ("memory.memsw.limit_in_bytes", str(64 * MIB))]
    v2 = {s.file: s.value for s in v2_settings(Limits(memory_bytes=64 * MIB))}
    assert (v2["memory.max"], v2["memory.swap.max"]) == (str(64 * MIB), "0")


def test_devices_are_denied_before_some_are_allowed() -> None:
    rules = [(s.file, s.value) for s in v1_settings(Limits()) if s.controller == "devices"]
    assert rules[0] == ("devices.deny", "a")
    assert ("devices.allow", "c 1:3 rwm") in rules
    assert not any(value.startswith("b ") and value != "b *:* m" for _, value in rules)


def test_counters_are_found_by_their_whole_name() -> None:
    assert counter("oom 3\noom_kill 2\noom_group_kill 1\n", "oom_kill") == 2
    assert counter("oom_kill_disable 0\nunder_oom 0\n", "oom_kill") == 0


@pytest.fixture
def v2(tmp_path: Path) -> Cgroups:
    """A v2 hierarchy of plain files, with what the kernel would put into each directory."""
    root = tmp_path / "cgroup2"
    for folder in (root, root / "lab", root / "lab/pyswarm", root / "lab/pyswarm/box"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cgroup.subtree_control").write_text("")
        (folder / "cgroup.controllers").write_text("cpu memory pids")
    for name in (
        "pids.max",
        "memory.max",
        "memory.swap.max",
        "cpu.max",
        "cgroup.procs",
        "cgroup.kill",
        "cgroup.freeze",
    ):
        (root / "lab/pyswarm/box" / name).write_text("")
    (root / "lab/pyswarm/box/cgroup.events").write_text("populated 1\nfrozen 1\n")
    return Cgroups(Layout({}, root), "lab/pyswarm")


def test_v2_controllers_are_handed_down_from_the_root_to_the_parent(v2: Cgroups) -> None:
    v2.prepare()
    assert v2.layout.unified
    for folder in ("", "lab", "lab/pyswarm"):
        # Plain files keep the last write only; the kernel adds them up.
        assert (v2.layout.unified / folder / "cgroup.subtree_control").read_text() == "+pids"


def test_v2_limits_are_written_to_the_containers_own_directory(v2: Cgroups) -> None:
    v2.create("box", Limits(nano_cpus=1_500_000_000, memory_bytes=32 * MIB, pids=10))
    assert v2.layout.unified
    folder = v2.layout.unified / "lab/pyswarm/box"
    assert (folder / "memory.max").read_text() == str(32 * MIB)
    assert (folder / "memory.swap.max").read_text() == "0"
    assert (folder / "pids.max").read_text() == "10"
    assert (folder / "cpu.max").read_text() == "150000 100000"
    assert (v2.attach_files("box"), v2.birthplace("box")) == ([], folder)


def test_v2_kernels_without_swap_accounting_are_fine(v2: Cgroups) -> None:
    assert v2.layout.unified
    (v2.layout.unified / "lab/pyswarm/box/memory.swap.max").unlink()
    v2.create("box", Limits(memory_bytes=32 * MIB))


def test_v2_kills_and_freezes_with_one_write(v2: Cgroups) -> None:
    v2.kill("box")
    v2.freeze("box", frozen=True)
    assert v2.layout.unified
    assert (v2.layout.unified / "lab/pyswarm/box/cgroup.kill").read_text() == "1"
    assert (v2.layout.unified / "lab/pyswarm/box/cgroup.freeze").read_text() == "1"


def test_v2_io_is_counted_where_there_is_such_a_controller(v2: Cgroups) -> None:
    assert v2.layout.unified
    (v2.layout.unified / "cgroup.controllers").write_text("cpu io memory pids")
    v2.prepare()
    assert (v2.layout.unified / "lab/pyswarm/cgroup.subtree_control").read_text() == "+io"


def test_memory_never_exceeds_memory_and_swap_while_limits_change() -> None:
    def order(old: int, new: int) -> list[tuple[str, str]]:
        changes = v1_changes(Limits(memory_bytes=old), Limits(memory_bytes=new))
        return [(s.file.removeprefix("memory."), s.value) for s in changes]

    assert order(10, 5) == [("limit_in_bytes", "5"), ("memsw.limit_in_bytes", "5")]
    assert order(0, 5) == [("limit_in_bytes", "5"), ("memsw.limit_in_bytes", "5")]
    assert order(5, 10) == [("memsw.limit_in_bytes", "10"), ("limit_in_bytes", "10")]
    assert order(5, 0) == [("memsw.limit_in_bytes", "-1"), ("limit_in_bytes", "-1")]
    assert order(5, 5) == []


def test_a_limit_that_is_taken_away_is_written_as_none() -> None:
    old = Limits(nano_cpus=10**9, memory_bytes=MIB, pids=3)
    v2 = {s.file: s.value for s in v2_changes(old, Limits())}
    assert v2 == {"pids.max": "4096", "memory.max": "max", "memory.swap.max": "max", "cpu.max": "max 100000"}
    v1 = {s.file: s.value for s in v1_changes(old, Limits())}
    assert (v1["pids.max"], v1["cpu.cfs_quota_us"]) == ("4096", "-1")


def test_v2_reports_oom_kills_from_memory_events(v2: Cgroups) -> None:
    assert v2.oom_kills("box") == 0
    assert v2.layout.unified
    (v2.layout.unified / "lab/pyswarm/box/memory.events").write_text("low 0\noom 2\noom_kill 1\n")
    assert v2.oom_kills("box") == 1


@pytest.mark.parametrize("parent", ["", "/abs", "../up", "a/../../b"])
def test_a_parent_outside_of_the_hierarchy_is_refused(parent: str, tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="cgroup-parent"):
        Cgroups(Layout({}, tmp_path), parent).prepare()


@pytest.mark.kernel
def test_on_this_machine_a_cgroup_is_made_joined_frozen_killed_and_removed() -> None:
    cgroups = Cgroups(cgroup_layout.detect(), f"pyswarm-test-cg-{os.getpid()}")
    cgroups.prepare()
    try:
        cgroups.create("box", Limits(nano_cpus=10**9, memory_bytes=64 * MIB, pids=5))
        cgroups.create("box", Limits(memory_bytes=32 * MIB))  # again: what was left behind is taken over
        assert cgroups.names() == {"box"}
        process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        for path in [*cgroups.attach_files("box"), *filter(None, [cgroups.birthplace("box")])]:
            (path / "cgroup.procs" if path.is_dir() else path).write_text(str(process.pid))
        assert cgroups.processes("box") == {process.pid}
        with pytest.raises(OSError):
            (cgroups.layout.hierarchies[0] / cgroups.parent / "box").rmdir()
        assert not cgroups.try_remove("box"), "a process is in it"
        cgroups.freeze("box", frozen=True)
        cgroups.freeze("box", frozen=False)
        cgroups.kill("box")
        assert process.wait(10) == -9
        cgroups.remove("box")
        cgroups.remove("box")
        assert cgroups.try_remove("box"), "there is nothing to remove"
        cgroups.create("box", Limits())
        assert cgroups.try_remove("box")
        assert cgroups.names() == set()
        assert cgroups.oom_kills("box") == 0
        assert cgroups.processes("box") == set()
    finally:
        for top in cgroups.layout.hierarchies:
            (top / cgroups.parent).rmdir()
