"""Directories of unrelated things say so where the file system wants to know, and are left alone elsewhere."""

import subprocess
from pathlib import Path

import pytest

from pyswarm.agent_runtime.container.state_directory import StateDirectory
from pyswarm.agent_runtime.kernel.top_directory import mark_top_directory


def attributes(folder: Path) -> str:
    """Return the letters that chattr has for a directory."""
    return subprocess.run(["lsattr", "-d", str(folder)], check=True, capture_output=True, text=True).stdout.split()[0]


def file_system(folder: Path) -> str:
    return subprocess.run(
        ["stat", "--file-system", "--format=%T", str(folder)], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_a_directory_on_ext4_is_marked_once_and_keeps_what_else_it_says(tmp_path: Path) -> None:
    if file_system(tmp_path) != "ext2/ext3":
        pytest.skip("temporary files are not on ext4")
    subprocess.run(["chattr", "+d", str(tmp_path)], check=True)
    assert "T" not in attributes(tmp_path)
    assert mark_top_directory(tmp_path)
    assert mark_top_directory(tmp_path)
    assert {"T", "d"} <= set(attributes(tmp_path))


def test_a_file_system_without_block_groups_is_left_as_it_is() -> None:
    assert not mark_top_directory(Path("/proc"))


def test_containers_are_unrelated_to_each_other(tmp_path: Path) -> None:
    if file_system(tmp_path) != "ext2/ext3":
        pytest.skip("temporary files are not on ext4")
    StateDirectory(tmp_path / "containers").prepare()
    assert "T" in attributes(tmp_path / "containers")
