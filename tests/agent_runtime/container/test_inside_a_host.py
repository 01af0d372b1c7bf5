"""The daemon on a host that is itself made of namespaces, as in the lab: its pids, mounts and network are its own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from lib.runtime_host import RuntimeHost, runtime_host

from pyswarm.proto.v1 import runtime_pb2 as pb
from pyswarm.proto.v1 import types_pb2 as types

pytestmark = pytest.mark.kernel

NAMESPACES = (
    *("unshare", "--fork", "--pid", "--mount", "--net", "--uts", "--ipc", "--mount-proc"),
    *("--propagation", "private", "--kill-child"),
)


@pytest.fixture
async def lab_host(layer: Path) -> AsyncIterator[RuntimeHost]:
    async with runtime_host(layer, prefix=NAMESPACES) as running:
        yield running


async def test_containers_run_with_the_hosts_own_pids(lab_host: RuntimeHost) -> None:
    running = await lab_host.start("inner", "sh", "-c", "echo $$; hostname; sleep 1000")
    # The host's pid namespace has just begun: its numbers are small, whatever the machine's are.
    assert 1 < running.pid < 200
    await lab_host.follow_until("inner", "inner")
    assert await lab_host.lines("inner") == ["1", "inner"]
    assert (await lab_host.stop("inner", grace_seconds=0)).exit_code == 137


async def test_limits_are_enforced_there_too(lab_host: RuntimeHost) -> None:
    limits = types.Resources(memory_bytes=16 << 20)
    await lab_host.start("hungry", "tail", "/dev/zero", limits=limits)
    ended = await lab_host.wait("hungry")
    assert (ended.exit_code, ended.oom_killed) == (137, True)


async def test_a_power_cut_of_the_host_is_a_reboot(lab_host: RuntimeHost) -> None:
    await lab_host.start("up", "sleep", "1000")
    spawner = lab_host.spawner_pid()
    assert spawner
    # Killing unshare takes the host's first process along, and that the whole host.
    await lab_host.kill_daemon()
    await lab_host.gone(spawner)
    await lab_host.start_daemon()
    found = await lab_host.get("up")
    assert (found.state, found.exit_code) == (pb.STOPPED, 255)
    assert "the machine went down" in found.error
    assert lab_host.cgroups.names() == set()
    assert await lab_host.shell("echo again") == (0, ["again"])
