"""Overlays and bind sources that are mounted nowhere, by the new way and by the one for older kernels."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pyswarm.agent_runtime.kernel import mounts
from pyswarm.agent_runtime.kernel import numbers as n
from pyswarm.agent_runtime.kernel.rootfs_files import read_file, write_files

pytestmark = pytest.mark.kernel

Overlay = Callable[[list[Path], Path, Path, Path], int]


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for name in ("low", "high", "upper", "work", "point"):
        (tmp_path / name).mkdir()
    (tmp_path / "low/both").write_text("low")
    (tmp_path / "low/only-low").write_text("low")
    (tmp_path / "high/both").write_text("high")
    return tmp_path


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda low, up, work, at: mounts.overlay(low, up, work, at=at), id="as this kernel can"),
        pytest.param(mounts._overlay_picked_up, id="as kernels before 6.5 must"),
    ],
)
def test_layers_are_stacked_and_nothing_is_mounted_on_the_machine(folders: Path, make: Overlay) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    root = make([folders / "low", folders / "high"], folders / "upper", folders / "work", folders / "point")
    try:
        assert Path("/proc/self/mountinfo").read_text() == before
        assert (read_file(root, "both"), read_file(root, "only-low")) == ("high", "low")
        write_files(root, "/", {"new": "mine"})
        assert (folders / "upper/new").read_text() == "mine"
        assert not (folders / "low/new").exists()
    finally:
        os.close(root)


def test_many_layers_fit(folders: Path) -> None:
    layers = []
    for number in range(60):
        layers.append(folders / f"a-rather-long-name-of-a-layer-{number:0100d}")
        layers[-1].mkdir()
        (layers[-1] / f"f{number}").write_text(str(number))
    for make in (mounts.overlay, mounts._overlay_picked_up):
        arguments = (layers, folders / "upper", folders / "work")
        root = make(*arguments, at=folders / "point") if make is mounts.overlay else make(*arguments, folders / "point")
        try:
            assert (read_file(root, "f0"), read_file(root, "f59")) == ("0", "59")
        finally:
            os.close(root)


def test_a_read_only_tree_cannot_be_written_and_its_source_still_can(folders: Path) -> None:
    tree = mounts.clone_tree(folders / "low")
    try:
        mounts.set_attributes(tree, n.MOUNT_ATTR_RDONLY)
        with pytest.raises(OSError, match="Read-only"):
            os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=tree)
        (folders / "low/new").write_text("x")
    finally:
        os.close(tree)


def test_mounts_below_a_directory_are_found(folders: Path) -> None:
    assert mounts.mounts_below(folders) == []
    assert Path("/sys/fs/cgroup") in mounts.mounts_below(Path("/sys"))
