"""Events of containers: each once, in their order, with what belongs to it; the last remembered."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest
import pytest_asyncio
from lib.attached import attached
from lib.runtime_host import RuntimeHost

from pyswarm.agent_runtime.container.events import MOST_WAITING, REMEMBERED, Events
from pyswarm.agent_runtime.container.record import Created, Record
from pyswarm.proto.clock import SystemClock
from pyswarm.proto.errors import FailedPrecondition, InvalidArgument, Unavailable
from pyswarm.proto.v1 import runtime_pb2 as pb
from pyswarm.proto.v1 import types_pb2 as types

kernel = pytest.mark.kernel
on_one_loop = pytest.mark.asyncio(loop_scope="module")
RECORD = Record("box", pb.ContainerConfig(image="web:1", labels={"tier": "a"}), Created(0.0, "sha256:1", (), {}))


@pytest_asyncio.fixture(loop_scope="module")
async def box(shared_host: RuntimeHost) -> RuntimeHost:
    return shared_host


@asynccontextmanager
async def told_of(host: RuntimeHost, last: str) -> AsyncIterator["asyncio.Task[list[pb.ContainerEvent]]"]:
    """Listen from now on, up to an event of this name."""
    async with asyncio.TaskGroup() as tasks:
        yield tasks.create_task(host.hear(time.time(), last))


@kernel
@on_one_loop
async def test_a_life_is_told_from_its_beginning_to_its_end(box: RuntimeHost) -> None:
    async with told_of(box, "destroy") as hearing:
        await box.start(
            "life", "sh", "-c", "trap 'exit 3' TERM; while :; do sleep 1000 & wait; done", labels={"a": "b"}
        )
        await box.stub.PauseContainer(pb.ContainerId(id="life"))
        await box.stub.UnpauseContainer(pb.ContainerId(id="life"))
        await box.stub.UpdateContainer(pb.UpdateContainerRequest(id="life", pids=100))
        execution = box.stub.ExecContainer(
            iter([pb.ExecInput(start=pb.ExecConfig(container="life", args=["sh", "-c", "exit 4"]))])
        )
        assert [output.end.exit_code async for output in execution][-1] == 4
        async with attached(box, "life"):
            pass
        await box.stop("life")
        await box.remove("life")
    events = await hearing
    assert [event.action for event in events if event.action != "detach"] == [
        "create", "start", "pause", "unpause", "update", "exec_start", "exec_die", "attach", "kill", "die", "stop",
        "destroy",
    ]  # fmt: skip
    by_name = {event.action: event for event in events}
    assert by_name["exec_die"].attributes["exitCode"] == "4"
    assert by_name["die"].attributes["exitCode"] == "3"
    assert by_name["kill"].attributes["signal"] == "15"
    assert {event.id for event in events} == {"life"}
    assert {(event.attributes["image"], event.attributes["a"]) for event in events} == {("rootfs", "b")}
    assert [event.at for event in events] == sorted(event.at for event in events)


@kernel
@on_one_loop
async def test_running_out_of_memory_is_told_before_the_end(box: RuntimeHost) -> None:
    async with told_of(box, "die") as hearing:
        # tail keeps what it reads: all of it, as there is no line's end.
        await box.start("hungry", "tail", "/dev/zero", limits=types.Resources(memory_bytes=32 * 1024 * 1024))
        await box.wait("hungry")
    events = await hearing
    assert [event.action for event in events] == ["create", "start", "oom", "die"]
    assert events[-1].attributes["exitCode"] == "137"


@kernel
@on_one_loop
async def test_what_cannot_start_dies_with_the_reason(box: RuntimeHost) -> None:
    async with told_of(box, "die") as hearing:
        await box.create("missing", "/no/such/program")
        with pytest.raises(Exception, match="no such"):
            await box.stub.StartContainer(pb.ContainerId(id="missing"))
    events = await hearing
    assert [event.action for event in events] == ["create", "die"]
    assert events[-1].attributes["exitCode"] == "127"
    assert "/no/such/program" in events[-1].attributes["error"]


@kernel
@on_one_loop
async def test_health_is_told_when_it_is_another_one_and_shown(box: RuntimeHost) -> None:
    async def report(status: str, streak: int = 0, output: str = "") -> pb.Container:
        health = pb.ContainerHealth(status=status, failing_streak=streak, output=output)
        return await box.stub.ReportHealth(pb.ReportHealthRequest(id="box", health=health))

    async with told_of(box, "die") as hearing:
        await box.create("box", "sleep", "1000")
        with pytest.raises(FailedPrecondition, match="not running"):
            await report("starting")
        await box.stub.StartContainer(pb.ContainerId(id="box"))
        assert not (await box.get("box")).HasField("health")
        for status in ("starting", "healthy", "healthy", "unhealthy"):
            assert (await report(status)).health.status == status
        await report("unhealthy", 3, "no answer")
        with pytest.raises(InvalidArgument, match="no health 'well'"):
            await report("well")
        health = (await box.get("box")).health
        assert (health.status, health.failing_streak, health.output) == ("unhealthy", 3, "no answer")
        await box.kill("box")
    actions = [event.action for event in await hearing]
    assert actions == ["create", "start", "health_status: healthy", "health_status: unhealthy", "kill", "die"]


@kernel
async def test_what_happened_without_a_daemon_is_told_by_the_next(host: RuntimeHost) -> None:
    started = await host.start("brief", "sh", "-c", "trap 'exit 5' TERM; echo up; while :; do sleep 1000 & wait; done")
    await host.follow_until("brief", "up")
    await host.kill_daemon()
    os.kill(started.pid, signal.SIGTERM)
    await host.gone(started.pid)
    await host.start_daemon()
    await host.wait("brief")
    call = host.stub.WatchEvents(pb.WatchEventsRequest(since=1.0, until=time.time() + 0.5))
    assert [(event.action, event.attributes["exitCode"]) async for event in call] == [("die", "5")]


async def test_the_past_is_told_from_a_moment_on_and_is_bounded() -> None:
    events = Events(SystemClock())
    for number in range(REMEMBERED + 10):
        events.tell("update", RECORD, number=number)
    middle = time.time()
    events.tell("die", RECORD, exitCode=1)
    told = [event.attributes["number"] async for event in events.listen(1.0, middle)]
    assert (len(told), told[-1]) == (REMEMBERED - 1, str(REMEMBERED + 9))
    (last,) = [event async for event in events.listen(middle, time.time() + 0.01)]
    assert dict(last.attributes) == {"tier": "a", "image": "web:1", "name": "box", "exitCode": "1"}
    assert [event async for event in events.listen(0.0, time.time())] == []


async def test_a_listener_that_is_too_slow_is_told_so_after_what_it_has_room_for() -> None:
    events = Events(SystemClock())
    events.tell("create", RECORD)
    async with aclosing(events.listen(1.0, 0.0)) as listening:
        await anext(listening)
        for _ in range(MOST_WAITING + 5):
            events.tell("update", RECORD)
        assert [(await anext(listening)).action for _ in range(MOST_WAITING)] == ["update"] * MOST_WAITING
        with pytest.raises(Unavailable, match="faster than they were read"):
            await anext(listening)
