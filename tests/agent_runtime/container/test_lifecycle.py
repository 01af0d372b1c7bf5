"""A container from create to removal, through the daemon's own socket."""

import asyncio
import stat
import time
from pathlib import Path

import pytest
from lib.runtime_host import RuntimeHost

from pyswarm.proto.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from pyswarm.proto.v1 import runtime_pb2 as pb
from pyswarm.proto.v1 import types_pb2 as types

pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture
def host(shared_host: RuntimeHost) -> RuntimeHost:
    return shared_host


_CAP_SYS_RESOURCE = 24


async def test_a_container_passes_through_its_states(host: RuntimeHost) -> None:
    created = await host.create("one", "sh", "-c", "read x < /dev/zero; exit 7", labels={"pyswarm.task": "one"})
    assert created.state == pb.CREATED
    running = await host.stub.StartContainer(pb.ContainerId(id="one"))
    assert running.state == pb.CONTAINER_RUNNING
    assert running.pid > 0
    await host.kill("one")
    stopped = await host.wait("one")
    assert (stopped.state, stopped.exit_code, stopped.pid) == (pb.STOPPED, 137, 0)
    assert created.created_at <= stopped.started_at <= stopped.finished_at <= time.time()
    assert stopped.config.labels == {"pyswarm.task": "one"}
    await host.remove("one")
    with pytest.raises(NotFound):
        await host.get("one")


@pytest.mark.parametrize("code", [0, 1, 42, 255])
async def test_the_exit_code_is_the_programs(host: RuntimeHost, code: int) -> None:
    assert await host.shell(f"exit {code}") == (code, [])


async def test_a_program_killed_by_a_signal_reports_128_plus_its_number(host: RuntimeHost) -> None:
    await host.start("trap", "sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 1000 & wait; done")
    await host.follow_until("trap", "ready")
    assert (await host.stop("trap")).exit_code == 9

    # A first process without a handler does not feel SIGTERM, as everywhere; SIGKILL it does.
    await host.start("deaf", "sleep", "1000")
    began = time.monotonic()
    stopped = await host.stop("deaf", grace_seconds=0.2)
    assert stopped.exit_code == 137
    assert 0.2 <= time.monotonic() - began < 5


async def test_the_containers_own_stop_signal_and_grace_period_are_used(host: RuntimeHost) -> None:
    script = "trap 'exit 5' USR1; echo ready; while :; do sleep 1000 & wait; done"
    await host.start("own", "sh", "-c", script, stop_signal="SIGUSR1", stop_grace_period_seconds=20)
    await host.follow_until("own", "ready")
    stopped = await host.stub.StopContainer(pb.StopContainerRequest(id="own", use_default_grace=True))
    assert stopped.exit_code == 5


async def test_stopping_takes_everything_in_the_container_along(host: RuntimeHost) -> None:
    await host.start("family", "sh", "-c", "sleep 1000 & sleep 1000 & echo ready; wait")
    await host.follow_until("family", "ready")
    assert len(host.cgroups.processes("family")) == 3
    await host.stop("family", grace_seconds=0)
    await host.remove("family")
    assert "family" not in host.cgroups.names()


async def test_creating_twice_answers_with_the_same_container_unless_the_config_differs(host: RuntimeHost) -> None:
    first = await host.create("twice", "true")
    assert await host.create("twice", "true") == first
    with pytest.raises(AlreadyExists):
        await host.create("twice", "false")


async def test_a_container_runs_once(host: RuntimeHost) -> None:
    await host.start("once", "true")
    await host.wait("once")
    with pytest.raises(FailedPrecondition, match="run already"):
        await host.stub.StartContainer(pb.ContainerId(id="once"))


async def test_a_running_container_is_removed_only_by_force(host: RuntimeHost) -> None:
    await host.start("busy", "sleep", "1000")
    with pytest.raises(FailedPrecondition, match="is running"):
        await host.remove("busy")
    await host.remove("busy", force=True)
    with pytest.raises(NotFound):
        await host.get("busy")


@pytest.mark.parametrize(
    ("args", "code", "reason"),
    [
        pytest.param(["nosuch"], 127, 'executable "nosuch" not found in $PATH', id="not in the path"),
        pytest.param(["/bin/nosuch"], 127, "no such file in the image", id="no such file"),
        pytest.param(["/etc"], 126, "Permission denied", id="a directory"),
        pytest.param(["/etc/passwd"], 126, "Permission denied", id="not executable"),
    ],
)
async def test_a_program_that_cannot_be_executed_is_explained(
    host: RuntimeHost, args: list[str], code: int, reason: str
) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        await host.start("wrong", *args)
    assert reason in str(refused.value)
    stopped = await host.get("wrong")
    assert (stopped.state, stopped.exit_code) == (pb.STOPPED, code)
    assert reason in stopped.error
    assert "wrong" not in host.cgroups.names()


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        pytest.param({"dir": "relative"}, "absolute", id="relative directory"),
        pytest.param({"capability_add": ["FLY"]}, "capability", id="unknown capability"),
        pytest.param({"stop_signal": "SIGNOPE"}, "signal", id="unknown signal"),
        pytest.param({"limits": types.Resources(memory_bytes=1000)}, "memory", id="tiny memory"),
        pytest.param({"mounts": [types.Mount(type=types.TMPFS, target="/proc/x")]}, "/proc/x", id="mount in proc"),
        pytest.param({"mounts": [types.Mount(type=types.BIND, source="x", target="/x")]}, "absolute", id="source"),
    ],
)
async def test_what_can_never_work_is_refused_and_nothing_is_made(
    host: RuntimeHost, config: dict[str, object], reason: str
) -> None:
    with pytest.raises(InvalidArgument, match=reason):
        await host.create("bad", "true", **config)
    with pytest.raises(NotFound):
        await host.get("bad")


async def test_an_image_that_is_not_here_is_not_found(host: RuntimeHost) -> None:
    request = pb.CreateContainerRequest(id="x", config=pb.ContainerConfig(image="nowhere/nothing:1"))
    with pytest.raises(NotFound, match="nowhere/nothing"):
        await host.stub.CreateContainer(request)


async def test_an_id_cannot_lead_out_of_the_state_directory(host: RuntimeHost) -> None:
    for bad in ("", "..", "../x", "a/b", ".hidden", "x" * 65):
        with pytest.raises(InvalidArgument, match="id"):
            await host.create(bad, "true")


async def test_watching_shows_what_is_there_and_then_every_change(host: RuntimeHost) -> None:
    await host.create("before", "true")
    seen: list[tuple[str, int, bool]] = []
    wanted = [
        ("before", pb.CREATED, False),
        ("after", pb.CREATED, False),
        ("after", pb.CONTAINER_RUNNING, False),
        ("after", pb.STOPPED, False),
        ("after", pb.STOPPED, True),
    ]
    async with asyncio.timeout(30):
        async for container in host.stub.WatchContainers(pb.WatchContainersRequest()):
            seen.append((container.id, container.state, container.removed))
            if len(seen) == 1:
                await host.create("after", "sleep", "1000")
            elif seen[-1] == wanted[1]:
                await host.stub.StartContainer(pb.ContainerId(id="after"))
            elif seen[-1] == wanted[2]:
                await host.stop("after", grace_seconds=0)
            elif seen[-1] == wanted[3]:
                await host.remove("after")
            if len(seen) == len(wanted):
                break
    assert seen == wanted


async def test_many_containers_at_once_each_keep_their_own_exit_code(host: RuntimeHost) -> None:
    async def one(number: int) -> tuple[int, list[str]]:
        return await host.run(f"c{number}", "sh", "-c", f"echo {number}; exit {number}")

    results = await asyncio.gather(*(one(number) for number in range(24)))
    assert results == [(number, [str(number)]) for number in range(24)]


async def test_the_socket_is_the_administrators_alone(host: RuntimeHost) -> None:
    assert stat.S_IMODE(host.paths.runtime_socket.stat().st_mode) == 0o600


async def test_the_daemon_tells_what_the_node_can_give(host: RuntimeHost) -> None:
    version = await host.stub.GetVersion(pb.GetVersionRequest())
    assert version.cgroup_version in ("v1", "v2", "hybrid")
    assert version.capacity.nano_cpus >= 1_000_000_000
    assert version.capacity.memory_bytes > 1 << 28


async def test_a_caller_that_goes_away_leaves_nothing_half_done(host: RuntimeHost) -> None:
    for number in range(12):
        name = f"left{number}"
        await host.create(name, "sleep", "1000")
        call = host.stub.StartContainer(pb.ContainerId(id=name))
        starting = asyncio.ensure_future(call)
        done, _ = await asyncio.wait([starting], timeout=0.001 * number)
        if not done:
            starting.cancel()
    # Waiting for one's turn is waiting for the start to be over.
    for number in range(12):
        container = await host.stub.StartContainer(pb.ContainerId(id=f"left{number}"))
        assert container.state == pb.CONTAINER_RUNNING
    removing = [asyncio.ensure_future(host.remove(f"left{number}", force=True)) for number in range(12)]
    await asyncio.wait(removing, timeout=0.01)
    for call in removing:
        call.cancel()
    for number in range(12):
        try:
            await host.remove(f"left{number}", force=True)
        except NotFound:
            continue
    assert not (await host.stub.ListContainers(pb.ListContainersRequest())).containers
    assert host.cgroups.names() == set()


async def test_groups_besides_the_users_own_are_had_also_by_what_is_executed(host: RuntimeHost) -> None:
    await host.start("box", "sh", "-c", "id -G; sleep 1000", user="7:8", groups=["44", "8", "45"])
    assert await host.follow_until("box", "8 44 45") == ["8 44 45"]
    start = pb.ExecInput(start=pb.ExecConfig(container="box", args=["id", "-G"]))
    assert b"".join([output.stdout async for output in host.stub.ExecContainer(iter([start]))]) == b"8 44 45\n"


async def test_a_group_that_the_image_does_not_know_is_told(host: RuntimeHost) -> None:
    with pytest.raises(FailedPrecondition, match="unable to find group nobodys"):
        await host.start("box", "true", groups=["nobodys"])


@pytest.mark.parametrize("score", [0, 700])
async def test_the_oom_score_is_adjusted(host: RuntimeHost, score: int) -> None:
    own = Path("/proc/self/oom_score_adj").read_text().strip()
    code, lines = await host.run("box", "cat", "/proc/self/oom_score_adj", oom_score_adj=score, user="7")
    assert (code, lines) == (0, [str(score) if score else own])


async def test_a_lower_oom_score_is_had_or_its_refusal_told(host: RuntimeHost) -> None:
    words = ("cat", "/proc/self/oom_score_adj")
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    if int(status["CapEff"], 16) & 1 << _CAP_SYS_RESOURCE:
        assert await host.run("box", *words, oom_score_adj=-500, user="7") == (0, ["-500"])
    else:
        with pytest.raises(FailedPrecondition, match="cannot adjust the OOM score: Permission denied"):
            await host.start("box", *words, oom_score_adj=-500, user="7")
