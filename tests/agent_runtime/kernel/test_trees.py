"""Trees of dead containers are removed whole and no further, in C and in Python alike."""

import os
from pathlib import Path

import pytest

from pyswarm.agent_runtime.kernel import trees

needs_native = pytest.mark.skipif(not trees.HAS_NATIVE, reason="it was not built: no compiler")
EITHER = pytest.mark.parametrize("native", [False, pytest.param(True, marks=needs_native)])


@EITHER
def test_everything_in_a_tree_is_removed_but_nothing_that_a_link_in_it_shows(tmp_path: Path, native: bool) -> None:
    outside, tree = tmp_path / "outside", tmp_path / "tree"
    (outside / "kept").mkdir(parents=True)
    (tree / "upper/etc/empty").mkdir(parents=True)
    (tree / "upper/etc/hosts").write_text("::1")
    os.mkfifo(tree / "stdout")
    (tree / "upper/link").symlink_to(outside)
    (tree / "dangling").symlink_to("nowhere")
    trees.remove_tree(str(tree), native=native)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside"]
    assert [path.name for path in outside.iterdir()] == ["kept"]


@EITHER
def test_a_directory_of_many_files_is_emptied(tmp_path: Path, native: bool) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(3000):
        (tree / f"a-name-of-some-length-{number}").touch()
    trees.remove_tree(str(tree), native=native)
    assert not tree.exists()


@EITHER
def test_a_tree_deeper_than_any_path_may_be_is_removed(tmp_path: Path, native: bool) -> None:
    tree, name = tmp_path / "tree", "d" * 200
    tree.mkdir()
    at = os.open(tree, os.O_RDONLY)
    for _ in range(80):
        os.mkdir(name, dir_fd=at)
        deeper = os.open(name, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = deeper
    os.close(at)
    trees.remove_tree(str(tree), native=native)
    assert not tree.exists()


@EITHER
@pytest.mark.parametrize(
    ("name", "error"),
    [pytest.param("missing", FileNotFoundError, id="nothing"), pytest.param("file", NotADirectoryError, id="a file")],
)
def test_what_is_no_tree_is_an_error(tmp_path: Path, native: bool, name: str, error: type[OSError]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(error):
        trees.remove_tree(str(tmp_path / name), native=native)
    assert (tmp_path / "file").exists()


@needs_native
def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    (tmp_path / "tree/a/b/c").mkdir(parents=True)
    trees.remove_tree(str(tmp_path / "tree"))
    assert os.listdir("/proc/self/fd") == before
