"""Pausing a container and changing its limits while it runs."""

import asyncio
from pathlib import Path

import pytest
from lib.runtime_host import RuntimeHost

from pyswarm.agent_runtime.kernel.cgroup_usage import read_usage
from pyswarm.proto.errors import FailedPrecondition, InvalidArgument, NotFound
from pyswarm.proto.v1 import runtime_pb2 as pb
from pyswarm.proto.v1 import types_pb2 as types

pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]

MIB = 1024 * 1024


@pytest.fixture
def host(shared_host: RuntimeHost) -> RuntimeHost:
    return shared_host


async def pause(host: RuntimeHost, name: str) -> pb.Container:
    return await host.stub.PauseContainer(pb.ContainerId(id=name))


async def unpause(host: RuntimeHost, name: str) -> pb.Container:
    return await host.stub.UnpauseContainer(pb.ContainerId(id=name))


async def update(host: RuntimeHost, name: str, **limits: int) -> pb.Container:
    return await host.stub.UpdateContainer(pb.UpdateContainerRequest(id=name, **limits))


async def ask(host: RuntimeHost, name: str) -> asyncio.Task[int]:
    """Let the container's program hear a line as soon as it can."""
    fifo = Path(f"/proc/{(await host.get(name)).pid}/root/ask")
    return asyncio.create_task(asyncio.to_thread(fifo.write_text, "\n"))


async def start_listener(host: RuntimeHost) -> None:
    await host.start("box", "sh", "-c", "mkfifo /ask; echo up; while read x < /ask; do echo heard; done")
    await host.follow_until("box", "up")


async def test_a_paused_container_stands_still_until_it_may_go_on(host: RuntimeHost) -> None:
    await start_listener(host)
    paused = await pause(host, "box")
    assert (paused.state, paused.pid > 0) == (pb.CONTAINER_PAUSED, True)
    asking = await ask(host, "box")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await host.follow_until("box", "heard")
    assert (await unpause(host, "box")).state == pb.CONTAINER_RUNNING
    assert await host.follow_until("box", "heard") == ["up", "heard"]
    await asking


async def test_a_pause_outlives_the_daemon(host: RuntimeHost) -> None:
    await start_listener(host)
    await pause(host, "box")
    await host.kill_daemon()
    await host.start_daemon()
    assert (await host.get("box")).state == pb.CONTAINER_PAUSED
    await unpause(host, "box")
    await (await ask(host, "box"))
    assert (await host.follow_until("box", "heard"))[-1] == "heard"


async def test_what_is_paused_can_be_stopped_killed_and_removed(host: RuntimeHost) -> None:
    for name in ("stopped", "killed", "removed"):
        await host.start(name, "sh", "-c", "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done")
        await host.follow_until(name, "up")
        await pause(host, name)
    assert (await host.stop("stopped", 20)).exit_code == 7, "it could act on the signal"
    await host.kill("killed")
    assert (await host.wait("killed")).exit_code == 137
    await host.remove("removed", force=True)


async def test_pausing_what_cannot_be_paused_is_refused(host: RuntimeHost) -> None:
    with pytest.raises(NotFound):
        await pause(host, "none")
    await host.create("box", "sleep", "1000")
    with pytest.raises(FailedPrecondition, match="not running"):
        await pause(host, "box")
    await host.stub.StartContainer(pb.ContainerId(id="box"))
    with pytest.raises(FailedPrecondition, match="not paused"):
        await unpause(host, "box")
    await pause(host, "box")
    with pytest.raises(FailedPrecondition, match="paused already"):
        await pause(host, "box")
    call = host.stub.ExecContainer(iter([pb.ExecInput(start=pb.ExecConfig(container="box", args=["true"]))]))
    with pytest.raises(FailedPrecondition, match="is paused"):
        await call.read()


async def test_a_running_container_gets_other_limits(host: RuntimeHost) -> None:
    await host.start("box", "sleep", "1000", limits=types.Resources(memory_bytes=64 * MIB, pids=50))
    changed = await update(host, "box", memory_bytes=96 * MIB, nano_cpus=500_000_000)
    assert changed.limits == types.Resources(memory_bytes=96 * MIB, nano_cpus=500_000_000, pids=50)
    usage = read_usage(host.cgroups, "box")
    assert (usage.memory_limit, usage.pids_limit) == (96 * MIB, 50)
    await update(host, "box", memory_bytes=32 * MIB, pids=5)
    usage = read_usage(host.cgroups, "box")
    assert (usage.memory_limit, usage.pids_limit) == (32 * MIB, 5)
    await update(host, "box", memory_bytes=0, nano_cpus=0, pids=0)
    usage = read_usage(host.cgroups, "box")
    assert (usage.memory_limit, usage.pids_limit) == (0, 4096)


async def test_other_limits_hold_for_a_container_that_starts_later_and_after_the_daemon(host: RuntimeHost) -> None:
    config = {"limits": types.Resources(memory_bytes=64 * MIB)}
    await host.create("box", "sleep", "1000", **config)
    await update(host, "box", memory_bytes=48 * MIB, pids=7)
    await host.kill_daemon()
    await host.start_daemon()
    assert (await host.get("box")).limits.memory_bytes == 48 * MIB
    await host.create("box", "sleep", "1000", **config)  # the same request as before: still no other container
    await host.stub.StartContainer(pb.ContainerId(id="box"))
    usage = read_usage(host.cgroups, "box")
    assert (usage.memory_limit, usage.pids_limit) == (48 * MIB, 7)


async def test_limits_that_would_kill_or_make_no_sense_are_refused(host: RuntimeHost) -> None:
    script = "x=$(head -c 30000000 /dev/zero | tr '\\0' x); echo up; sleep 1000; echo $x"
    await host.start("box", "sh", "-c", script, limits=types.Resources(memory_bytes=256 * MIB))
    await host.follow_until("box", "up")
    with pytest.raises(FailedPrecondition, match="bytes of memory"):
        await update(host, "box", memory_bytes=10 * MIB)
    for limits in ({"memory_bytes": MIB}, {"pids": -1}):
        with pytest.raises(InvalidArgument):
            await update(host, "box", **limits)
    assert (await host.get("box")).limits.memory_bytes == 256 * MIB
