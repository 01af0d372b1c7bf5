"""Snapshots on disk: complete, verified and synced, or as if they had never been begun."""

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyswarm.manager.raft.commands import NOOP_COMMAND
from pyswarm.manager.raft.disk import RealDisk
from pyswarm.manager.raft.pace import Pace
from pyswarm.manager.raft.port import Member
from pyswarm.manager.raft.snapshots import RaftSnapshotDamaged, SnapshotHeader, SnapshotStore
from pyswarm.manager.sealing.sealer import Sealer

SEALER = Sealer(b"d" * 32)
PIECES = [b"one" * 100, b"two", b"three" * 50]


def header(index: int) -> SnapshotHeader:
    members = (Member("raft-1", "node-1", "a:1", "a:2"),)
    return SnapshotHeader((NOOP_COMMAND, index - 1, 1), (NOOP_COMMAND, index, 1), members)


def store(directory: Path, disk: RealDisk | None = None) -> SnapshotStore:
    made = SnapshotStore(directory, SEALER, disk=disk or RealDisk())
    made.prepare()
    return made


def read(directory: Path) -> tuple[int, list[bytes]]:
    found = store(directory).open_newest()
    assert found is not None
    newest, reader = found
    try:
        return newest.index, list(reader.pieces())
    finally:
        reader.close()


def test_a_newer_snapshot_replaces_an_older_one(tmp_path: Path) -> None:
    store(tmp_path).write(header(5), PIECES)
    store(tmp_path).write(header(9), PIECES[:1])
    assert read(tmp_path) == (9, PIECES[:1])
    assert len(list(tmp_path.iterdir())) == 1


def test_a_snapshot_that_cannot_be_read_again_replaces_nothing(tmp_path: Path) -> None:
    class Lying(RealDisk):
        def write(self, descriptor: int, data: bytes | bytearray, offset: int) -> None:
            altered = bytearray(data)
            altered[-20] ^= 1
            super().write(descriptor, altered, offset)

    store(tmp_path).write(header(5), PIECES)
    with pytest.raises(RaftSnapshotDamaged, match="byte"):
        store(tmp_path, Lying()).write(header(9), PIECES)
    assert read(tmp_path) == (5, PIECES)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_write_that_fails_leaves_the_older_one(tmp_path: Path) -> None:
    class Full(RealDisk):
        def write(self, descriptor: int, data: bytes | bytearray, offset: int) -> None:
            raise OSError(28, "No space left on device")

    store(tmp_path).write(header(5), PIECES)
    with pytest.raises(OSError, match="No space"):
        store(tmp_path, Full()).write(header(9), PIECES)
    assert read(tmp_path) == (5, PIECES)


def test_what_a_crash_left_aside_is_removed(tmp_path: Path) -> None:
    writer = store(tmp_path).new_writer(header(5))
    assert list(tmp_path.iterdir())
    store(tmp_path)
    assert list(tmp_path.iterdir()) == []
    writer.abort()


@given(st.data())
def test_no_altered_byte_goes_unnoticed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    directory = tmp_path_factory.mktemp("snapshot")
    store(directory).write(header(5), PIECES)
    (path,) = directory.iterdir()
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[at] ^= data.draw(st.integers(1, 255))
    else:
        del content[at:]
    path.write_bytes(content)
    with pytest.raises(RaftSnapshotDamaged) as refused:
        read(directory)
    assert refused.value.remedy


def test_a_hurried_pace_rests_no_more() -> None:
    pace = Pace(share=0.000_000_1)
    pace.begin()
    pace.hurry()
    worker = threading.Thread(target=_work, args=(pace,))
    worker.start()
    worker.join(10)
    assert not worker.is_alive()


def test_a_rest_ends_as_soon_as_somebody_hurries() -> None:
    pace = Pace(share=0.000_000_1)
    worker = threading.Thread(target=_work, args=(pace,))
    worker.start()
    pace.hurry()
    worker.join(10)
    assert not worker.is_alive()


def _work(pace: Pace) -> None:
    pace.begin()
    for number in range(200):
        sum(range(number * 50))
        pace.rest()
