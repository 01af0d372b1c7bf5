"""Logs: every line once, with its time and stream, over rotation, and as they grow."""

import asyncio
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lib.runtime_host import RuntimeHost

from pyswarm.agent_runtime.container.log_file import ContainerLog
from pyswarm.agent_runtime.container.log_format import LONGEST_LINE_BYTES, STREAMS, Line, LineCutter, Piece, decode
from pyswarm.agent_runtime.container.log_reader import read_lines
from pyswarm.proto.v1 import runtime_pb2 as pb
from pyswarm.proto.v1 import types_pb2 as types


def lines_of(pieces: list[tuple[Piece, bytes]]) -> list[Line]:
    cutter = LineCutter()
    whole = [line for piece, data in pieces for line in cutter.cut(piece, data)]
    return [*whole, *cutter.rest()]


def piece_of(data: bytes, stream: str = "stdout", timestamp: float = 0.0) -> tuple[Piece, bytes]:
    return Piece(timestamp, len(data), stream), data


def line_by_line(data: bytes) -> list[bytes]:
    """Cut as slowly and plainly as can be."""
    *whole, rest = data.split(b"\n")
    lines = []
    for line in [*whole, *([rest] if rest else [])]:
        cuts = range(0, max(len(line), 1), LONGEST_LINE_BYTES)
        lines += [line[at : at + LONGEST_LINE_BYTES] for at in cuts]
    return lines


_SIZES = st.sampled_from([0, 1, 90, LONGEST_LINE_BYTES - 1, LONGEST_LINE_BYTES, LONGEST_LINE_BYTES + 1, 40_000])


@given(st.lists(st.tuples(_SIZES, st.booleans())), st.lists(st.integers(1, 50_000), max_size=4))
def test_whatever_is_written_in_whatever_pieces_is_cut_as_one_by_one(
    lines: list[tuple[int, bool]], cuts: list[int]
) -> None:
    data = b"".join(b"x" * length + b"\n" * ends for length, ends in lines)
    pieces, at = [], 0
    for cut in [*cuts, len(data)]:
        pieces.append(piece_of(data[at : at + cut]))
        at += cut
    assert [line.data for line in lines_of(pieces)] == line_by_line(data)


def test_a_line_keeps_its_time_and_stream_also_when_it_comes_in_two() -> None:
    pieces = [
        piece_of(b"hel", "stderr", 1700000000.123456),
        piece_of(b"x", "stdout", 3.0),
        piece_of(b"lo\n", "stderr", 2.0),
    ]
    assert lines_of(pieces)[0] == Line(1700000000.123456, "stderr", b"hello")


@given(st.lists(st.tuples(st.floats(0, 2e9), st.integers(0, 2**32 - 1), st.sampled_from(STREAMS), st.booleans())))
def test_an_index_is_read_as_it_was_written(entries: list[tuple[float, int, str, bool]]) -> None:
    pieces = [Piece(*entry) for entry in entries]
    encoded = b"".join(piece.encode() for piece in pieces)
    assert decode(encoded) == pieces
    assert decode(encoded + b"torn") == pieces


def opened(folder: Path, *, largest_file_bytes: int = 10**7, most_files: int = 3) -> ContainerLog:
    return ContainerLog(folder, largest_file_bytes=largest_file_bytes, most_files=most_files)


async def read_all(log: ContainerLog, **wanted: Any) -> list[bytes]:
    return [line.data async for line in read_lines(log, **wanted)]


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Return (read end, write end)."""
    ends = os.pipe2(os.O_NONBLOCK)
    yield ends
    for end in ends:
        os.close(end)


async def test_what_is_in_a_pipe_is_taken_as_it_is(tmp_path: Path, pipe: tuple[int, int]) -> None:
    read, write = pipe
    log = opened(tmp_path)
    for stream, text in (("stdout", b"one\ntw"), ("stderr", b"oh\n"), ("stdout", b"o\n\xff\0\n")):
        os.write(write, text)
        assert log.take(read, stream, 5.0) == len(text)
    with pytest.raises(BlockingIOError):
        log.take(read, "stdout", 6.0)
    assert [(line.stream, line.data) async for line in read_lines(log)] == [
        ("stdout", b"one"),
        ("stderr", b"oh"),
        ("stdout", b"two"),
        ("stdout", b"\xff\0"),
    ]


async def test_what_a_killed_daemon_moved_without_an_entry_is_still_there(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.append(b"one\n", "stdout", 1.0)
    log.append(b"oh\n", "stderr", 2.0)
    log.close()
    with (tmp_path / "000001.stdout").open("ab") as data:
        data.write(b"two\n")  # moved by the kernel, and then the daemon was killed
    with (tmp_path / "000001.index").open("ab") as index:
        index.write(b"half an en")
    after = opened(tmp_path)
    after.append(b"three\n", "stdout", time.time() + 1)
    assert await read_all(after) == [b"one", b"oh", b"two", b"three"]


async def test_a_file_that_lost_bytes_with_the_machine_is_left_as_it_is(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.append(b"one\ntwo\n", "stdout", 1.0)
    log.close()
    os.truncate(tmp_path / "000001.stdout", 4)
    after = opened(tmp_path)
    after.append(b"three\n", "stdout", 2.0)
    assert await read_all(after) == [b"one", b"three"]


@given(
    st.lists(st.tuples(st.sampled_from(STREAMS), st.integers(0, 30), st.booleans()), max_size=60),
    st.integers(40, 300),
    st.integers(0, 70),
)
@settings(max_examples=30, deadline=None)
def test_the_tail_is_the_end_of_everything(
    written: list[tuple[str, int, bool]], largest_file_bytes: int, tail: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        log = opened(Path(folder), largest_file_bytes=largest_file_bytes, most_files=1000)
        for moment, (stream, length, ends) in enumerate(written):
            log.append(b"x" * length + b"\n" * ends, stream, float(moment))
        everything = asyncio.run(read_all(log))
        assert len(everything) == sum(
            len(line_by_line(b"".join(b"x" * n + b"\n" * e for s, n, e in written if s == stream)))
            for stream in STREAMS
        )
        assert asyncio.run(read_all(log, tail=tail)) == everything[len(everything) - min(tail, len(everything)) :]


async def test_the_tail_of_a_long_log_is_read_from_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = opened(tmp_path, largest_file_bytes=1_000_000, most_files=10)
    for number in range(5000):
        log.append(b"%0100d\n" % number, "stdout", 0.0)
    read = 0
    pread = os.pread

    def counted(descriptor: int, length: int, offset: int) -> bytes:
        nonlocal read
        data = pread(descriptor, length, offset)
        read += len(data)
        return data

    monkeypatch.setattr(os, "pread", counted)
    assert await read_all(log, tail=2) == [b"%0100d" % 4998, b"%0100d" % 4999]
    assert read < 100_000  # of 600,000


async def test_the_tail_counts_lines_over_files(tmp_path: Path) -> None:
    log = opened(tmp_path, largest_file_bytes=200, most_files=100)
    for number in range(20):
        log.append(f"{number}\n".encode(), "stdout", float(number))
    assert await read_all(log, tail=3) == [b"17", b"18", b"19"]
    assert await read_all(log, tail=0) == []
    assert await read_all(log, since=15.0) == [b"15", b"16", b"17", b"18", b"19"]
    assert await read_all(log, since=15.0, until=17.0) == [b"15", b"16"]
    assert await read_all(log, tail=3, until=7.0) == [b"4", b"5", b"6"]


async def test_a_moment_in_the_middle_of_a_line_leaves_that_line_out(tmp_path: Path) -> None:
    log = opened(tmp_path)
    for moment, text in enumerate((b"one\ntw", b"o\nthree\n")):
        log.append(text, "stdout", float(moment))
    assert await read_all(log, since=1.0) == [b"three"]


async def test_following_until_a_moment_ends_then(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.append(b"one\n", "stdout", 0.0)
    async with asyncio.timeout(10):
        assert await read_all(log, follow=True, seconds=0.05) == [b"one"]


async def test_a_line_that_lost_its_beginning_to_rotation_is_not_told(tmp_path: Path) -> None:
    log = opened(tmp_path, largest_file_bytes=50, most_files=2)
    log.append(b"x" * 130 + b"\nwhole\n", "stdout", 0.0)
    assert (tmp_path / "000001.stdout").exists() is False
    assert await read_all(log) == [b"whole"]


async def test_old_files_go_and_what_is_left_is_the_newest(tmp_path: Path) -> None:
    log = opened(tmp_path, largest_file_bytes=1000, most_files=3)
    for number in range(1000):
        log.append(f"line {number}\n".encode(), "stdout", 0.0)
    assert len(list(tmp_path.glob("*.index"))) == 3
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 4000
    lines = await read_all(log)
    assert lines == [f"line {number}".encode() for number in range(1000 - len(lines), 1000)]


async def test_a_follower_misses_nothing_through_rotations_and_ends_with_the_container(tmp_path: Path) -> None:
    log = opened(tmp_path, largest_file_bytes=500, most_files=50)
    log.append(b"0\n", "stdout", 0.0)
    following = asyncio.create_task(read_all(log, follow=True))
    for number in range(1, 200):
        log.append(f"{number}\n".encode(), "stdout", 0.0)
        if number % 7 == 0:
            await asyncio.sleep(0)
    log.close()
    assert await following == [str(number).encode() for number in range(200)]


async def test_a_new_daemon_goes_on_in_the_same_file(tmp_path: Path) -> None:
    for text in (b"one\n", b"two\n"):
        log = opened(tmp_path)
        log.append(text, "stdout", 0.0)
        log.close()
    assert await read_all(log) == [b"one", b"two"]
    assert len(list(tmp_path.glob("*.index"))) == 1


@pytest.mark.kernel
async def test_a_containers_output_is_kept_by_stream_with_its_time(host: RuntimeHost) -> None:
    before = time.time()
    await host.start("talks", "sh", "-c", "echo out; echo err >&2; printf unfinished")
    await host.wait("talks")
    records = await host.records("talks")
    assert sorted((r.stream, r.data) for r in records) == [
        ("stderr", b"err"),
        ("stdout", b"out"),
        ("stdout", b"unfinished"),
    ]
    assert all(before <= r.timestamp <= time.time() for r in records)
    assert [r.data for r in await host.records("talks", tail=1)] == [b"unfinished"]
    assert await host.records("talks", since=time.time() + 1) == []


@pytest.mark.kernel
async def test_following_a_running_container_brings_lines_as_they_come(host: RuntimeHost) -> None:
    await host.start("grows", "sh", "-c", "trap 'echo two; exit' USR1; echo one; while :; do sleep 1000 & wait; done")
    seen = []
    async with asyncio.timeout(20):
        async for record in host.stub.ReadLogs(pb.ReadLogsRequest(id="grows", tail=-1, follow=True)):
            seen.append(record.data)
            if seen == [b"one"]:
                await host.kill("grows", "USR1")
    assert seen == [b"one", b"two"]


@pytest.mark.kernel
async def test_a_flood_is_kept_within_bounds(host: RuntimeHost) -> None:
    await host.start(
        "flood", "sh", "-c", "yes 0123456789012345678901234567890123456789 | head -c 50000000; echo; echo end"
    )
    await host.wait("flood")
    folder = host.paths.runtime / "containers/flood/log"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 34 * 1024 * 1024
    assert [r.data for r in await host.records("flood", tail=1)] == [b"end"]


@pytest.mark.kernel
async def test_a_daemon_that_is_killed_in_the_middle_of_a_flood_loses_and_doubles_nothing(host: RuntimeHost) -> None:
    await host.start("flood", "sh", "-c", "seq 3000000", log_driver=types.LogDriver(options={"max-size": "-1"}))
    for _ in range(4):
        await host.kill_daemon()
        await host.start_daemon()
    ended = await host.wait("flood")
    assert (ended.exit_code, ended.error) == (0, "")
    data = (host.paths.runtime / "containers/flood/log/000001.stdout").read_bytes()
    assert data == b"".join(b"%d\n" % number for number in range(1, 3_000_001))
    assert [record.data for record in await host.records("flood", tail=2)] == [b"2999999", b"3000000"]
