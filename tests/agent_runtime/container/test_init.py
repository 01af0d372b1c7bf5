"""An init of ours as a container's first process: reaps, hands on signals, ends as the program, is out of reach."""

import os
import signal

import pytest
import pytest_asyncio
from lib.runtime_host import RuntimeHost

from pyswarm.agent_runtime.bundle.build import INIT_POINT
from pyswarm.agent_runtime.kernel.init_program import INIT_PROGRAM
from pyswarm.proto.v1 import runtime_pb2 as pb

pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]

ORPHAN = "(exec sleep 300 & echo $!); exec sleep 1000"
EXEC_SECONDS = 20.0


@pytest_asyncio.fixture(loop_scope="module")
async def box(shared_host: RuntimeHost) -> RuntimeHost:
    return shared_host


async def execute(host: RuntimeHost, script: str) -> str:
    config = pb.ExecConfig(container="box", args=["sh", "-c", script], timeout_seconds=EXEC_SECONDS)
    outputs = [output async for output in host.stub.ExecContainer(iter([pb.ExecInput(start=config)]))]
    assert not outputs[-1].end.timed_out
    return b"".join(output.stdout for output in outputs).decode().strip()


async def test_processes_left_to_it_are_reaped(box: RuntimeHost) -> None:
    await box.start("box", "sh", "-c", ORPHAN, init=True)
    async for record in box.stub.ReadLogs(pb.ReadLogsRequest(id="box", tail=-1, follow=True)):
        orphan = int(record.data)
        break
    assert await execute(box, "tr '\\0' ' ' < /proc/1/cmdline") == f"{INIT_POINT} -- sh -c {ORPHAN}"
    # A zombie that nobody reaps would stay there.
    assert await execute(box, f"kill {orphan}; while [ -e /proc/{orphan} ]; do :; done; echo gone") == "gone"


async def test_a_signal_ends_a_program_that_has_no_handler_for_it(box: RuntimeHost) -> None:
    await box.start("box", "sleep", "1000", init=True)
    assert (await box.stop("box", grace_seconds=60)).exit_code == 143


async def test_a_signal_that_comes_before_the_init_is_there_is_not_lost(box: RuntimeHost) -> None:
    """The kernel keeps it from a pid 1 that has not asked for it."""
    await box.create("box", "sleep", "1000", init=True)
    (pid,) = box.cgroups.processes("box")
    os.kill(pid, signal.SIGTERM)
    await box.stub.StartContainer(pb.ContainerId(id="box"))
    assert (await box.wait("box")).exit_code == 143


async def test_signals_are_handed_on_to_the_program_alone(box: RuntimeHost) -> None:
    await box.start("box", "sh", "-c", "trap 'exit 5' USR1; echo up; while :; do sleep 1000 & wait; done", init=True)
    await box.follow_until("box", "up")
    await box.kill("box", "USR1")
    assert (await box.wait("box")).exit_code == 5


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("sh", "-c", "echo hi; exit 7"), 7, ["hi"]),
        (("sh", "-c", "kill -SEGV $$"), 139, []),
        (("/bin/echo", "a b", ""), 0, ["a b "]),
        (("nosuch",), 127, ['pyswarm-init: cannot execute "nosuch": no such file in the image, or its interpreter is '
                            "missing"]),
        (("/etc/passwd",), 126, ['pyswarm-init: cannot execute "/etc/passwd": permission denied']),
    ],
)  # fmt: skip
async def test_it_ends_as_the_program_does(
    box: RuntimeHost, words: tuple[str, ...], code: int, said: list[str]
) -> None:
    assert await box.run("box", *words, init=True) == (code, said)


async def test_what_the_program_is_given_is_what_it_would_have_without(box: RuntimeHost) -> None:
    status = "grep -E '^(Sig(Blk|Ign|Cgt)|Cap|NoNew|Seccomp:)' /proc/self/status"
    words = ("sh", "-c", f"id -u; id -g; pwd; echo $A; {status}; ls /proc/self/fd")
    settings = {"user": "7:8", "dir": "/tmp", "env": ["A=b"]}
    _, without = await box.run("box", *words, **settings)
    assert await box.run("box", *words, **settings, init=True) == (0, without)


async def test_the_program_has_the_terminal(box: RuntimeHost) -> None:
    code, lines = await box.run("box", "sh", "-c", "cut -d' ' -f5,8 /proc/self/stat", init=True, tty=True)
    group, foreground = lines[0].split()
    assert code == 0
    assert group == foreground != "1"


async def test_it_cannot_be_changed_from_inside_and_leaves_nothing_in_the_writable_layer(box: RuntimeHost) -> None:
    before = INIT_PROGRAM.read_bytes(), os.stat(INIT_PROGRAM).st_mode
    script = "".join(
        f"{command} 2>&1 | grep -oE 'Read-only file system|Text file busy';"
        for path in (INIT_POINT, "/proc/1/exe")
        for command in (f"(: >> {path})", f"(: > {path})", f"chmod 777 {path}", f"chown 7 {path}", f"touch {path}")
    )
    code, refusals = await box.run("box", "sh", "-c", script, init=True)
    # To append, it would have to be open without being cut short: that is refused first because it is being executed.
    assert (code, len(refusals), refusals.count("Text file busy")) == (0, 10, 2)
    assert (INIT_PROGRAM.read_bytes(), os.stat(INIT_PROGRAM).st_mode) == before
    await box.start("box", "true", init=True)
    await box.wait("box")
    upper = box.paths.runtime / "containers/box/upper"
    assert [path for path in upper.rglob("*") if path.name == os.path.basename(INIT_POINT)] == []
