"""Layers on disk: what they keep, what they hide, and that none of them reaches outside."""

import gzip
import io
import os
import stat
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lib.oci_images import entry, folder, hard_link, layer_tar, symlink

from pyswarm.agent_runtime.image import extract as extract_module
from pyswarm.agent_runtime.image.beneath import DEPTH_MAX, BadLayer
from pyswarm.agent_runtime.image.extract import extract
from pyswarm.agent_runtime.image.layers import LayerStore
from pyswarm.agent_runtime.kernel import mounts

Member = tuple[tarfile.TarInfo, bytes]


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    (tmp_path / "outside").write_text("untouched")
    (tmp_path / "layer").mkdir()
    return tmp_path / "layer"


def unpack(layer: Path, *members: Member) -> None:
    extract_bytes(layer, layer_tar(*members))


def extract_bytes(layer: Path, data: bytes) -> None:
    descriptor = os.open(layer, os.O_RDONLY | os.O_DIRECTORY)
    try:
        extract(io.BytesIO(data), descriptor)
    finally:
        os.close(descriptor)


def test_files_keep_owner_mode_time_and_capabilities(layer: Path) -> None:
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    header = {"SCHILY.xattr.security.capability": capability.decode("utf-8", "surrogateescape")}
    unpack(
        layer,
        folder("./", mode=0o711, owner=(5, 6)),
        folder("d", mode=0o1777, moment=1_000_000_000),
        entry("d/tool", b"run", mode=0o4755, owner=(1000, 2000), headers=header, moment=1_234_567_890),
        symlink("d/link", "/outside"),
        entry("d/pipe", kind=tarfile.FIFOTYPE, mode=0o600),
    )

    found = (layer / "d/tool").stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode), found.st_mtime) == (1000, 2000, 0o4755, 1234567890)
    assert os.getxattr(layer / "d/tool", "security.capability") == capability
    assert ((layer / "d").stat().st_mtime, stat.S_IMODE((layer / "d").stat().st_mode)) == (1_000_000_000, 0o1777)
    assert (layer.stat().st_uid, layer.stat().st_gid, stat.S_IMODE(layer.stat().st_mode)) == (5, 6, 0o711)
    assert (layer / "d/link").readlink() == Path("/outside")
    assert (layer / "d/pipe").is_fifo()


def test_hard_links_share_a_file(layer: Path) -> None:
    unpack(layer, entry("a", b"x"), hard_link("b/c", "a"), hard_link("d", "/b/c"))

    assert (layer / "a").stat().st_nlink == 3


def test_the_last_of_several_entries_counts(layer: Path) -> None:
    unpack(layer, folder("a"), entry("a/b", b"x"), entry("a", b"file"), symlink("c", "a"), folder("c"), entry("c/d"))

    assert (layer / "a").read_text() == "file"
    assert not (layer / "c").is_symlink()
    assert (layer / "c").is_dir()


def test_directories_nobody_mentioned_do_not_depend_on_the_umask(layer: Path) -> None:
    before = os.umask(0o077)
    try:
        unpack(layer, entry("a/b/c"))
    finally:
        os.umask(before)
    assert stat.S_IMODE((layer / "a/b").stat().st_mode) == 0o755


ESCAPES = [
    pytest.param([entry("../outside", b"x")], "outside", id="up"),
    pytest.param([entry("a/../../outside", b"x")], "outside", id="up from below"),
    pytest.param([entry("/outside", b"x")], "outside", id="absolute"),
    pytest.param([symlink("l", ".."), entry("l/outside", b"x")], "outside", id="through a relative link"),
    pytest.param([symlink("a/l", "../.."), entry("a/l/outside", b"x")], "outside", id="through a link further down"),
    pytest.param([symlink("l", "../outside"), entry("l", b"x")], "l", id="over a link"),
    pytest.param([folder("d"), symlink("d", ".."), entry("d/outside", b"x")], "outside", id="a directory replaced"),
    pytest.param([symlink("a", "b"), symlink("b", ".."), entry("a/outside", b"x")], "outside", id="links to links"),
]


@pytest.mark.parametrize(("members", "written"), ESCAPES)
def test_nothing_is_written_outside(layer: Path, members: list[Member], written: str) -> None:
    unpack(layer, *members)

    assert (layer.parent / "outside").read_text() == "untouched"
    assert (layer / written).read_text() == "x", "it is written where the container would see it"


def test_an_absolute_link_stays_inside(layer: Path) -> None:
    unpack(layer, symlink("l", str(layer.parent)), entry("l/outside", b"x"))

    assert (layer.parent / "outside").read_text() == "untouched"


def test_an_opaque_mark_or_whiteout_through_a_link_touches_nothing_outside(layer: Path) -> None:
    victim = layer.parent / "victim"
    victim.mkdir()
    (victim / "file").write_text("untouched")
    unpack(layer, symlink("l", "../victim"), entry("l/.wh.file"), entry("l/.wh..wh..opq"), folder("l/sub", mode=0o777))

    assert (victim / "file").read_text() == "untouched"
    assert os.listdir(victim) == ["file"]
    assert "trusted.overlay.opaque" not in os.listxattr(victim)


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "../../../../../../etc/passwd", "l/outside", "", "."])
def test_a_hard_link_reaches_nothing_outside(layer: Path, target: str) -> None:
    with pytest.raises(BadLayer, match="hard link"):
        unpack(layer, symlink("l", ".."), hard_link("stolen", target))
    assert not (layer / "stolen").exists()


def _deep() -> bytes:
    return layer_tar(entry("/".join("d" * (DEPTH_MAX + 10))))


def _deep_through_links() -> bytes:
    members: list[Member] = []
    for step in range(4):
        here = f"l{step - 1}" if step else "."
        members += [folder(here + "/d" * 100), symlink(f"l{step}", here + "/d" * 100)]
    return layer_tar(*members)


def _huge_header() -> bytes:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 40
    return info.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 14)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"no tar at all" * 100, id="no archive"),
        pytest.param(layer_tar(entry("a", os.urandom(10_000)))[:3000], id="cut off"),
        pytest.param(layer_tar(symlink("a", "b"), symlink("b", "a"), entry("a/c")), id="links in a circle"),
        pytest.param(layer_tar(entry("a"), entry("a/b")), id="a file for a directory"),
        pytest.param(layer_tar(entry("x" * 300)), id="a name too long"),
        pytest.param(layer_tar(entry("a", headers={"path": "a\0b"})), id="no character of names"),
        pytest.param(layer_tar(entry(".wh.")), id="a whiteout of nothing"),
        pytest.param(layer_tar(entry("a", headers={"mtime": "inf"})), id="never"),
        pytest.param(layer_tar(entry("a", headers={"uid": str(1 << 40)})), id="an owner that cannot be"),
        pytest.param(_deep(), id="too deep"),
        pytest.param(_deep_through_links(), id="too deep through links"),
        pytest.param(_huge_header(), id="a header to fill the memory"),
    ],
)
def test_a_broken_layer_is_refused_and_leaves_nothing(tmp_path: Path, data: bytes) -> None:
    blob = tmp_path / "blob"
    blob.write_bytes(data)
    digest = f"sha256:{'0' * 64}"

    with pytest.raises(BadLayer):
        LayerStore(tmp_path / "layers").unpack(blob, digest, digest)
    assert os.listdir(tmp_path / "layers") == []


@pytest.mark.parametrize("end", [-1, -9, 100])
def test_compression_that_ends_early_is_refused(tmp_path: Path, end: int) -> None:
    blob = tmp_path / "blob"
    blob.write_bytes(gzip.compress(layer_tar(entry("a", os.urandom(10_000))))[:end])
    digest = f"sha256:{'0' * 64}"

    with pytest.raises(BadLayer):
        LayerStore(tmp_path / "layers").unpack(blob, digest, digest)


def test_more_bytes_or_entries_than_allowed_are_refused(layer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract_module, "ENTRIES_MAX", 2)
    with pytest.raises(BadLayer):
        unpack(layer, entry("a"), entry("b"), entry("c"))
    monkeypatch.setattr(extract_module, "BYTES_MAX", 10)
    with pytest.raises(BadLayer):
        unpack(layer, entry("a", b"12345678901"))


NAMES = st.sampled_from(["a", "b", "l", "..", "../..", "/", ".", "outside", ".wh.a", ".wh.outside", ".wh..wh..opq"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
MEMBERS = st.one_of(
    PATHS.map(lambda path: entry(path, b"x", mode=0o777, owner=(7, 7))),
    PATHS.map(lambda path: folder(path, mode=0o777, owner=(7, 7))),
    st.tuples(PATHS, PATHS).map(lambda pair: symlink(*pair)),
    st.tuples(PATHS, PATHS).map(lambda pair: hard_link(*pair)),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(members=st.lists(MEMBERS, max_size=8))
def test_whatever_a_layer_brings_the_rest_of_the_machine_stays(
    tmp_path_factory: pytest.TempPathFactory, members: list[Member]
) -> None:
    around = tmp_path_factory.mktemp("around")
    (around / "outside").write_text("untouched")
    (around / "a").mkdir()
    (around / "layer").mkdir()
    before = _census(around)

    try:
        unpack(around / "layer", *members)
    except BadLayer:
        pass

    assert _census(around) == before


def _census(around: Path) -> list[tuple[object, ...]]:
    found = []
    for path in sorted(around.rglob("*")):
        if (around / "layer") not in path.parents and path != around / "layer":
            facts = path.lstat()
            found.append((path, facts.st_mode, facts.st_uid, facts.st_nlink, facts.st_size, tuple(os.listxattr(path))))
    return found


@pytest.mark.kernel
def test_whiteouts_hide_what_lower_layers_have(tmp_path: Path) -> None:
    lower, upper, top = (tmp_path / name for name in ("lower", "upper", "top"))
    for path in (lower, upper, top, tmp_path / "rw", tmp_path / "work", tmp_path / "at"):
        path.mkdir()
    old = [entry(f"{d}/old") for d in ("gone", "opaque", "replaced", "kept", "implicit", "late")]
    unpack(lower, *old, entry("file", b"lower"), entry("both", b"lower"))
    unpack(
        upper,
        entry(".wh.gone"),
        entry("opaque/.wh..wh..opq"),
        entry("opaque/new"),
        entry(".wh.replaced"),
        folder("replaced"),
        entry("replaced/new"),
        entry(".wh.implicit"),
        entry("implicit/new"),
        entry("late/new"),
        entry(".wh.late"),
        entry("kept/new"),
        entry(".wh.file"),
        entry("both", b"upper"),
        entry(".wh.both"),
        entry(".wh..wh.plnk"),
    )
    unpack(top, entry("file", b"top"))

    tree = mounts.overlay([lower, upper, top], tmp_path / "rw", tmp_path / "work", at=tmp_path / "at")
    try:
        root = Path(f"/proc/self/fd/{tree}")
        files = {path.name: path.read_text() for path in root.iterdir() if path.is_file()}
        directories = {path.name: sorted(os.listdir(path)) for path in root.iterdir() if path.is_dir()}
    finally:
        os.close(tree)

    assert files == {"file": "top", "both": "upper"}, "a whiteout is about lower layers only"
    assert directories == {
        "opaque": ["new"],
        "replaced": ["new"],
        "implicit": ["new"],
        "late": ["new"],
        "kept": ["new", "old"],
    }
