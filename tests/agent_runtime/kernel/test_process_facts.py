"""Who a process is and how it ended, seen by one that is not its parent."""

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from pyswarm.agent_runtime.container.exit_watch import ExitWatch
from pyswarm.agent_runtime.kernel.process import (
    ProcessId,
    can_tell_exit_status,
    exit_code,
    machine_identity,
    open_pidfd,
    start_ticks,
)


def started(script: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE)


@pytest.mark.parametrize(("status", "code"), [(0, 0), (42 << 8, 42), (9, 137), (signal.SIGSEGV | 0x80, 139)])
def test_wait_statuses_become_exit_codes(status: int, code: int) -> None:
    assert exit_code(status) == code


def test_a_process_is_its_pid_and_its_start() -> None:
    child = started("input()")
    ticks = start_ticks(child.pid)
    assert ticks
    descriptor = open_pidfd(ProcessId(child.pid, ticks))
    assert descriptor is not None
    os.close(descriptor)
    # The same pid with another start is another process: pids are reused.
    assert open_pidfd(ProcessId(child.pid, ticks - 1)) is None
    child.kill()
    child.wait()
    assert open_pidfd(ProcessId(child.pid, ticks)) is None
    assert start_ticks(child.pid) is None


def test_the_machine_is_the_same_until_it_reboots() -> None:
    assert machine_identity() == machine_identity()
    assert "pid:[" in machine_identity()


@pytest.mark.parametrize(("ending", "code"), [("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 137)])
async def test_the_end_of_somebody_elses_child_is_learned_once_it_is_reaped(ending: str, code: int) -> None:
    child = started(f"input(); {ending}")
    told: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
    watch = ExitWatch()
    pidfd = os.pidfd_open(child.pid)
    watch.watch(pidfd, told.set_result)
    os.close(pidfd)
    try:
        child.communicate(b"\n")
        status = await asyncio.wait_for(told, 10)
        if can_tell_exit_status():
            assert status is not None
            assert exit_code(status) == code
        else:
            assert status is None
    finally:
        watch.close()
