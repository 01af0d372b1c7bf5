"""Whatever happens to the bytes on disk, the log gives back a prefix of what was synced, or refuses."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pyswarm.manager.raft.disk import RealDisk
from pyswarm.manager.raft.wal import JournalDamaged, Wal
from pyswarm.manager.sealing.sealer import Sealer

SEALER = Sealer(b"d" * 32)
SEGMENT_BYTES = 4096
SECTOR_BYTES = 512
HEADER_BYTES = 80
FRAME_BYTES = 48
"""What a frame takes besides its content."""

contents = st.lists(st.integers(1, 1500), min_size=1, max_size=8).map(
    lambda sizes: [bytes([number + 1]) * size for number, size in enumerate(sizes)]
)


@dataclass(frozen=True)
class Written:
    directory: Path
    contents: list[bytes]

    @property
    def segments(self) -> list[Path]:
        return sorted(self.directory.glob("*.wal"))

    def read(self) -> list[bytes]:
        return [content for _, content in Wal(self.directory, SEALER, segment_bytes=SEGMENT_BYTES).recover()]


@contextmanager
def written(contents: list[bytes]) -> Iterator[Written]:
    """A log as a crash leaves it: the last segment keeps the room that was reserved."""
    with tempfile.TemporaryDirectory() as name:
        log = Wal(Path(name), SEALER, segment_bytes=SEGMENT_BYTES)
        assert list(log.recover()) == []
        for mark, content in enumerate(contents, start=1):
            log.append(content, mark)
        yield Written(Path(name), contents)


def place_of_last(contents: list[bytes]) -> tuple[int, int]:
    """Return where the last frame begins and ends in the last segment."""
    start = end = HEADER_BYTES
    for content in contents:
        size = FRAME_BYTES + len(content)
        start = end if end + size <= SEGMENT_BYTES else HEADER_BYTES
        end = start + size
    return start, end


def outcome(log: Written) -> tuple[list[bytes], JournalDamaged | None]:
    """Return what reading gives, or why it was refused."""
    try:
        return log.read(), None
    except JournalDamaged as refusal:
        return [], refusal


@given(contents, st.data())
def test_a_flipped_bit_is_refused_or_lies_where_nothing_was_written(sizes: list[bytes], data: st.DataObject) -> None:
    with written(sizes) as log:
        segment = data.draw(st.sampled_from(log.segments))
        damaged = bytearray(segment.read_bytes())
        bit = data.draw(st.integers(0, len(damaged) * 8 - 1))
        damaged[bit // 8] ^= 1 << bit % 8
        segment.write_bytes(damaged)
        found, refusal = outcome(log)
        if refusal is None:
            assert found in (log.contents, log.contents[:-1])
        else:
            assert ".wal" in str(refusal)
            assert refusal.remedy


@given(contents, st.data())
def test_a_truncated_file_gives_a_prefix_or_a_refusal(sizes: list[bytes], data: st.DataObject) -> None:
    with written(sizes) as log:
        segment = data.draw(st.sampled_from(log.segments))
        kept = segment.read_bytes()
        segment.write_bytes(kept[: data.draw(st.integers(0, len(kept)))])
        found, _ = outcome(log)
        assert found == log.contents[: len(found)]


@given(contents, st.integers(1, 3000), st.data())
def test_a_write_that_a_power_cut_tore_is_cut_and_never_refused(
    sizes: list[bytes], torn: int, data: st.DataObject
) -> None:
    with written([*sizes, b"\xa5" * torn]) as log:
        segment = log.segments[-1]
        image = bytearray(segment.read_bytes())
        start, end = place_of_last(log.contents)
        sectors = range(start // SECTOR_BYTES, (end - 1) // SECTOR_BYTES + 1)
        lost = data.draw(st.sets(st.sampled_from(sectors), min_size=1))
        for sector in lost:
            low, high = max(start, sector * SECTOR_BYTES), min(end, (sector + 1) * SECTOR_BYTES)
            image[low:high] = bytes(high - low)
        # Bytes that were zeros anyway are no loss.
        assume(image != segment.read_bytes())
        segment.write_bytes(image)
        assert log.read() == log.contents[:-1]
        assert log.read() == log.contents[:-1], "what was cut stays cut"


@given(st.binary(max_size=3000), st.integers(1, 3))
def test_foreign_bytes_never_raise_anything_but_a_refusal(foreign: bytes, number: int) -> None:
    with written([b"one"]) as log:
        (log.directory / f"{number:012d}.wal").write_bytes(foreign)
        assert outcome(log)[0] in ([b"one"], [])


def test_a_segment_of_another_branch_of_the_same_journal_is_refused(tmp_path: Path) -> None:
    """As after a disk was put back to an earlier image: same key, same numbers, another history."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for directory, text in ((ours, b"ours"), (theirs, b"else")):
        log = Wal(directory, SEALER, segment_bytes=256)
        assert list(log.recover()) == []
        for mark in range(1, 4):
            log.append(text * 40, mark)
    names = [path.name for path in sorted(ours.glob("*.wal"))]
    assert len(names) == 3
    (ours / names[1]).write_bytes((theirs / names[1]).read_bytes())
    with pytest.raises(JournalDamaged, match="does not continue"):
        list(Wal(ours, SEALER, segment_bytes=256).recover())


def test_what_a_killed_process_left_unsynced_is_synced_before_it_is_relied_on(tmp_path: Path) -> None:
    synced: list[str] = []

    class Watched(RealDisk):
        def sync(self, descriptor: int) -> None:
            synced.append("file")
            super().sync(descriptor)

        def sync_directory(self, path: Path) -> None:
            synced.append("directory")
            super().sync_directory(path)

    log = Wal(tmp_path, SEALER, segment_bytes=SEGMENT_BYTES)
    assert list(log.recover()) == []
    log.append(b"one", 1)
    again = Wal(tmp_path, SEALER, segment_bytes=SEGMENT_BYTES, disk=Watched())
    assert [content for _, content in again.recover()] == [b"one"]
    assert synced == ["file", "directory"]
