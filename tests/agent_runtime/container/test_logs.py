"""Logs: every line once, with its time and stream, over rotation, and as they grow."""

import asyncio
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lib.runtime_host import RuntimeHost

from pyswarm.agent_runtime.container.log_file import ContainerLog
from pyswarm.agent_runtime.container.log_format import LONGEST_LINE_BYTES, Joiner, Line, decode, encode
from pyswarm.proto.v1 import runtime_pb2 as pb


def lines_of(blocks: bytes) -> list[Line]:
    joiner = Joiner()
    whole = [line for raw in blocks.split(b"\n")[:-1] if (piece := decode(raw)) and (line := joiner.join(piece))]
    return [*whole, *joiner.rest()]


@given(st.lists(st.binary(max_size=200), max_size=8))
def test_whatever_is_written_in_whatever_pieces_is_read_again(pieces: list[bytes]) -> None:
    blocks = b"".join(encode(piece, "stdout", 1700000000.25) for piece in pieces)
    written = b"".join(pieces)
    expected = written.split(b"\n")
    if expected[-1] == b"":
        expected.pop()
    assert [line.data for line in lines_of(blocks)] == expected


def line_by_line(data: bytes, head: bytes) -> bytes:
    """Encode as slowly and plainly as can be."""
    *whole, rest = data.split(b"\n")
    out = b""
    for line, tag in [*((line, b"F ") for line in whole), *([(rest, b"P ")] if rest else [])]:
        while len(line) > LONGEST_LINE_BYTES:
            out += head + b"P " + line[:LONGEST_LINE_BYTES] + b"\n"
            line = line[LONGEST_LINE_BYTES:]
        out += head + tag + line + b"\n"
    return out


@given(
    st.lists(st.tuples(st.sampled_from([0, 1, 90, LONGEST_LINE_BYTES, LONGEST_LINE_BYTES + 1, 40_000]), st.booleans()))
)
def test_lines_of_any_length_are_encoded_as_one_by_one(lines: list[tuple[int, bool]]) -> None:
    data = b"".join(b"x" * length + b"\n" * ends for length, ends in lines)
    assert encode(data, "stdout", 0.0) == line_by_line(data, b"1970-01-01T00:00:00.000000Z stdout ")


def test_a_line_keeps_its_time_and_stream() -> None:
    (line,) = lines_of(encode(b"hello\n", "stderr", 1700000000.123456))
    assert (line.stream, line.data) == ("stderr", b"hello")
    assert line.timestamp == pytest.approx(1700000000.123456, abs=1e-6)


def test_an_endless_line_comes_in_pieces() -> None:
    lines = lines_of(encode(b"x" * (3 * LONGEST_LINE_BYTES) + b"\n", "stdout", 0.0))
    assert len(lines) >= 3
    assert b"".join(line.data for line in lines) == b"x" * (3 * LONGEST_LINE_BYTES)


@pytest.mark.parametrize("torn", [b"", b"x", b"2026-01-01T00:00:00Z stdout", b"no-time stdout F x", b"\xff\xfe F P x"])
def test_a_torn_line_is_skipped(torn: bytes) -> None:
    assert decode(torn) is None


async def read_all(log: ContainerLog, *, follow: bool = False, tail: int = -1, since: float = 0.0) -> list[bytes]:
    return [line.data async for line in log.read(follow=follow, tail=tail, since=since)]


async def test_the_tail_counts_lines_over_files(tmp_path: Path) -> None:
    log = ContainerLog(tmp_path, largest_file_bytes=200)
    for number in range(20):
        log.append(f"{number}\n".encode(), "stdout", float(number))
    assert await read_all(log, tail=3) == [b"17", b"18", b"19"]
    assert await read_all(log, tail=0) == []
    assert await read_all(log, since=15.0) == [b"15", b"16", b"17", b"18", b"19"]


async def test_old_files_go_and_what_is_left_is_the_newest(tmp_path: Path) -> None:
    log = ContainerLog(tmp_path, largest_file_bytes=1000, most_files=3)
    for number in range(1000):
        log.append(f"line {number}\n".encode(), "stdout", 0.0)
    assert len(os.listdir(tmp_path)) == 3
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 4000
    lines = await read_all(log)
    assert lines == [f"line {number}".encode() for number in range(1000 - len(lines), 1000)]


async def test_a_follower_misses_nothing_through_rotations_and_ends_with_the_container(tmp_path: Path) -> None:
    log = ContainerLog(tmp_path, largest_file_bytes=500, most_files=50)
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
        log = ContainerLog(tmp_path)
        log.append(text, "stdout", 0.0)
        log.close()
    assert await read_all(log) == [b"one", b"two"]
    assert len(os.listdir(tmp_path)) == 1


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
