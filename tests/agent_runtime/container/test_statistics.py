"""What a container has used, and which processes it has, seen from outside."""

import os

import pytest
from lib.runtime_host import RuntimeHost

from pyswarm.proto.errors import FailedPrecondition, NotFound
from pyswarm.proto.v1 import runtime_pb2 as pb
from pyswarm.proto.v1 import types_pb2 as types

pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]

MIB = 1024 * 1024


@pytest.fixture
def host(shared_host: RuntimeHost) -> RuntimeHost:
    return shared_host


async def stats(host: RuntimeHost, *names: str) -> list[pb.ContainerStats]:
    return list((await host.stub.GetStats(pb.GetStatsRequest(ids=names))).stats)


async def test_what_was_used_is_counted(host: RuntimeHost) -> None:
    script = """
        i=0; while test $i -lt 100000; do i=$((i+1)); done
        x=$(head -c 20000000 /dev/zero | tr '\\0' x); sleep 1000 & echo up; wait
    """
    await host.start("box", "sh", "-c", script, limits=types.Resources(memory_bytes=128 * MIB, pids=20))
    await host.follow_until("box", "up")
    (used,) = await stats(host)
    assert used.id == "box"
    assert 10**7 < used.cpu_ns < 60 * 10**9
    assert 19 * MIB < used.memory_bytes < 128 * MIB
    assert used.memory_limit_bytes == 128 * MIB
    assert (used.pids, used.pids_limit) == (2, 20)
    assert used.net_received_bytes == used.net_sent_bytes == 0, "it has loopback only"
    (later,) = await stats(host, "box")
    assert later.cpu_ns >= used.cpu_ns
    assert later.read_at >= used.read_at


async def test_what_is_written_to_disk_is_counted(host: RuntimeHost) -> None:
    await host.start("box", "sh", "-c", "dd if=/dev/zero of=/file bs=1M count=8 conv=fsync; echo up; sleep 1000")
    await host.follow_until("box", "up")
    (used,) = await stats(host, "box")
    assert used.block_written_bytes >= 8 * MIB


@pytest.mark.skipif(not os.path.exists("/proc/pressure/cpu"), reason="this kernel keeps no account of pressure")
async def test_waiting_for_a_processor_shows_as_pressure(host: RuntimeHost) -> None:
    limits = types.Resources(nano_cpus=50_000_000)
    await host.start("box", "sh", "-c", "i=0; while test $i -lt 50000; do i=$((i+1)); done; echo up; sleep 1000",
                     limits=limits)  # fmt: skip
    await host.follow_until("box", "up")
    (used,) = await stats(host, "box")
    assert used.throttled_periods > 0
    assert used.cpu_pressure.some_total_us > 0


async def test_one_that_does_not_run_has_used_nothing(host: RuntimeHost) -> None:
    await host.start("box", "true")
    await host.wait("box")
    assert await stats(host) == []
    assert [(one.id, one.cpu_ns) for one in await stats(host, "box")] == [("box", 0)]
    with pytest.raises(NotFound):
        await stats(host, "none")


async def test_top_shows_its_processes_and_no_others(host: RuntimeHost) -> None:
    container = await host.start("box", "sh", "-c", "sleep 1000 & echo up; wait", user="web")
    await host.follow_until("box", "up")
    rows = (await host.stub.TopContainer(pb.ContainerId(id="box"))).processes
    assert [(row.command.split()[0], row.uid, row.terminal) for row in rows] == [
        ("sh", 1000, "?"),
        ("sleep", 1000, "?"),
    ]
    assert rows[0].pid == rows[1].parent_pid == container.pid
    assert abs(rows[0].started_at - container.started_at) < 2
    await host.stop("box", 0)
    with pytest.raises(FailedPrecondition):
        await host.stub.TopContainer(pb.ContainerId(id="box"))
