"""Archives of random damage: they are extracted or refused, never anything else, and touch nothing around.

`make fuzz EXAMPLES=n` runs many more of them than `make test`.
"""

import io
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lib.oci_images import entry, folder, hard_link, layer_tar, symlink

from pyswarm.agent_runtime.image.beneath import BadLayer
from pyswarm.agent_runtime.image.extract import extract

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "100"))
BLOCK = 512
SEEDS = [
    layer_tar(folder("d"), entry("d/file", b"x" * 700, mode=0o4755), symlink("d/link", "../../outside")),
    layer_tar(entry("a", b"y"), hard_link("b", "a"), entry("p", kind=tarfile.FIFOTYPE), entry(".wh.a")),
    layer_tar(entry("long/" * 40 + "name", b"z", headers={"SCHILY.xattr.user.note": "words", "path": "other"})),
]
# Where the header of an entry has its name, mode, ids, size, checksum, kind, link and magic.
FIELDS = st.sampled_from([0, 100, 108, 116, 124, 136, 148, 156, 157, 257, 329, 345])

Damage = tuple[int, bytes]


def damages() -> st.SearchStrategy[list[Damage]]:
    anywhere = st.integers(0, 6 * BLOCK)
    in_a_field = st.builds(lambda block, field: block * BLOCK + field, st.integers(0, 5), FIELDS)
    digits = st.sampled_from([b"77777777777", b"-0000001", b"\x80" + b"\xff" * 11, b"", b"99999999", b"\xff\xff"])
    return st.lists(st.tuples(anywhere | in_a_field, st.binary(max_size=12) | digits), max_size=6)


def damaged(archive: bytes, changes: list[Damage], cut: int | None, *, mend: bool) -> bytes:
    """Return the archive with bytes overwritten; `mend` makes the checksums of its headers right again."""
    data = bytearray(archive)
    for place, what in changes:
        data[place : place + len(what)] = what
    if mend:
        for at in range(0, len(data) - BLOCK + 1, BLOCK):
            if bytes(data[at + 257 : at + 262]) == b"ustar":
                data[at + 148 : at + 156] = b" " * 8
                data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + BLOCK])
    return bytes(data if cut is None else data[:cut])


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    archive=st.sampled_from(SEEDS),
    changes=damages(),
    cut=st.none() | st.integers(0, 4 * BLOCK),
    mend=st.booleans(),
)
def test_a_damaged_archive_is_extracted_or_refused(
    tmp_path_factory: pytest.TempPathFactory, archive: bytes, changes: list[Damage], cut: int | None, mend: bool
) -> None:
    around = tmp_path_factory.mktemp("around")
    (around / "outside").write_text("untouched")
    (around / "layer").mkdir()
    descriptor = os.open(around / "layer", os.O_RDONLY | os.O_DIRECTORY)
    try:
        extract(io.BytesIO(damaged(archive, changes, cut, mend=mend)), descriptor)
    except BadLayer:
        pass
    finally:
        os.close(descriptor)
    assert sorted(path.name for path in around.iterdir()) == ["layer", "outside"]
    assert (around / "outside").read_text() == "untouched"
    assert (around / "outside").stat().st_nlink == 1


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=4 * BLOCK))
def test_what_is_no_archive_is_refused_or_empty(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("layer")
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        extract(io.BytesIO(data), descriptor)
    except BadLayer:
        pass
    finally:
        os.close(descriptor)
    assert list(Path(folder).iterdir()) == []


def test_the_damage_does_reach_the_archives_headers() -> None:
    whole = SEEDS[0]
    assert damaged(whole, [(100, b"0000000")], None, mend=True) != whole
    with tarfile.open(fileobj=io.BytesIO(damaged(whole, [(0, b"e")], None, mend=True))) as tar:
        assert tar.getnames()[0] == "e"
