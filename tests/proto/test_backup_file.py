"""A backup opens whole with its own key, or not at all."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyswarm.proto.backup_facts import BackupFacts
from pyswarm.proto.backup_file import (
    KEY_PREFIX,
    BackupReader,
    BackupUnreadable,
    BackupWriter,
    new_key,
    parse_key,
)
from pyswarm.proto.errors import InvalidArgument

KEY = parse_key(new_key())
FACTS = BackupFacts("cluster1", 42, 1000.5, "0.1.0")
PIECES = [b"one", b"", b"three" * 1000]


def written(directory: Path) -> Path:
    path = directory / "backup"
    writer = BackupWriter(path, KEY, FACTS)
    for piece in PIECES:
        writer.add(piece)
    writer.finish()
    return path


def read(path: Path, key: bytes = KEY) -> tuple[BackupFacts, list[bytes]]:
    with BackupReader(path, key) as backup:
        return backup.facts, list(backup.pieces())


def test_what_was_written_is_read(tmp_path: Path):
    path = written(tmp_path)
    assert read(path) == (FACTS, PIECES)
    assert path.stat().st_mode & 0o7777 == 0o600
    assert b"cluster1" not in path.read_bytes()


def test_another_key_opens_nothing(tmp_path: Path):
    with pytest.raises(BackupUnreadable, match="another key"):
        read(written(tmp_path), parse_key(new_key()))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return written(tmp_path_factory.mktemp("whole")).read_bytes()


@settings(max_examples=150, deadline=None)
@given(cut=st.integers(0, 5400))
def test_a_file_that_is_cut_anywhere_is_refused(whole: bytes, tmp_path_factory: pytest.TempPathFactory, cut: int):
    path = tmp_path_factory.getbasetemp() / "cut"
    path.write_bytes(whole[: min(cut, len(whole) - 1)])
    with pytest.raises(BackupUnreadable):
        read(path)


@settings(max_examples=150, deadline=None)
@given(place=st.integers(0, 5100), bit=st.integers(0, 7))
def test_a_flipped_bit_is_never_read_over(whole: bytes, tmp_path_factory: pytest.TempPathFactory, place: int, bit: int):
    damaged = bytearray(whole)
    damaged[place % len(whole)] ^= 1 << bit
    path = tmp_path_factory.getbasetemp() / "flipped"
    path.write_bytes(damaged)
    with pytest.raises(BackupUnreadable):
        read(path)


def test_a_backup_that_is_given_up_leaves_nothing_and_the_old_one_stays(tmp_path: Path):
    path = written(tmp_path)
    before = path.read_bytes()
    writer = BackupWriter(path, KEY, FACTS)
    writer.add(b"half")
    writer.abort()
    assert (list(tmp_path.iterdir()), path.read_bytes()) == ([path], before)


@pytest.mark.parametrize("text", ["", "hunter2", KEY_PREFIX, KEY_PREFIX + "abc", KEY_PREFIX + "!" * 52])
def test_what_is_no_key_is_refused(text: str):
    with pytest.raises(InvalidArgument, match="not the key of a backup"):
        parse_key(text)
