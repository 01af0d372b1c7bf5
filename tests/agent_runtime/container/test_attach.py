"""Being attached to a container: its streams, its terminal, several at once, and over a restart of the daemon."""

import os
import signal

import pytest
import pytest_asyncio
from lib.attached import attached
from lib.runtime_host import RuntimeHost

from pyswarm.agent_runtime.container.taps import MOST_WAITING_BYTES, Taps
from pyswarm.proto.errors import FailedPrecondition
from pyswarm.proto.v1 import runtime_pb2 as pb
from pyswarm.proto.v1 import types_pb2 as types

ECHO = "while read -r line; do echo out $line; echo err $line >&2; [ $line = end ] && exit 5; done"


@pytest_asyncio.fixture(loop_scope="module")
async def box(shared_host: RuntimeHost) -> RuntimeHost:
    return shared_host


kernel = pytest.mark.kernel
on_one_loop = pytest.mark.asyncio(loop_scope="module")


@kernel
@on_one_loop
@pytest.mark.parametrize("driver", ["json-file", "none"])
async def test_streams_are_apart_and_the_exit_code_comes_last(box: RuntimeHost, driver: str) -> None:
    await box.start("talks", "sh", "-c", ECHO, open_stdin=True, log_driver=types.LogDriver(name=driver))
    async with attached(box, "talks") as one:
        one.say(b"hello\n")
        assert await one.until(b"out hello\n") == b"out hello\n"
        assert await one.until(b"err hello\n", "stderr") == b"err hello\n"
        one.say(b"end\n")
        assert (await one.to_the_end()).exit_code == 5
        assert one.said == {"stdout": b"out hello\nout end\n", "stderr": b"err hello\nerr end\n"}


@kernel
@on_one_loop
async def test_several_are_attached_at_once_and_one_that_leaves_takes_nothing_with_it(box: RuntimeHost) -> None:
    await box.start("talks", "sh", "-c", ECHO, open_stdin=True)
    async with attached(box, "talks") as one:
        async with attached(box, "talks") as other, attached(box, "talks", stdin=False) as listener:
            other.say(b"first\n")
            for each in (one, other, listener):
                assert await each.until(b"out first\n") == b"out first\n"
        one.say(b"second\n")
        assert await one.until(b"out second\n") == b"out first\nout second\n"
    async with attached(box, "talks") as late:
        late.say(b"third\n")
        assert await late.until(b"out third\n") == b"out third\n", "only what is said from now on"


@kernel
@on_one_loop
@pytest.mark.parametrize("driver", ["json-file", "none"])
async def test_one_who_does_not_listen_holds_up_nothing(box: RuntimeHost, driver: str) -> None:
    flood = "read go; head -c 50000000 /dev/zero; exit 3"
    await box.start("flood", "sh", "-c", flood, open_stdin=True, log_driver=types.LogDriver(name=driver))
    async with attached(box, "flood") as idle:
        idle.say(b"go\n")
        assert (await box.wait("flood")).exit_code == 3
        assert (await idle.to_the_end()).exit_code == 3


@kernel
@on_one_loop
async def test_a_terminal_is_one_that_can_be_resized_and_its_words_are_kept(box: RuntimeHost) -> None:
    script = "test -t 0 && test -t 1 && test -t 2 && echo all $TERM; read x; stty size; read x; stty size; exit 4"
    await box.start("shell", "sh", "-c", script, tty=True, open_stdin=True)
    await box.follow_until("shell", "all xterm\r")
    async with attached(box, "shell", rows=24, columns=100) as one:
        one.say(b"\n")
        await one.until(b"24 100\r\n")
        one.send(pb.ExecInput(resize=pb.TerminalSize(rows=50, columns=132)))
        one.say(b"\n")
        await one.until(b"50 132\r\n")
        assert (await one.to_the_end()).exit_code == 4
        assert one.said["stderr"] == b""
    assert [record.data for record in await box.records("shell")] == [
        b"all xterm\r",
        b"\r",
        b"24 100\r",
        b"\r",
        b"50 132\r",
    ]


@kernel
@on_one_loop
async def test_ctrl_c_on_a_terminal_reaches_the_program(box: RuntimeHost) -> None:
    await box.start(
        "shell", "sh", "-c", "trap 'exit 9' INT; echo here; while :; do read x; done", tty=True, open_stdin=True
    )
    await box.follow_until("shell", "here\r")  # before its trap is set it would not feel it
    async with attached(box, "shell") as one:
        one.say(b"\x03")
        assert (await one.to_the_end()).exit_code == 9


@kernel
@on_one_loop
async def test_a_program_with_a_terminal_that_ends_at_once_has_its_last_words(box: RuntimeHost) -> None:
    assert await box.run("brief", "seq", "2000", tty=True) == (0, [f"{number}\r" for number in range(1, 2001)])


@kernel
@on_one_loop
async def test_without_an_open_stdin_there_is_an_end_to_read(box: RuntimeHost) -> None:
    assert await box.run("reads", "cat") == (0, [])


@kernel
@on_one_loop
async def test_a_signal_is_handed_on(box: RuntimeHost) -> None:
    await box.start("waits", "sh", "-c", "trap 'exit 7' TERM; while :; do sleep 1000 & wait; done")
    async with attached(box, "waits", stdin=False) as one:
        one.send(pb.ExecInput(signal=str(int(signal.SIGTERM))))
        assert (await one.to_the_end()).exit_code == 7


@kernel
@on_one_loop
async def test_only_what_runs_can_be_attached_to(box: RuntimeHost) -> None:
    await box.create("created", "true")
    with pytest.raises(FailedPrecondition, match="cannot attach to a stopped container"):
        async with attached(box, "created"):
            pass
    await box.start("frozen", "sleep", "1000")
    await box.stub.PauseContainer(pb.ContainerId(id="frozen"))
    with pytest.raises(FailedPrecondition, match="cannot attach to a paused container"):
        async with attached(box, "frozen"):
            pass


@kernel
async def test_terminal_and_stdin_survive_the_daemon(host: RuntimeHost) -> None:
    await host.start("shell", "sh", "-c", "while read x; do echo got $x; done", tty=True, open_stdin=True)
    await host.start("pipe", "sh", "-c", ECHO, open_stdin=True)
    async with attached(host, "shell") as one:
        one.say(b"one\n")
        await one.until(b"got one\r\n")
    await host.kill_daemon()
    await host.start_daemon()
    async with attached(host, "shell") as one, attached(host, "pipe") as other:
        one.say(b"two\n")
        await one.until(b"got two\r\n")
        other.say(b"end\n")
        assert (await other.to_the_end()).exit_code == 5
    assert "got one\r" in await host.lines("shell")


@kernel
async def test_what_a_terminal_said_and_how_it_ended_without_a_daemon_is_known_to_the_next(host: RuntimeHost) -> None:
    started = await host.start(
        "shell", "sh", "-c", "trap 'echo bye; exit 6' TERM; echo hi; while :; do sleep 1000 & wait; done", tty=True
    )
    await host.follow_until("shell", "hi\r")
    await host.kill_daemon()
    os.kill(started.pid, signal.SIGTERM)
    await host.gone(started.pid)
    await host.start_daemon()
    assert (await host.wait("shell")).exit_code == 6
    assert await host.lines("shell") == ["hi\r", "bye\r"]


async def test_a_listener_misses_what_it_has_no_room_for_and_hears_the_rest() -> None:
    taps = Taps()
    listener = taps.listen()
    half = b"x" * (MOST_WAITING_BYTES // 2)
    for data in (b"begin", half, half, b"end"):
        taps.tell("stdout", data)
    taps.close()
    heard = [await listener.next() for _ in range(4)]
    assert heard == [("stdout", b"begin"), ("stdout", half), ("stdout", b"end"), None]
    assert await taps.listen().next() is None
