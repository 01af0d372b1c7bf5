"""A container that executes /proc/self/exe runs our Python, and can do nothing to the file (CVE-2019-5736)."""

import asyncio
import os
import shutil
import sys
import sysconfig
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from lib.runtime_host import RuntimeHost, runtime_host

from pyswarm.proto.v1 import runtime_pb2 as pb
from pyswarm.proto.v1 import types_pb2 as types

pytestmark = pytest.mark.kernel

_LIBRARIES = ("/lib", "/lib64", "/usr/lib", sys.base_prefix)
_HOLD_AND_WRITE = """
import os
held = os.open("/proc/self/exe", os.O_RDONLY)
os.set_inheritable(held, True)
os.execv("/bin/sh", ["sh", "-c", f'''
    mkfifo /ask /answer
    echo holding
    while read asked < /ask; do
        (printf stolen 1<>/proc/self/fd/{held}) 2>&1 | sed "s/.*: //" > /answer
    done
'''])
"""
_CHANGE = """
import errno, os
status = os.stat("/proc/self/exe")
for attempt in (
    lambda: os.truncate("/proc/self/exe", 3),
    lambda: os.chmod("/proc/self/exe", 0o4777),
    lambda: os.chown("/proc/self/exe", 1000, 1000),
    lambda: os.utime("/proc/self/exe", (0, 0)),
    lambda: os.setxattr("/proc/self/exe", "user.x", b"x"),
):
    try:
        attempt()
        print("done")
    except OSError as error:
        print(errno.errorcode[error.errno])
"""


@dataclass(frozen=True)
class Theft:
    """A daemon run by a Python of its own, so that no other process keeps that file from being written."""

    host: RuntimeHost
    program: Path

    async def start(self, name: str, script: str) -> None:
        mounts = [
            types.Mount(type=types.BIND, source=path, target=path, read_only=True)
            for path in _LIBRARIES
            if os.path.isdir(path)
        ]
        env = [f"PYTHONHOME={sys.base_prefix}", f"LD_LIBRARY_PATH={sysconfig.get_config_var('LIBDIR')}"]
        await self.host.start(name, "/proc/self/exe", "-I", "-S", "-c", script, mounts=mounts, env=env)


@pytest.fixture
async def theft(layer: Path, tmp_path: Path) -> AsyncIterator[Theft]:
    program = tmp_path / "venv/bin/python"
    program.parent.mkdir(parents=True)
    shutil.copy2(os.path.realpath(sys.executable), program)
    shutil.copy2(Path(sys.prefix) / "pyvenv.cfg", tmp_path / "venv")
    (tmp_path / "venv/lib").symlink_to(Path(sys.prefix) / "lib")
    async with runtime_host(layer, python=program) as host:
        yield Theft(host, program)


async def test_a_container_cannot_change_the_file(theft: Theft) -> None:
    before, facts = theft.program.read_bytes(), theft.program.stat()
    await theft.start("thief", _CHANGE)
    assert (await theft.host.wait("thief")).exit_code == 0
    assert await theft.host.lines("thief") == ["EROFS"] * 5
    after = theft.program.stat()
    assert theft.program.read_bytes() == before
    assert (after.st_mode, after.st_uid, after.st_mtime) == (facts.st_mode, facts.st_uid, facts.st_mtime)


async def test_not_even_when_nobody_executes_the_file_any_more(theft: Theft) -> None:
    before = theft.program.read_bytes()
    await theft.start("thief", _HOLD_AND_WRITE)
    await theft.host.follow_until("thief", "holding")
    inside = Path(f"/proc/{(await theft.host.get('thief')).pid}/root")

    def attempt() -> str:
        (inside / "ask").write_text("\n")
        return (inside / "answer").read_text()

    async with asyncio.timeout(20):
        assert await asyncio.to_thread(attempt) == "Text file busy\n"
        await theft.host.kill_daemon()
        await theft.host.kill_spawner()
        assert await asyncio.to_thread(attempt) == "Read-only file system\n"
    assert theft.program.read_bytes() == before
    await theft.host.start_daemon()
    assert (await theft.host.get("thief")).state == pb.CONTAINER_RUNNING


async def test_a_joining_process_has_no_other_one(theft: Theft) -> None:
    await theft.host.start("box", "sleep", "1000")
    spawner = theft.host.spawner_pid()
    assert os.path.samefile(f"/proc/{spawner}/exe", theft.program)
    with pytest.raises(OSError, match="Read-only"):
        os.utime(f"/proc/{spawner}/exe", (0, 0))
