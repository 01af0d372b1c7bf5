"""Files of an image are read and written inside the image, whatever links it holds."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyswarm.agent_runtime.kernel.rootfs_files import LARGEST_READ_BYTES, make_directory, read_file, write_files


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "rootfs/etc").mkdir(parents=True)
    (tmp_path / "secret").write_text("outside")
    descriptor = os.open(tmp_path / "rootfs", os.O_PATH)
    yield descriptor
    os.close(descriptor)


def test_a_file_is_read(root: int, tmp_path: Path) -> None:
    (tmp_path / "rootfs/etc/passwd").write_text("root:x:0:0:::\n")
    assert read_file(root, "/etc/passwd") == "root:x:0:0:::\n"


@pytest.mark.parametrize("target", ["../../secret", "/../../secret", "/proc/self/root/etc/passwd", "loop"])
def test_a_link_never_leads_outside(root: int, tmp_path: Path, target: str) -> None:
    (tmp_path / "rootfs/etc/loop").symlink_to("loop")
    (tmp_path / "rootfs/etc/passwd").symlink_to(target)
    assert read_file(root, "/etc/passwd") == ""


def test_an_absolute_link_leads_to_the_images_own_file(root: int, tmp_path: Path) -> None:
    (tmp_path / "rootfs/real").write_text("inside")
    (tmp_path / "rootfs/etc/passwd").symlink_to("/real")
    assert read_file(root, "/etc/passwd") == "inside"


def test_a_fifo_or_directory_counts_as_empty_and_does_not_block(root: int, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "rootfs/etc/passwd")
    (tmp_path / "rootfs/etc/group").mkdir()
    assert read_file(root, "/etc/passwd") == read_file(root, "/etc/group") == read_file(root, "/none") == ""


def test_an_endless_file_is_refused(root: int, tmp_path: Path) -> None:
    (tmp_path / "rootfs/etc/passwd").touch()
    os.truncate(tmp_path / "rootfs/etc/passwd", LARGEST_READ_BYTES + 1)
    with pytest.raises(OSError, match="larger"):
        read_file(root, "/etc/passwd")


def test_writing_replaces_a_link_instead_of_following_it(root: int, tmp_path: Path) -> None:
    (tmp_path / "rootfs/etc/hosts").symlink_to("../../secret")
    write_files(root, "/etc", {"hosts": "new"})
    assert (tmp_path / "secret").read_text() == "outside"
    assert (tmp_path / "rootfs/etc/hosts").read_text() == "new"


def test_directories_on_the_way_are_made_inside(root: int, tmp_path: Path) -> None:
    (tmp_path / "rootfs/var").symlink_to("/../../elsewhere")
    (tmp_path / "rootfs/elsewhere").mkdir()
    os.close(make_directory(root, "/var/a/b"))
    assert (tmp_path / "rootfs/elsewhere/a/b").is_dir()
    assert not (tmp_path / "elsewhere").exists()
