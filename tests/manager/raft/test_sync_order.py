"""No acknowledgement leaves a member's socket before the frame it acknowledges is on that member's disk."""

import asyncio
import re
import sys
import time
from pathlib import Path
from typing import NamedTuple

import lib.follower_process
import pytest
from lib.follower_process import SETTINGS
from lib.raft_lab import LabMember, RaftLab

WRITES = 20
CALLS = "pwrite64,fdatasync,sendto,sendmsg,write"
LINE = re.compile(r"^\d+ +(?P<at>[\d.]+) (?P<call>\w+)\(\d+<(?P<file>[^>]*)>.*<(?P<took>[\d.]+)>$")
SPLIT = re.compile(
    r"^(?P<pid>\d+) +(?P<at>[\d.]+) (?:(?P<call>\w+)\(\d+<(?P<file>[^>]*)>.*<unfinished|<\.\.\. (?P<end>\w+) )"
)


class Call(NamedTuple):
    name: str
    file: str
    began: float
    ended: float


def calls_in(trace: str) -> list[Call]:
    """Read what `strace -f -yy -ttt -T` wrote; calls that others interrupted stand on two lines."""
    found: list[Call] = []
    open_calls: dict[str, tuple[str, str, float]] = {}
    for line in trace.splitlines():
        if whole := LINE.match(line):
            at = float(whole["at"])
            found.append(Call(whole["call"], whole["file"], at, at + float(whole["took"])))
        elif part := SPLIT.match(line):
            if part["call"]:
                open_calls[part["pid"]] = (part["call"], part["file"], float(part["at"]))
            elif part["pid"] in open_calls:
                name, file, began = open_calls.pop(part["pid"])
                found.append(Call(name, file, began, float(part["at"])))
    return sorted(found, key=lambda call: call.began)


@pytest.mark.kernel
async def test_no_acknowledgement_leaves_before_its_frame_is_synced(tmp_path: Path) -> None:
    lab = RaftLab(tmp_path, SETTINGS)
    leader = await lab.first()
    follower = LabMember(lab, "2")
    trace = tmp_path / "trace"
    process = await asyncio.create_subprocess_exec(
        "strace", "-f", "-yy", "-ttt", "-T", "-e", f"trace={CALLS}", "-o", str(trace),
        sys.executable, lib.follower_process.__file__, "2", follower.member.raft_addr.rpartition(":")[2],
        str(follower.directory), str(follower.certificates), lab.certificates.cluster_id,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    spans = []
    lifetime = asyncio.ensure_future(process.wait())
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            assert await process.stdout.readline() == b"ready\n"
            await leader.engine.add_member(follower.member)
            await leader.engine.propose(b"first")
            for number in range(WRITES):
                # The answer to the commit of the write before shall not fall into this one's span.
                await asyncio.wait({lifetime}, timeout=0.1)
                began = time.time()
                await leader.engine.propose(b"%d" % number)
                spans.append((began, time.time()))
    finally:
        assert process.stdin is not None
        process.stdin.close()
        async with asyncio.timeout(20):
            await lifetime
        await lab.stop()

    calls = calls_in(trace.read_text())
    in_order = 0
    for began, ended in spans:
        frames = [c for c in calls if c.name == "pwrite64" and ".wal" in c.file and began <= c.began <= ended]
        assert frames, "the leader alone is no majority: the follower wrote this"
        synced = min(
            c.ended for c in calls if c.name == "fdatasync" and ".wal" in c.file and c.began >= frames[0].ended
        )
        assert synced <= ended, "acknowledged to the writer before the only follower had synced it"
        sent = [c for c in calls if c.file.startswith("TCP") and c.name != "pwrite64" and began <= c.began <= ended]
        assert any(c.began >= synced for c in sent), "the acknowledgement itself"
        in_order += all(c.began >= synced for c in sent)
    # A heartbeat's answer promises nothing and may fall into a span; an early acknowledgement would be in all.
    assert in_order >= WRITES * 3 // 4
