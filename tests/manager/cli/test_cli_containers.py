"""`pyswarm container …`, against a runtime on a real socket."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from lib.fake_control import serving

from pyswarm.manager.cli.client.terminal import DetachKeys, parse_keys
from pyswarm.manager.cli.commands.container_events import is_wanted
from pyswarm.proto.clock import SystemClock
from pyswarm.proto.errors import FailedPrecondition, InvalidArgument
from pyswarm.proto.v1 import runtime_pb2 as pb
from pyswarm.proto.v1 import runtime_pb2_grpc

CONFIG = pb.ContainerConfig(image="web:1", args=["sh", "-c", "while :; do serve; done"], labels={"tier": "front"})


class FakeRuntime(runtime_pb2_grpc.RuntimeServicer):
    def __init__(self) -> None:
        self.containers = [
            pb.Container(id="abcdefghijklmnopqrstuvwxy", config=CONFIG, state=pb.CONTAINER_RUNNING,
                         created_at=800, started_at=900),
            pb.Container(id="abcold", config=pb.ContainerConfig(image="job:2"), state=pb.STOPPED, created_at=100,
                         started_at=200, finished_at=400, exit_code=3),
        ]  # fmt: skip
        self.calls: list[Any] = []
        self.readings = 0

    async def ListContainers(self, request: Any, context: Any) -> pb.ListContainersResponse:
        return pb.ListContainersResponse(containers=self.containers)

    async def GetContainer(self, request: pb.ContainerId, context: Any) -> pb.Container:
        return next(one for one in self.containers if one.id == request.id)

    async def StopContainer(self, request: Any, context: Any) -> pb.Container:
        self.calls.append(request)
        return pb.Container()

    async def KillContainer(self, request: pb.KillContainerRequest, context: Any) -> pb.Container:
        self.calls.append(request)
        if request.id == "abcold":
            raise FailedPrecondition("container abcold is not running", remedy="Start it first.")
        return pb.Container()

    async def PauseContainer(self, request: pb.ContainerId, context: Any) -> pb.Container:
        self.calls.append(("pause", request.id))
        return pb.Container()

    async def UnpauseContainer(self, request: pb.ContainerId, context: Any) -> pb.Container:
        self.calls.append(("unpause", request.id))
        return pb.Container()

    async def UpdateContainer(self, request: pb.UpdateContainerRequest, context: Any) -> pb.Container:
        self.calls.append(request)
        return pb.Container()

    async def WatchEvents(self, request: pb.WatchEventsRequest, context: Any) -> AsyncIterator[pb.ContainerEvent]:
        self.calls.append(request)
        about = {"image": "web:1", "name": "shop_web.1.x", "tier": "front"}
        yield pb.ContainerEvent(action="oom", id="abcd", at=1.5, attributes=about)
        yield pb.ContainerEvent(action="die", id="abcd", at=2.0, attributes={**about, "exitCode": "137"})
        yield pb.ContainerEvent(action="create", id="efgh", at=3.0, attributes={"image": "db:1", "name": "efgh"})

    async def GetStats(self, request: pb.GetStatsRequest, context: Any) -> pb.GetStatsResponse:
        self.readings += 1
        stats = pb.ContainerStats(
            id="abcdefghijklmnopqrstuvwxy", read_at=100.0 + 2 * self.readings, cpu_ns=3 * 10**9 * self.readings,
            memory_bytes=48 << 20, memory_limit_bytes=64 << 20, pids=3, net_received_bytes=1500, net_sent_bytes=70,
            block_written_bytes=8_400_000, cpu_pressure=pb.Pressure(some_avg10=12.5, full_avg10=1.25),
        )  # fmt: skip
        return pb.GetStatsResponse(stats=[stats] if not request.ids or stats.id in request.ids else [])

    async def TopContainer(self, request: pb.ContainerId, context: Any) -> pb.TopContainerResponse:
        row = pb.ProcessRow(pid=70, parent_pid=7, uid=0, started_at=900, cpu_seconds=65, terminal="pts/3", command="sh")
        return pb.TopContainerResponse(processes=[row])

    async def RemoveContainer(self, request: Any, context: Any) -> pb.RemoveContainerResponse:
        self.calls.append(request)
        return pb.RemoveContainerResponse()

    async def WaitContainer(self, request: pb.ContainerId, context: Any) -> pb.Container:
        return pb.Container(exit_code=3)

    async def ReadLogs(self, request: pb.ReadLogsRequest, context: Any) -> AsyncIterator[pb.LogRecord]:
        self.calls.append(request)
        yield pb.LogRecord(timestamp=0, stream="stdout", data=b"out")
        yield pb.LogRecord(timestamp=1, stream="stderr", data=b"err")

    async def ExecContainer(self, inputs: AsyncIterator[pb.ExecInput], context: Any) -> AsyncIterator[pb.ExecOutput]:
        start = (await anext(aiter(inputs))).start
        self.calls.append(start)
        if start.args[0] == "missing":
            yield pb.ExecOutput(end=pb.ExecEnd(exit_code=127, error='executable "missing" not found in $PATH'))
            return
        yield pb.ExecOutput(pid=7)
        if start.detach:
            return
        while start.stdin:
            message = await anext(aiter(inputs))
            if message.close:
                break
            yield pb.ExecOutput(stdout=message.data)
        yield pb.ExecOutput(stderr=b"done\n")
        yield pb.ExecOutput(end=pb.ExecEnd(exit_code=9))


@pytest.fixture
def runtime(pyswarm: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRuntime]:
    monkeypatch.setattr(SystemClock, "now", lambda self: 1000.0)
    fake = FakeRuntime()
    with serving(
        pyswarm.paths.runtime_socket, lambda server: runtime_pb2_grpc.add_RuntimeServicer_to_server(fake, server)
    ):
        yield fake


def test_ls_is_dockers_table_of_what_runs(pyswarm: Any, runtime: FakeRuntime) -> None:
    assert pyswarm.ok("container", "ls") == (
        "CONTAINER ID   IMAGE     COMMAND                  CREATED         STATUS              PORTS     NAMES\n"
        'abcdefghijkl   web:1     "sh -c while :; do s…"   3 minutes ago   Up About a minute             '
        "abcdefghijklmnopqrstuvwxy\n"
    )


@pytest.mark.parametrize(
    ("status", "shown"), [("starting", "health: starting"), ("healthy", "healthy"), ("unhealthy", "unhealthy")]
)
def test_ls_shows_health_as_docker_does(pyswarm: Any, runtime: FakeRuntime, status: str, shown: str) -> None:
    runtime.containers[0].health.status = status
    assert pyswarm.ok("container", "ls", "--format", "{{.Status}}") == f"Up About a minute ({shown})\n"
    assert pyswarm.ok("container", "ls", "-q", "--filter", f"health={status}") == "abcdefghijkl\n"
    assert pyswarm.ok("container", "ls", "-aq", "--filter", "health=none") == "abcold\n"
    (told,) = json.loads(pyswarm.ok("container", "inspect", "abcdef"))
    assert told["health"]["status"] == status
    runtime.containers[0].state = pb.CONTAINER_PAUSED
    assert pyswarm.ok("container", "ls", "--format", "{{.Status}}") == "Up About a minute (Paused)\n"


def test_ls_of_all_shows_how_the_stopped_ones_ended(pyswarm: Any, runtime: FakeRuntime) -> None:
    statuses = pyswarm.ok("container", "ps", "-a", "--format", "{{.Names}}: {{.Status}}").splitlines()
    assert statuses == ["abcdefghijklmnopqrstuvwxy: Up About a minute", "abcold: Exited (3) 10 minutes ago"]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [("status=exited", ["abcold"]), ("label=tier=front", ["abcdefghijkl"]), ("label=tier=back", []),
     ("name=old", []), ("ancestor=web:1", ["abcdefghijkl"])],
)  # fmt: skip
def test_filters(pyswarm: Any, runtime: FakeRuntime, wanted: str, found: list[str]) -> None:
    assert pyswarm.ok("container", "ls", "-q", "-f", wanted).split() == found


def test_the_beginning_of_an_id_is_enough_when_it_is_the_only_one(pyswarm: Any, runtime: FakeRuntime) -> None:
    assert json.loads(pyswarm.ok("container", "inspect", "abcd"))[0]["config"]["image"] == "web:1"
    said = pyswarm.run("container", "inspect", "abc")
    assert (said.status, "2 ids" in said.err) == (1, True)
    said = pyswarm.run("container", "inspect", "none")
    assert (said.status, said.out.strip(), "no such container: none" in said.err) == (1, "[]", True)


def test_acting_on_several_tells_each_that_went_well_and_fails_for_the_rest(pyswarm: Any, runtime: FakeRuntime) -> None:
    said = pyswarm.run("container", "kill", "-s", "HUP", "abcd", "abcold")
    assert (said.status, said.out, "not running" in said.err) == (1, "abcd\n", True)
    assert [call.signal for call in runtime.calls] == ["HUP", "HUP"]
    pyswarm.ok("container", "stop", "-t", "3", "abcd")
    pyswarm.ok("container", "stop", "abcd")
    assert [(call.grace_seconds, call.use_default_grace) for call in runtime.calls[2:]] == [(3.0, False), (0.0, True)]
    pyswarm.ok("container", "rm", "-f", "abcold")
    assert runtime.calls[-1].force
    assert pyswarm.ok("container", "wait", "abcold") == "3\n"


def test_logs_keep_the_streams_apart(pyswarm: Any, runtime: FakeRuntime) -> None:
    said = pyswarm.run("container", "logs", "-n", "5", "abcd")
    assert (said.out, said.err) == ("out\n", "err\n")
    assert runtime.calls[0].tail == 5


def test_pause_unpause_and_update(pyswarm: Any, runtime: FakeRuntime) -> None:
    assert pyswarm.ok("container", "pause", "abcd") == "abcd\n"
    assert pyswarm.ok("container", "unpause", "abcd", "abcold") == "abcd\nabcold\n"
    full = "abcdefghijklmnopqrstuvwxy"
    assert runtime.calls == [("pause", full), ("unpause", full), ("unpause", "abcold")]
    pyswarm.ok("container", "update", "--cpus", "1.5", "--memory", "64m", "abcd")
    assert runtime.calls[-1] == pb.UpdateContainerRequest(id=full, nano_cpus=1_500_000_000, memory_bytes=64 << 20)
    pyswarm.ok("container", "update", "--pids-limit", "-1", "abcd")
    assert runtime.calls[-1] == pb.UpdateContainerRequest(id=full, pids=0)
    assert pyswarm.run("container", "update", "abcd").status == 1


def test_stats_shows_what_was_used_between_two_readings(pyswarm: Any, runtime: FakeRuntime) -> None:
    assert pyswarm.ok("container", "stats", "--no-stream") == (
        "CONTAINER ID   NAME                        CPU %     MEM USAGE / LIMIT   MEM %     NET I/O       BLOCK I/O    "
        "PIDS\n"
        "abcdefghijkl   abcdefghijklmnopqrstuvwxy   150.00%   48MiB / 64MiB       75.00%    1.5kB / 70B   0B / 8.4MB   "
        "3\n"
    )
    line = pyswarm.ok("container", "stats", "--no-stream", "--format", "{{.CPUPressure}} {{.IOPressure}}", "abcd")
    assert line == "12.50% / 1.25% --\n"
    assert "CPU PSI" in pyswarm.ok("container", "stats", "--no-stream", "--pressure")


def test_top_is_ps(pyswarm: Any, runtime: FakeRuntime) -> None:
    head, line = pyswarm.ok("container", "top", "abcd").splitlines()
    assert head.split() == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert [word for word in line.split() if ":" not in word] == ["root", "70", "7", "65", "pts/3", "sh"]
    assert "00:01:05" in line
    assert pyswarm.run("container", "top", "abcd", "aux").status == 1


def test_exec_exits_as_the_program_does(pyswarm: Any, runtime: FakeRuntime) -> None:
    said = pyswarm.run("container", "exec", "-u", "web", "-w", "/tmp", "-e", "A=b", "abcd", "ls", "-l", "--all")
    assert (said.status, said.err) == (9, "done\n")
    start = runtime.calls[0]
    assert (list(start.args), start.user, start.dir, list(start.env)) == (["ls", "-l", "--all"], "web", "/tmp", ["A=b"])
    assert start.container == "abcdefghijklmnopqrstuvwxy"
    said = pyswarm.run("container", "exec", "abcd", "missing")
    assert (said.status, 'executable "missing" not found' in said.err) == (127, True)
    assert pyswarm.run("container", "exec", "-d", "abcd", "daemon").status == 0


def test_exec_in_no_container_is_an_error(pyswarm: Any, runtime: FakeRuntime) -> None:
    said = pyswarm.run("container", "exec", "none", "true")
    assert (said.status, "no such container" in said.err) == (1, True)


def test_detach_keys_are_found_wherever_the_typing_is_cut() -> None:
    keys = DetachKeys(parse_keys("ctrl-p,ctrl-q"))
    assert keys.pass_on(b"ab") == (b"ab", False)
    assert keys.pass_on(b"c\x10") == (b"c", False)
    assert keys.pass_on(b"d") == (b"\x10d", False)
    assert keys.pass_on(b"\x10") == (b"", False)
    assert keys.pass_on(b"\x10") == (b"\x10", False)
    assert keys.pass_on(b"\x11rest") == (b"", True)


@pytest.mark.parametrize("text", ["", "ctrl-", "ctrl-pp", "ab", "ctrl-1"])
def test_detach_keys_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_keys(text)


def test_events_of_health_are_had_by_their_common_name_or_their_own() -> None:
    event = pb.ContainerEvent(action="health_status: healthy", id="a", attributes={"name": "a", "image": "i"})
    assert is_wanted(event, {"event": ["health_status"]})
    assert is_wanted(event, {"event": ["health_status: healthy"]})
    assert not is_wanted(event, {"event": ["health_status: unhealthy", "health", "healthy"]})


def test_events_are_told_as_docker_does_and_filtered(pyswarm: Any, runtime: FakeRuntime) -> None:
    told = pyswarm.ok("container", "events", "--since", "1", "--until", "5").splitlines()
    assert (runtime.calls[-1].since, runtime.calls[-1].until) == (1.0, 5.0)
    assert len(told) == 3
    assert told[1].endswith(" container die abcd (exitCode=137, image=web:1, name=shop_web.1.x, tier=front)")
    (only,) = pyswarm.ok(
        *("container", "events", "--format", "json", "--filter", "event=die", "--filter", "event=create"),
        *("--filter", "label=tier=front"),
    ).splitlines()
    event = json.loads(only)
    assert (event["Type"], event["Action"], event["Actor"]["ID"], event["time"]) == ("container", "die", "abcd", 2)
    assert event["Actor"]["Attributes"]["exitCode"] == "137"
    for wanted, count in (("container=ef", 1), ("container=shop_web.1.x", 2), ("image=db:1", 1), ("label=tier", 2)):
        assert len(pyswarm.ok("container", "events", "--filter", wanted).splitlines()) == count
    assert pyswarm.ok("container", "events", "--format", "{{.Action}}").split() == ["oom", "die", "create"]
