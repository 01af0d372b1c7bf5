"""`pyswarm container attach` as a process of its own, on a terminal and off it."""

import asyncio
import os
import pty
import select
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from lib.runtime_host import RuntimeHost

pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]

PYSWARM = str(Path(sys.executable).with_name("pyswarm"))
ECHO = "while read -r line; do echo out $line; echo err $line >&2; [ $line = end ] && exit 5; done"


def command(host: RuntimeHost, *words: str) -> list[str]:
    return [PYSWARM, "--root", str(host.root), "container", "attach", *words]


async def read_until(descriptor: int, text: bytes) -> bytes:
    seen = b""
    while text not in seen:
        ready, _, _ = await asyncio.to_thread(select.select, [descriptor], [], [], 30)
        assert ready, seen
        seen += os.read(descriptor, 4096)
    return seen


async def test_streams_and_exit_status_pass_through(shared_host: RuntimeHost) -> None:
    await shared_host.start("box", "sh", "-c", ECHO, open_stdin=True)
    words = command(shared_host, "box")
    done = await asyncio.to_thread(subprocess.run, words, input=b"end\n", capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (5, b"out end\n", b"err end\n")


async def test_the_detach_keys_let_go_of_a_terminal(shared_host: RuntimeHost) -> None:
    await shared_host.start("box", "sh", tty=True, open_stdin=True)
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (33, 99))
    before = termios.tcgetattr(slave)
    for keys, typed in ((), b"\x10\x11"), (("--detach-keys", "ctrl-a,x"), b"\x01x"):
        words = command(shared_host, *keys, "box")
        client = subprocess.Popen(words, stdin=slave, stdout=slave, stderr=slave)  # noqa: ASYNC220
        try:
            os.write(master, b"stty size; echo is $((6 * 7))\n")
            assert b"33 99\r\n" in await read_until(master, b"is 42\r\n")
            os.write(master, typed)
            assert await asyncio.to_thread(client.wait, 30) == 0
            assert termios.tcgetattr(slave) == before
        finally:
            client.kill()
    assert (await shared_host.get("box")).pid, "the shell goes on"


async def test_signals_are_the_containers_unless_they_shall_not_be(shared_host: RuntimeHost) -> None:
    script = "trap 'exit 7' TERM; echo ready; while :; do echo tick; sleep 0.1; done"
    for proxy, status in (("true", 7), ("false", -signal.SIGTERM)):
        await shared_host.start(f"box-{proxy}", "sh", "-c", script)
        words = command(shared_host, "--no-stdin", f"--sig-proxy={proxy}", f"box-{proxy}")
        client = subprocess.Popen(words, stdout=subprocess.PIPE)  # noqa: ASYNC220
        try:
            assert client.stdout is not None
            await read_until(client.stdout.fileno(), b"tick")
            client.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(client.wait, 30) == status
        finally:
            client.kill()
            client.stdout.close()


async def test_what_cannot_be_is_refused(shared_host: RuntimeHost) -> None:
    await shared_host.start("shell", "sh", tty=True, open_stdin=True)
    for words, said in (
        (("shell",), b"because stdin is not a terminal"),
        (("--detach-keys", "nonsense", "shell"), b'invalid detach keys "nonsense"'),
        (("nobody",), b"no such container: nobody"),
    ):
        done = await asyncio.to_thread(
            subprocess.run, command(shared_host, *words), input=b"", capture_output=True, timeout=30, check=False
        )
        assert done.returncode == 1
        assert said in done.stderr
