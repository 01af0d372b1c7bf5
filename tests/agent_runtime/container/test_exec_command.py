"""`pyswarm container exec` as a process of its own, on a terminal and off it."""

import asyncio
import os
import pty
import select
import subprocess
import sys
import termios
from pathlib import Path

import pytest
import pytest_asyncio
from lib.runtime_host import RuntimeHost

pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]

PYSWARM = (str(Path(sys.executable).with_name("pyswarm")),)


@pytest_asyncio.fixture(loop_scope="module")
async def host(shared_host: RuntimeHost) -> RuntimeHost:
    await shared_host.start("box", "sleep", "1000")
    return shared_host


async def command(host: RuntimeHost, *words: str, data: bytes = b"") -> tuple[int, bytes, bytes]:
    words = (*PYSWARM, "--root", str(host.root), "container", *words)
    done = await asyncio.to_thread(subprocess.run, words, input=data, capture_output=True, timeout=30, check=False)
    return done.returncode, done.stdout, done.stderr


async def test_input_output_and_exit_status_pass_through(host: RuntimeHost) -> None:
    data = os.urandom(300_000)
    assert await command(host, "exec", "-i", "box", "cat", data=data) == (0, data, b"")
    assert await command(host, "exec", "box", "sh", "-c", "echo no >&2; exit 42") == (42, b"", b"no\n")
    assert (await command(host, "exec", "box", "/etc"))[0] == 126
    assert (await command(host, "exec", "box", "missing"))[0] == 127


async def test_on_a_terminal_it_is_a_shell_and_the_detach_keys_let_go_of_it(host: RuntimeHost) -> None:
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    words = (*PYSWARM, "--root", str(host.root), "container", "exec", "-it", "box", "sh")
    client = subprocess.Popen(words, stdin=slave, stdout=slave, stderr=slave)  # noqa: ASYNC220
    try:
        os.write(master, b"test -t 0 && echo is $((6 * 7))\n")
        seen = b""
        os.set_blocking(master, False)
        while b"is 42\r\n" not in seen:
            ready, _, _ = await asyncio.to_thread(select.select, [master], [], [], 30)
            assert ready, seen
            seen += os.read(master, 4096)
        assert len(host.cgroups.processes("box")) == 2
        os.write(master, b"\x10\x11")
        assert await asyncio.to_thread(client.wait, 30) == 0
        assert termios.tcgetattr(slave) == before
        assert len(host.cgroups.processes("box")) == 2, "the shell goes on"
    finally:
        client.kill()
        await asyncio.to_thread(client.wait)
        os.close(master)
        os.close(slave)


async def test_listing_and_stopping(host: RuntimeHost) -> None:
    assert (await command(host, "ls", "--format", "{{.ID}} {{.State}}"))[1] == b"box running\n"
    assert await command(host, "kill", "box") == (0, b"box\n", b"")
    assert await command(host, "wait", "box") == (0, b"137\n", b"")
    assert await command(host, "rm", "box") == (0, b"box\n", b"")
