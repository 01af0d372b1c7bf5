"""A created container waits for its start with everything set up; `RunContainer` takes one through its whole life."""

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from lib.runtime_host import EITHER_EXECUTOR, RuntimeHost, runtime_host, settings_of

from pyswarm.agent_runtime.kernel import executor
from pyswarm.agent_runtime.kernel.cgroup_usage import read_usage
from pyswarm.proto.errors import FailedPrecondition, NotFound, Unreachable
from pyswarm.proto.v1 import runtime_pb2 as pb
from pyswarm.proto.v1 import types_pb2 as types

pytestmark = pytest.mark.kernel

MIB = 1024 * 1024
MOST_KIB = 70


@pytest_asyncio.fixture(params=EITHER_EXECUTOR)
async def host(layer: Path, request: pytest.FixtureRequest) -> AsyncIterator[RuntimeHost]:
    async with runtime_host(layer, settings=settings_of(request.param)) as running:
        yield running


async def launch(host: RuntimeHost, name: str) -> pb.Container:
    return await host.stub.StartContainer(pb.ContainerId(id=name))


def held(host: RuntimeHost, name: str) -> int:
    (pid,) = host.cgroups.processes(name)
    return pid


async def test_a_created_container_waits_with_its_namespaces_rights_and_cgroup(host: RuntimeHost) -> None:
    limits = types.Resources(memory_bytes=64 * MIB, pids=7)
    created = await host.create("box", "sh", "-c", "echo $$; exec sleep 1000", limits=limits, user="7")
    assert (created.state, created.pid) == (pb.CREATED, 0)
    pid = held(host, "box")
    status = Path(f"/proc/{pid}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    assert "Uid:\t7\t7\t7\t7" in status
    assert "CapEff:\t0000000000000000" in status
    assert "Seccomp:\t2" in status
    assert {name for name in ("mnt", "pid", "net", "uts", "ipc", "cgroup") if _shares(pid, name)} == set()
    assert read_usage(host.cgroups, "box").pids_limit == 7
    started = await launch(host, "box")
    assert (started.state, started.pid) == (pb.CONTAINER_RUNNING, pid)
    assert started.started_at >= created.created_at
    assert await host.follow_until("box", "1") == ["1"]


def _shares(pid: int, name: str) -> bool:
    return os.readlink(f"/proc/{pid}/ns/{name}") == os.readlink(f"/proc/self/ns/{name}")


async def test_nothing_of_the_machine_is_open_in_one_that_waits(host: RuntimeHost) -> None:
    await host.create("box", "true")
    folder = Path(f"/proc/{held(host, 'box')}/fd")
    opened = {entry.name: os.readlink(entry) for entry in folder.iterdir()}
    assert {name for name in opened if int(name) > 2} == {"3", "4"}, "its report and its gate"
    assert all(opened[name].startswith("pipe:") for name in ("3", "4")), opened


@pytest.mark.parametrize(("args", "code"), [(["nosuch"], 127), (["/etc/passwd"], 126)])
async def test_its_start_tells_that_its_program_cannot_be_executed(
    host: RuntimeHost, args: list[str], code: int
) -> None:
    await host.create("box", *args)
    held(host, "box")
    with pytest.raises(FailedPrecondition, match="execut"):
        await launch(host, "box")
    stopped = await host.get("box")
    assert (stopped.state, stopped.exit_code) == (pb.STOPPED, code)
    assert "box" not in host.cgroups.names()


async def test_what_is_in_the_way_of_a_start_is_told_by_it_and_may_be_gone_by_then(
    host: RuntimeHost, tmp_path: Path
) -> None:
    volume = types.Mount(type=types.BIND, source=str(tmp_path / "late"), target="/late")
    for name in ("early", "late"):
        await host.create(name, "sh", "-c", "ls /late", mounts=[volume])
        assert name not in host.cgroups.names()
    with pytest.raises(FailedPrecondition, match="cannot mount"):
        await launch(host, "early")
    (tmp_path / "late").mkdir()
    (tmp_path / "late/file").touch()
    await launch(host, "late")
    assert (await host.wait("late")).exit_code == 0
    assert await host.lines("late") == ["file"]


async def test_one_that_was_killed_while_it_waited_starts_all_the_same(host: RuntimeHost) -> None:
    await host.create("box", "sh", "-c", "echo up; exit 7")
    pid = held(host, "box")
    os.kill(pid, signal.SIGKILL)
    await host.gone(pid, reaped=True)
    await launch(host, "box")
    assert (await host.wait("box")).exit_code == 7
    assert await host.lines("box") == ["up"]


async def test_removing_one_that_waits_leaves_nothing(host: RuntimeHost) -> None:
    await host.create("box", "sleep", "1000")
    pid = held(host, "box")
    await host.remove("box")
    await host.gone(pid)
    with pytest.raises(NotFound):
        await host.get("box")
    assert await host.clear() == []


async def test_its_limits_are_changed_while_it_waits(host: RuntimeHost) -> None:
    await host.create("box", "sleep", "1000", limits=types.Resources(memory_bytes=64 * MIB))
    await host.stub.UpdateContainer(pb.UpdateContainerRequest(id="box", memory_bytes=48 * MIB, pids=9))
    usage = read_usage(host.cgroups, "box")
    assert (usage.memory_limit, usage.pids_limit) == (48 * MIB, 9)
    await launch(host, "box")
    usage = read_usage(host.cgroups, "box")
    assert (usage.memory_limit, usage.pids_limit) == (48 * MIB, 9)


async def test_nobody_may_join_or_pause_or_signal_one_that_waits(host: RuntimeHost) -> None:
    await host.create("box", "sleep", "1000")
    call = host.stub.ExecContainer(iter([pb.ExecInput(start=pb.ExecConfig(container="box", args=["true"]))]))
    with pytest.raises(FailedPrecondition, match="not running"):
        await call.read()
    with pytest.raises(FailedPrecondition, match="not running"):
        await host.kill("box")
    with pytest.raises(FailedPrecondition, match="not running"):
        await host.stub.PauseContainer(pb.ContainerId(id="box"))
    assert (await launch(host, "box")).state == pb.CONTAINER_RUNNING


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
async def test_it_ends_with_the_daemon_that_created_it_and_starts_under_the_next(
    host: RuntimeHost, number: signal.Signals
) -> None:
    await host.start("other", "sleep", "1000")
    await host.create("box", "sh", "-c", "exit 7")
    pid = held(host, "box")
    await host.kill_daemon(number)
    await host.gone(pid)
    await host.start_daemon()
    assert (await host.get("box")).state == pb.CREATED
    assert host.cgroups.names() == {"other"}
    await launch(host, "box")
    assert (await host.wait("box")).exit_code == 7
    assert (await host.get("other")).state == pb.CONTAINER_RUNNING


async def test_it_ends_with_its_spawner_and_starts_under_the_next(host: RuntimeHost) -> None:
    await host.create("box", "sh", "-c", "exit 7")
    pid = held(host, "box")
    await host.kill_spawner()
    await host.gone(pid)
    assert (await host.get("box")).state == pb.CREATED
    await launch(host, "box")
    assert (await host.wait("box")).exit_code == 7


async def test_one_with_a_terminal_waits_too(host: RuntimeHost) -> None:
    await host.create("box", "sh", "-c", "test -t 0 && echo terminal; exit 3", tty=True)
    held(host, "box")
    await launch(host, "box")
    assert (await host.wait("box")).exit_code == 3
    assert [line.strip() for line in await host.lines("box")] == ["terminal"]


@pytest.mark.skipif(not executor.HAS_NATIVE, reason="a child of Python's keeps Python")
async def test_one_that_waits_costs_little_memory(layer: Path) -> None:
    async with runtime_host(layer) as host:
        await host.create("first", "true")
        assert host.daemon is not None
        ours = [host.daemon.pid, host.spawner_pid()]
        before = sum(map(_memory_kib, ours))
        names = [f"c{number}" for number in range(30)]
        for name in names:
            await host.create(name, "true")
        children = sum(_memory_kib(held(host, name)) for name in names)
        assert (sum(map(_memory_kib, ours)) - before + children) / len(names) <= MOST_KIB


def _memory_kib(pid: int | None) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


async def run(host: RuntimeHost, name: str, *args: str, remove: bool) -> list[pb.Container]:
    config = pb.ContainerConfig(image="rootfs", args=args)
    request = pb.RunContainerRequest(id=name, config=config, remove=remove)
    return [container async for container in host.stub.RunContainer(request)]


async def test_a_run_tells_its_start_and_its_end_and_leaves_what_it_is_to_leave(host: RuntimeHost) -> None:
    running, stopped = await run(host, "kept", "sh", "-c", "echo words; exit 7", remove=False)
    assert (running.state, stopped.state, stopped.exit_code) == (pb.CONTAINER_RUNNING, pb.STOPPED, 7)
    assert await host.lines("kept") == ["words"]
    _, stopped = await run(host, "gone", "sh", "-c", "exit 8", remove=True)
    assert stopped.exit_code == 8
    with pytest.raises(NotFound):
        await host.get("gone")
    assert await host.clear() == []


async def test_a_name_can_be_run_again_while_what_it_left_is_still_being_erased(host: RuntimeHost) -> None:
    folder = host.paths.runtime / "containers"
    many = "mkdir /many && cd /many && touch $(seq 5000)"
    for _ in range(3):
        _, stopped = await run(host, "again", "sh", "-c", many, remove=True)
        assert stopped.exit_code == 0
        assert not (folder / "again").exists(), "it is gone once the call has ended"
    await host.erased()
    assert list(folder.iterdir()) == []


async def test_what_was_not_erased_when_the_daemon_was_killed_is_erased_by_the_next(host: RuntimeHost) -> None:
    folder = host.paths.runtime / "containers"
    await run(host, "gone", "sh", "-c", "mkdir /many && cd /many && touch $(seq 5000)", remove=True)
    await host.kill_daemon()
    await host.start_daemon()
    assert list(folder.iterdir()) == []
    assert (await host.stub.ListContainers(pb.ListContainersRequest())).containers == []


async def test_a_run_that_cannot_start_says_why_and_is_removed(host: RuntimeHost) -> None:
    with pytest.raises(FailedPrecondition, match="not found in"):
        await run(host, "wrong", "nosuch", remove=True)
    with pytest.raises(NotFound):
        await host.get("wrong")


async def test_a_run_goes_on_when_its_caller_goes_away(host: RuntimeHost) -> None:
    config = pb.ContainerConfig(image="rootfs", args=["sleep", "1000"])
    call = host.stub.RunContainer(pb.RunContainerRequest(id="box", config=config, remove=True))
    first = await call.read()
    assert first.state == pb.CONTAINER_RUNNING
    call.cancel()
    with pytest.raises(Unreachable):
        await call.read()
    assert (await host.get("box")).pid == first.pid
    await host.stop("box", grace_seconds=0)
    assert (await host.get("box")).state == pb.STOPPED
