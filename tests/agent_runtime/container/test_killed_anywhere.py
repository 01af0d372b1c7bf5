"""Kill the daemon at each step of a container's life, the spawner at any moment: what runs is adopted, else it is gone.

`make kills ROUNDS=n` does many more rounds than `make test`. Fewer rounds than steps are spread over them, from
another one on each time.
"""

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import grpc
import pytest
from lib.kill_at_step import SAID, VARIABLE
from lib.runtime_host import RuntimeHost

from pyswarm.agent_runtime.kernel.process import can_tell_exit_status
from pyswarm.proto.errors import SwarmError
from pyswarm.proto.v1 import runtime_pb2 as pb

pytestmark = pytest.mark.kernel

ROUNDS = int(os.environ.get("KILL_ROUNDS", "12"))
SEED = int(os.environ.get("KILL_SEED", str(random.randrange(1 << 32))))
LIFE = "trap 'exit 7' USR1; : > /ready; while :; do sleep 1000 & wait; done"
SECONDS = 10.0
Life = Callable[[RuntimeHost], Coroutine[Any, Any, None]]


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something in another process that no event announces."""
    async with asyncio.timeout(SECONDS):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def live(host: RuntimeHost) -> None:
    """Take a container through its whole life."""
    await host.start("c", "sh", "-c", LIFE)

    async def send() -> AsyncIterator[pb.ExecInput]:
        yield pb.ExecInput(start=pb.ExecConfig(container="c", args=["true"]))

    async for _ in host.stub.ExecContainer(send()):
        pass
    await host.stop("c", grace_seconds=0)
    await host.remove("c")


async def run(host: RuntimeHost) -> None:
    """Take a container through its whole life in one call, which erases what it leaves after it is gone."""
    config = pb.ContainerConfig(image="rootfs", args=["true"])
    async for _ in host.stub.RunContainer(pb.RunContainerRequest(id="c", config=config, remove=True)):
        pass


async def cut_short(life: asyncio.Task[None]) -> bool:
    """Wait for the end of a life; return whether it was cut short. An answer that never comes would be a fault."""
    async with asyncio.timeout(60):
        try:
            await life
        except (SwarmError, grpc.RpcError):
            return True
    return False


async def count_steps(host: RuntimeHost, life: Life) -> int:
    host.environment = {VARIABLE: "-1"}
    await host.start_daemon()
    assert host.daemon is not None
    host.daemon.send_signal(signal.SIGUSR2)
    await life(host)
    await host.erased()
    host.daemon.send_signal(signal.SIGUSR2)
    await until(lambda: SAID in host.log())
    return int(host.log().rpartition(SAID)[2].split()[0])


async def settled(host: RuntimeHost) -> list[pb.Container]:
    """Return the containers once their cgroups say the same of them: alive, or gone."""
    async with asyncio.timeout(SECONDS):
        while True:
            listed = (await host.stub.ListContainers(pb.ListContainersRequest())).containers
            alive = {name for name in host.cgroups.names() if host.cgroups.processes(name)}
            if {c.id for c in listed if c.state == pb.CONTAINER_RUNNING} == alive == host.cgroups.names():
                return list(listed)
            await asyncio.sleep(0.02)


async def assert_nothing_is_lost(host: RuntimeHost, *, both_died: bool = False) -> str:
    """Look at what is there after a kill; return what became of the container."""
    found = await settled(host)
    if not found:
        return "gone"
    (container,) = found
    if container.state == pb.CREATED:
        return "created"
    if container.state == pb.STOPPED:
        # It was killed by `stop`, or never got as far as its program. Its code is known, unless it ended at the very
        # moment when nobody was there.
        known = container.exit_code == 137 or "start" in container.error
        assert known or (both_died and "exit status was lost" in container.error), container
        return "stopped"
    ready = Path(f"/proc/{container.pid}/root/ready")
    await until(ready.exists)
    os.kill(container.pid, signal.SIGUSR1)
    ended = await host.wait("c")
    assert (ended.exit_code, ended.error) == (7, "")
    return "running"


async def assert_no_descriptor_is_left(host: RuntimeHost, at_rest: int) -> None:
    folder = Path(f"/proc/{host.spawner_pid()}/fd")
    await until(lambda: len(list(folder.iterdir())) <= at_rest)


async def assert_a_run_is_not_lost(host: RuntimeHost) -> str:
    """Look at what is there after a kill in the middle of a run; return what became of its container."""
    found = await settled(host)
    if not found:
        return "gone"
    (container,) = found
    if container.state == pb.CREATED:
        return "created"
    ended = await host.wait("c")
    assert (ended.exit_code, ended.error) == (0, "") or "start" in ended.error, ended
    return "ended"


async def killed_at_any_step(host: RuntimeHost, life: Life, look: Callable[[RuntimeHost], Awaitable[str]]) -> set[str]:
    """Kill the daemon at its steps through a life; `look` after each time. Return what became of the containers."""
    await host.kill_daemon()
    steps = await count_steps(host, life)
    at_rest = len(list(Path(f"/proc/{host.spawner_pid()}/fd").iterdir()))
    assert steps > 50, "the hook sees the steps"
    seen = set()
    first = random.Random(SEED).randrange(steps)
    print(f"KILL_SEED={SEED}", file=sys.stderr)
    for number in range(ROUNDS):
        at = (first + (number if steps <= ROUNDS else number * steps // ROUNDS)) % steps
        await host.kill_daemon()
        host.environment = {VARIABLE: str(at)}
        await host.start_daemon()
        assert host.daemon is not None
        host.daemon.send_signal(signal.SIGUSR2)
        if await cut_short(asyncio.create_task(life(host))):  # it may take a step less this time
            assert await asyncio.to_thread(host.daemon.wait, SECONDS) == -signal.SIGKILL
        await host.kill_daemon()
        host.environment = {}
        await host.start_daemon()
        seen.add(await look(host))
        assert await host.clear() == [], f"killed at step {at} of {steps}"
        await assert_no_descriptor_is_left(host, at_rest)
    print(f"{ROUNDS} kills over {steps} steps: {sorted(seen)}", file=sys.stderr)
    return seen


async def test_a_daemon_killed_at_any_step_leaves_what_runs_or_nothing(host: RuntimeHost) -> None:
    seen = await killed_at_any_step(host, live, assert_nothing_is_lost)
    assert {"gone", "created", "running"} <= seen


async def test_a_daemon_killed_at_any_step_of_a_run_leaves_its_end_or_nothing(host: RuntimeHost) -> None:
    seen = await killed_at_any_step(host, run, assert_a_run_is_not_lost)
    assert {"gone", "created", "ended"} <= seen


@pytest.mark.skipif(not can_tell_exit_status(), reason="before Linux 6.15 nobody can know how an orphan ended")
async def test_a_spawner_killed_at_any_moment_leaves_what_runs_or_nothing(host: RuntimeHost) -> None:
    chance = random.Random(SEED)
    print(f"KILL_SEED={SEED}", file=sys.stderr)
    for _ in range(max(1, ROUNDS // 3)):
        life = asyncio.create_task(live(host))
        await asyncio.sleep(chance.uniform(0, 0.08))  # not to wait for anything: the moment is the chance
        await host.kill_spawner()
        if both_died := chance.random() < 0.5:
            await host.kill_daemon()
            await cut_short(life)
            await host.start_daemon()
        else:
            await cut_short(life)
        await assert_nothing_is_lost(host, both_died=both_died)
        assert await host.clear() == [], f"seed {SEED}"
        assert await host.shell("echo works") == (0, ["works"])
