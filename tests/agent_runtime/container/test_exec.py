"""Another process in a running container: its streams, its rights, its end, and what it cannot reach."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from lib.runtime_host import RuntimeHost

from pyswarm.proto.errors import FailedPrecondition, InvalidArgument, NotFound
from pyswarm.proto.v1 import runtime_pb2 as pb

pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(loop_scope="module")
async def host(shared_host: RuntimeHost) -> RuntimeHost:
    await shared_host.start("box", "sleep", "1000")
    return shared_host


@dataclass(frozen=True)
class Said:
    code: int
    error: str
    stdout: bytes
    stderr: bytes


def inputs(*args: str, then: Sequence[pb.ExecInput] = (), **config: Any) -> list[pb.ExecInput]:
    return [pb.ExecInput(start=pb.ExecConfig(container="box", args=args, **config)), *then]


async def execute(host: RuntimeHost, *args: str, then: Sequence[pb.ExecInput] = (), **config: Any) -> Said:
    async def send() -> AsyncIterator[pb.ExecInput]:
        for message in inputs(*args, then=then, **config):
            yield message

    stdout, stderr = b"", b""
    async with asyncio.timeout(30):
        async for output in host.stub.ExecContainer(send()):
            stdout += output.stdout
            stderr += output.stderr
    return Said(output.end.exit_code, output.end.error, stdout, stderr)


def sh(script: str) -> tuple[str, str, str]:
    return ("sh", "-c", script)


async def test_output_comes_by_stream_and_the_exit_code_is_the_programs(host: RuntimeHost) -> None:
    said = await execute(host, *sh("echo out; echo err >&2; exit 7"))
    assert said == Said(7, "", b"out\n", b"err\n")


async def test_a_program_killed_by_a_signal_reports_128_plus_its_number(host: RuntimeHost) -> None:
    assert (await execute(host, *sh("kill -9 $$"))).code == 137


async def test_it_is_in_every_namespace_and_cgroup_of_its_container(host: RuntimeHost) -> None:
    pid = (await host.get("box")).pid
    script = "for n in cgroup ipc mnt net pid uts; do readlink /proc/self/ns/$n; done; readlink /proc/self/ns/user"
    said = await execute(host, *sh(script))
    kinds = ("cgroup", "ipc", "mnt", "net", "pid", "uts", "user")
    assert said.stdout.decode().split() == [os.readlink(f"/proc/{pid}/ns/{kind}") for kind in kinds]
    said = await execute(host, "cat", "/proc/self/cgroup")
    ours = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines())
    assert ours
    member = await asyncio.create_task(execute(host, *sh("cat /proc/self/stat; cat /proc/self/cgroup")))
    for line in member.stdout.decode().splitlines()[1:]:
        number, rest = line.split(":", 1)
        controllers, _, path = rest.partition(":")
        ours_path = ours[number].partition(":")[2]
        if ours_path.endswith("/box"):
            assert path == "/", f"{controllers} shows {path}: not in the container's cgroup"


async def test_it_counts_against_the_containers_limits(host: RuntimeHost) -> None:
    before = host.cgroups.processes("box")
    said = await execute(host, "sleep", "1000", detach=True)
    assert said.code == 0
    assert len(host.cgroups.processes("box") - before) == 1


async def test_it_has_the_rights_of_the_containers_first_process_and_no_more(host: RuntimeHost) -> None:
    wanted = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Umask")

    def rights(text: str) -> list[str]:
        return [line for line in text.splitlines() if line.split(":")[0] in wanted]

    said = await execute(host, "cat", "/proc/self/status")
    own = Path(f"/proc/{(await host.get('box')).pid}/status").read_text()
    assert rights(said.stdout.decode()) == rights(own)
    assert any(line.startswith("CapInh:\t0000000000000000") for line in rights(own))


async def test_another_user_has_its_ids_groups_home_and_no_capabilities(host: RuntimeHost) -> None:
    said = await execute(host, *sh("id -u; id -G; echo $HOME; grep CapEff /proc/self/status"), user="web")
    uid, _, home, effective = said.stdout.decode().splitlines()
    assert uid != "0"
    assert home
    assert effective.split()[1] == "0" * 16


async def test_environment_and_directory_are_the_containers_with_ones_own_over_it(host: RuntimeHost) -> None:
    said = await execute(host, *sh("echo $FROM_IMAGE $MORE; pwd"), env=["MORE=too"], dir="/tmp")
    assert said.stdout == b"yes too\n/tmp\n"


async def test_input_is_handed_on_until_it_ends(host: RuntimeHost) -> None:
    data = bytes(range(256)) * 4096
    pieces = [pb.ExecInput(data=data[at : at + 65536]) for at in range(0, len(data), 65536)]
    said = await execute(host, "cat", stdin=True, then=[*pieces, pb.ExecInput(close=True)])
    assert (said.code, said.stdout == data) == (0, True)


async def test_without_input_it_reads_an_end_at_once(host: RuntimeHost) -> None:
    assert (await execute(host, "cat")).code == 0


async def test_large_output_arrives_whole(host: RuntimeHost) -> None:
    said = await execute(host, *sh("head -c 20000000 /dev/zero"))
    assert said.stdout == bytes(20_000_000)


async def test_a_terminal_is_one_with_a_size_that_follows(host: RuntimeHost) -> None:
    said = await execute(
        host, *sh("test -t 0 && test -t 1 && test -t 2 && stty size; echo $TERM"), tty=True,
        size=pb.TerminalSize(rows=33, columns=101),
    )  # fmt: skip
    assert said.stdout == b"33 101\r\nxterm\r\n"
    resize = [pb.ExecInput(resize=pb.TerminalSize(rows=5, columns=6)), pb.ExecInput(data=b"go\n")]
    said = await execute(host, *sh("read x; stty size"), tty=True, stdin=True, then=resize)
    assert said.stdout.endswith(b"5 6\r\n")


async def test_control_c_on_a_terminal_interrupts_the_program(host: RuntimeHost) -> None:
    said = await execute(host, "sleep", "1000", tty=True, stdin=True, then=[pb.ExecInput(data=b"\x03")])
    assert said.code == 130


@pytest.mark.parametrize(("program", "code"), [("missing", 127), ("/missing", 127), ("/etc", 126)])
async def test_a_program_that_cannot_be_executed_says_so_as_a_shell_would(
    host: RuntimeHost, program: str, code: int
) -> None:
    said = await execute(host, program)
    assert said.code == code
    assert program in said.error


async def test_only_a_running_container_can_be_joined(host: RuntimeHost) -> None:
    await host.stop("box", 0)
    with pytest.raises(FailedPrecondition):
        await execute(host, "true")
    await host.remove("box")
    with pytest.raises(NotFound):
        await execute(host, "true")


async def test_a_command_must_be_given(host: RuntimeHost) -> None:
    with pytest.raises(InvalidArgument):
        await execute(host)


async def test_it_goes_on_when_its_caller_goes_away(host: RuntimeHost) -> None:
    call = host.stub.ExecContainer(iter(inputs(*sh("while :; do echo much; done"))))
    assert (await call.read()).pid > 0
    assert (await call.read()).stdout.startswith(b"much")
    call.cancel()
    said = await execute(host, *sh("sleep 0.3; ps | grep -c '[w]hile'"))
    assert said.stdout.split() == [b"1"]


async def test_it_outlives_the_daemon_and_is_not_taken_for_one_started_later(host: RuntimeHost) -> None:
    await execute(host, *sh("until test -e /go; do sleep 0.05; done; exit 3"), detach=True)
    spawner = host.spawner_pid()
    await host.kill_daemon()
    await host.start_daemon()
    said = await execute(host, *sh("touch /go; until ! ps | grep -q '[u]ntil test'; do :; done; exit 4"))
    assert said.code == 4
    assert host.spawner_pid() == spawner


async def test_after_its_timeout_it_is_killed_whether_or_not_anybody_listens(host: RuntimeHost) -> None:
    call = host.stub.ExecContainer(iter(inputs(*sh("echo up; exec sleep 1000"), timeout_seconds=0.3)))
    seen = [output async for output in call]
    assert seen[-1].end == pb.ExecEnd(exit_code=137, timed_out=True)
    call = host.stub.ExecContainer(iter(inputs("sleep", "1000", timeout_seconds=0.3, detach=True)))
    await host.gone((await call.read()).pid)
    with pytest.raises(InvalidArgument):
        await execute(host, "true", timeout_seconds=-1)


# What it cannot reach


async def test_only_standard_streams_are_open(host: RuntimeHost) -> None:
    said = await execute(host, "ls", "/proc/self/fd")
    assert said.stdout.split() == [b"0", b"1", b"2", b"3"]  # 3 is ls's own


@pytest.mark.parametrize("number", range(3, 24))
async def test_no_descriptor_of_ours_is_a_way_out(host: RuntimeHost, number: int) -> None:
    # CVE-2024-21626
    for step in ("", "/..", "/../../.."):
        assert (await execute(host, "pwd", dir=f"/proc/self/fd/{number}{step}")).code != 0
        assert (await execute(host, f"/proc/self/fd/{number}{step}/bin/sh", "-c", "true")).code in (126, 127)


async def test_a_container_cannot_look_into_a_process_that_joins_it(host: RuntimeHost) -> None:
    # CVE-2019-5736: whatever is seen through /proc/PID/exe is the container's own program, or nothing.
    inside = Path(f"/proc/{(await host.get('box')).pid}/root")
    spy = (
        "while :; do for p in /proc/[0-9]*; do "
        "exe=$(readlink $p/exe) && case $exe in /bin/*) ;; *) echo $exe >> /seen;; esac; done; done"
    )
    await execute(host, *sh(spy), detach=True)
    for _ in range(60):
        await execute(host, "true")
    assert not (inside / "seen").exists()
