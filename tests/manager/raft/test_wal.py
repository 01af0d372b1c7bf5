"""The write-ahead log: what a crash leaves is taken up, what no crash explains is refused."""

from pathlib import Path

import pytest

from pyswarm.manager.raft.wal import FILL_BYTES, JournalDamaged, Wal
from pyswarm.manager.sealing.sealer import Sealer

SEALER = Sealer(b"d" * 32)
HEADER_BYTES = 80
FRAME_BYTES = 32


def wal(directory: Path, *, segment_bytes: int = 4096) -> Wal:
    return Wal(directory, SEALER, segment_bytes=segment_bytes)


def written(directory: Path, *contents: bytes, segment_bytes: int = 4096) -> Wal:
    """A log that was written after reading what was there, and is left as a crash would leave it."""
    log = wal(directory, segment_bytes=segment_bytes)
    list(log.recover())
    for mark, content in enumerate(contents, start=1):
        log.append(content, mark)
    return log


def read(directory: Path) -> list[bytes]:
    return [content for _, content in wal(directory).recover()]


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.wal"))


def test_what_was_appended_is_read_in_order(tmp_path: Path) -> None:
    written(tmp_path, b"one", b"two", b"three")
    assert read(tmp_path) == [b"one", b"two", b"three"]


def test_a_restart_never_appends_to_an_old_segment(tmp_path: Path) -> None:
    written(tmp_path, b"one")
    written(tmp_path, b"two")
    assert len(segments(tmp_path)) == 2
    assert read(tmp_path) == [b"one", b"two"]


def test_a_frame_larger_than_a_segment_gets_one_of_its_own(tmp_path: Path) -> None:
    large = bytes(10_000)
    written(tmp_path, b"one", large, b"two")
    assert read(tmp_path) == [b"one", large, b"two"]


def test_nothing_readable_is_on_the_disk(tmp_path: Path) -> None:
    written(tmp_path, b"a very secret thing")
    assert b"secret" not in segments(tmp_path)[0].read_bytes()


@pytest.mark.parametrize("kept", range(1, 60, 7))
def test_a_torn_last_frame_is_cut_off(tmp_path: Path, kept: int) -> None:
    written(tmp_path, b"one", b"two" * 10)
    (segment,) = segments(tmp_path)
    data = segment.read_bytes().rstrip(b"\0")
    first = HEADER_BYTES + FRAME_BYTES + len(b"one") + 16
    segment.write_bytes(data[: min(first + kept, len(data) - 1)] + bytes(100))
    assert read(tmp_path) == [b"one"]
    written(tmp_path, b"three")
    assert read(tmp_path) == [b"one", b"three"]


def test_a_segment_whose_header_was_never_synced_is_dropped(tmp_path: Path) -> None:
    written(tmp_path, b"one")
    (tmp_path / "000000000002.wal").write_bytes(bytes(4096))
    assert read(tmp_path) == [b"one"]
    written(tmp_path, b"two")
    assert read(tmp_path) == [b"one", b"two"]


@pytest.mark.parametrize(
    "at", [HEADER_BYTES, HEADER_BYTES + 5, HEADER_BYTES + 12, HEADER_BYTES + 20, HEADER_BYTES + 40]
)
def test_damage_in_the_middle_is_refused(tmp_path: Path, at: int) -> None:
    written(tmp_path, b"one", b"two", b"three")
    (segment,) = segments(tmp_path)
    data = bytearray(segment.read_bytes())
    data[at] ^= 0xFF
    segment.write_bytes(data)
    with pytest.raises(JournalDamaged) as refused:
        read(tmp_path)
    assert "node rm" in refused.value.remedy


def test_damage_at_the_end_of_a_segment_that_others_follow_is_refused(tmp_path: Path) -> None:
    written(tmp_path, b"one", b"two")
    written(tmp_path, b"three")
    segment = segments(tmp_path)[0]
    segment.write_bytes(segment.read_bytes()[:-1])
    with pytest.raises(JournalDamaged):
        read(tmp_path)


def test_a_missing_segment_is_refused(tmp_path: Path) -> None:
    for content in (b"one", b"two", b"three"):
        written(tmp_path, content)
    segments(tmp_path)[1].unlink()
    with pytest.raises(JournalDamaged):
        read(tmp_path)


def test_segments_cannot_be_exchanged(tmp_path: Path) -> None:
    for content in (b"one", b"two"):
        written(tmp_path, content)
    first, second = segments(tmp_path)
    first_data = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(first_data)
    with pytest.raises(JournalDamaged):
        read(tmp_path)


def test_old_segments_go_when_all_in_them_is_covered(tmp_path: Path) -> None:
    log = written(tmp_path, *(bytes(3000) for _ in range(5)))
    assert len(segments(tmp_path)) == 5
    log.remove_below(3)
    assert len(segments(tmp_path)) == 3
    log.remove_below(99)
    assert len(segments(tmp_path)) == 1
    assert read(tmp_path) == [bytes(3000)]


def test_a_closed_segment_takes_no_more_room_than_it_needs(tmp_path: Path) -> None:
    written(tmp_path, b"one").close()
    assert segments(tmp_path)[0].stat().st_size < 300
    assert read(tmp_path) == [b"one"]


def test_zeros_are_only_ever_asked_for_behind_all_frames_and_within_the_segment(tmp_path: Path) -> None:
    segment_bytes = 3 * FILL_BYTES + 1000
    log = written(tmp_path, b"first", segment_bytes=segment_bytes)
    filled = 0
    while (frame := log.prepare(bytes(37_123), 1)) is not None:
        end = frame.offset + len(frame.data)
        assert frame.zeros_from >= max(end, filled)
        if frame.zeros_from < frame.zeros_to:
            assert frame.zeros_from % 4096 == 0, "a block that holds a frame is written again"
            filled = frame.zeros_to
        assert end + FILL_BYTES // 2 <= filled or filled == segment_bytes
    assert filled == segment_bytes
