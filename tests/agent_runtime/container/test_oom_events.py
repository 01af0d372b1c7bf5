"""Kills for memory are told while the container goes on, each once, whoever was there to hear of it."""

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest
import pytest_asyncio
from lib.runtime_host import RuntimeHost

from pyswarm.agent_runtime.kernel import numbers as n
from pyswarm.agent_runtime.kernel.inotify import OVERFLOWED, parse
from pyswarm.proto.v1 import runtime_pb2 as pb
from pyswarm.proto.v1 import types_pb2 as types

kernel = pytest.mark.kernel
on_one_loop = pytest.mark.asyncio(loop_scope="module")
LIMITS = types.Resources(memory_bytes=32 * 1024 * 1024)
# tail keeps what it reads: all of it, as there is no line's end.
HUNGRY = "tail /dev/zero"
ONCE_ASKED = f"mkfifo /told; trap '{HUNGRY}; echo killed > /told' USR1; echo up; while :; do sleep 1000 & wait; done"


@pytest_asyncio.fixture(loop_scope="module")
async def box(shared_host: RuntimeHost) -> RuntimeHost:
    return shared_host


@kernel
@on_one_loop
async def test_a_kill_is_told_while_the_container_goes_on_and_not_again_when_it_ends(box: RuntimeHost) -> None:
    since = time.time()
    started = await box.start("box", "sh", "-c", ONCE_ASKED, limits=LIMITS)
    await box.follow_until("box", "up")
    await box.kill("box", "USR1")
    assert await asyncio.to_thread(Path(f"/proc/{started.pid}/root/told").read_text) == "killed\n"
    *_, told = await box.hear(since, "oom")
    assert told.attributes["oomKills"] == "1"
    running = await box.get("box")
    assert (running.state, running.oom_killed) == (pb.CONTAINER_RUNNING, True)
    await box.kill("box")
    actions = [event.action for event in await box.hear(since, "die")]
    assert actions == ["create", "start", "kill", "oom", "kill", "die"]
    assert (await box.wait("box")).oom_killed


@kernel
@on_one_loop
async def test_kills_one_after_the_other_are_told_together(box: RuntimeHost) -> None:
    since = time.time()
    kills = 8
    await box.start("box", "sh", "-c", f"for i in $(seq {kills}); do {HUNGRY}; done; true", limits=LIMITS)
    assert (await box.wait("box")).exit_code == 0
    took = time.time() - since
    told = [event for event in await box.hear(since, "die") if event.action == "oom"]
    assert told[-1].attributes["oomKills"] == str(kills)
    # Once a second, and at the end.
    assert len(told) <= took + 2


@kernel
@on_one_loop
async def test_a_container_that_never_runs_out_is_told_nothing_of(box: RuntimeHost) -> None:
    since = time.time()
    code, _ = await box.run("box", "sh", "-c", "head -c 8000000 /dev/zero | tail -c 4000000 >/dev/null", limits=LIMITS)
    assert code == 0
    assert "oom" not in [event.action for event in await box.hear(since, "destroy")]


@kernel
async def test_a_kill_without_a_daemon_is_told_by_the_next_one_and_by_no_other(host: RuntimeHost) -> None:
    started = await host.start("box", "sh", "-c", ONCE_ASKED, limits=LIMITS)
    await host.follow_until("box", "up")
    await host.kill_daemon()
    os.kill(started.pid, signal.SIGUSR1)
    assert await asyncio.to_thread(Path(f"/proc/{started.pid}/root/told").read_text) == "killed\n"
    assert host.cgroups.oom_kills("box") == 1
    await host.start_daemon()
    assert [event.attributes["oomKills"] for event in await host.hear(1.0, "oom")] == ["1"]
    await host.kill_daemon()
    await host.start_daemon()
    assert (await host.get("box")).oom_killed
    await host.kill("box")
    assert [event.action for event in await host.hear(1.0, "die")] == ["kill", "die"]


def test_what_inotify_tells_is_read_whatever_is_in_between() -> None:
    def event(watch: int, mask: int, name: bytes = b"") -> bytes:
        return b"".join(part.to_bytes(4, "little", signed=part < 0) for part in (watch, mask, 0, len(name))) + name

    told = event(3, n.IN_MODIFY) + event(4, 0x8000) + event(5, n.IN_MODIFY, b"name\0\0\0\0") + event(3, n.IN_MODIFY)
    assert list(parse(told)) == [3, 5, 3]
    assert list(parse(event(-1, n.IN_Q_OVERFLOW))) == [OVERFLOWED]
    assert list(parse(b"")) == []
