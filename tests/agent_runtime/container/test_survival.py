"""SIGKILL the daemon, the spawner or both: containers go on, and nothing about them is lost."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from lib import runtime_process
from lib.runtime_host import RuntimeHost

from pyswarm.agent_runtime.container.record import Created, Outcome, Record
from pyswarm.agent_runtime.container.recovery import Verdict, judge
from pyswarm.agent_runtime.container.state_directory import ExitRecord, Found, ProcessRecord, StateDirectory
from pyswarm.agent_runtime.kernel.process import can_tell_exit_status
from pyswarm.proto.errors import FailedPrecondition
from pyswarm.proto.v1 import runtime_pb2 as pb

kernel = pytest.mark.kernel

# Speaks before and after it is told to go on, then ends with a code of its own.
PATIENT = "trap 'echo after; exit 7' USR1; echo before; while :; do sleep 1000 & wait; done"


async def begin(host: RuntimeHost, name: str = "patient") -> int:
    running = await host.start(name, "sh", "-c", PATIENT)
    await host.follow_until(name, "before")
    return running.pid


@kernel
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
async def test_a_new_daemon_adopts_what_runs(host: RuntimeHost, number: signal.Signals) -> None:
    pid = await begin(host)
    spawner = host.spawner_pid()
    await host.kill_daemon(number)
    await host.start_daemon()
    assert host.spawner_pid() == spawner
    adopted = await host.get("patient")
    assert (adopted.state, adopted.pid) == (pb.CONTAINER_RUNNING, pid)
    await host.kill("patient", "USR1")
    ended = await host.wait("patient")
    assert (ended.exit_code, ended.error) == (7, "")
    assert await host.lines("patient") == ["before", "after"]


@kernel
async def test_what_ends_without_a_daemon_keeps_its_exit_code_and_its_last_words(host: RuntimeHost) -> None:
    pid = await begin(host)
    await host.kill_daemon()
    os.kill(pid, signal.SIGUSR1)
    await host.gone(pid)
    await host.start_daemon()
    ended = await host.wait("patient")
    assert (ended.exit_code, ended.error) == (7, "")
    assert await host.lines("patient") == ["before", "after"]


@kernel
@pytest.mark.skipif(not can_tell_exit_status(), reason="before Linux 6.15 nobody can know")
async def test_what_outlives_its_spawner_keeps_its_exit_code(host: RuntimeHost) -> None:
    pid = await begin(host)
    await host.kill_spawner()
    assert (await host.get("patient")).state == pb.CONTAINER_RUNNING
    os.kill(pid, signal.SIGUSR1)
    ended = await host.wait("patient")
    assert (ended.exit_code, ended.error) == (7, "")
    assert await host.lines("patient") == ["before", "after"]


@kernel
async def test_after_its_spawner_died_the_daemon_gets_another_one(host: RuntimeHost) -> None:
    await host.kill_spawner()
    assert await host.shell("echo works") == (0, ["works"])


@kernel
@pytest.mark.skipif(not can_tell_exit_status(), reason="before Linux 6.15 nobody can know")
async def test_daemon_and_spawner_killed_together(host: RuntimeHost) -> None:
    pid = await begin(host)
    await host.kill_daemon()
    await host.kill_spawner()
    await host.start_daemon()
    adopted = await host.get("patient")
    assert (adopted.state, adopted.pid) == (pb.CONTAINER_RUNNING, pid)
    await host.kill("patient", "USR1")
    ended = await host.wait("patient")
    assert (ended.exit_code, ended.error) == (7, "")
    assert await host.lines("patient") == ["before", "after"]


@kernel
async def test_a_talkative_container_is_neither_killed_nor_stopped_by_the_loss_of_both(host: RuntimeHost) -> None:
    script = "i=0; while [ $i -lt 20000 ]; do echo line-$i; i=$((i+1)); done; echo done; sleep 1000"
    await host.start("talk", "sh", "-c", script)
    await host.follow_until("talk", "line-100")
    await host.kill_daemon()
    await host.kill_spawner()
    await host.start_daemon()
    await host.follow_until("talk", "done")
    lines = await host.lines("talk")
    # The line being read at the moment of the kill may be cut; the order holds, and nothing comes twice.
    numbers = [int(line.removeprefix("line-")) for line in lines if line.startswith("line-") and line[5:].isdigit()]
    assert numbers == sorted(set(numbers))
    assert len(numbers) > 19000


@kernel
async def test_what_ends_while_nobody_is_there_is_said_to_be_unknown(host: RuntimeHost) -> None:
    pid = await begin(host)
    await host.kill_daemon()
    await host.kill_spawner()
    os.kill(pid, signal.SIGUSR1)
    await host.gone(pid, reaped=True)
    await host.start_daemon()
    ended = await host.wait("patient")
    assert ended.exit_code == 255
    assert "exit status was lost" in ended.error
    assert (await host.lines("patient"))[0] == "before"


@kernel
async def test_after_a_reboot_containers_are_found_stopped(host: RuntimeHost) -> None:
    pid = await begin(host)
    await host.create("waiting", "true")
    await host.kill_daemon()
    await host.kill_spawner()
    os.kill(pid, signal.SIGKILL)
    await host.gone(pid, reaped=True)
    record = host.paths.runtime / "containers/patient/process.json"
    record.write_text(record.read_text().replace('"machine":"', '"machine":"an earlier boot '))
    # Half of a container that was being made, and one that was being removed, when the power failed.
    for half in (".new-x", ".dead-y"):
        (host.paths.runtime / "containers" / half / "upper").mkdir(parents=True)
    await host.start_daemon()
    found = await host.get("patient")
    assert (found.state, found.exit_code) == (pb.STOPPED, 255)
    assert "the machine went down" in found.error
    assert (await host.get("waiting")).state == pb.CREATED
    await host.remove("patient")
    assert sorted(p.name for p in (host.paths.runtime / "containers").iterdir()) == ["waiting"]


@kernel
async def test_a_container_that_had_stopped_is_still_there_after_a_restart(host: RuntimeHost) -> None:
    await host.start("done", "sh", "-c", "echo words; exit 3")
    before = await host.wait("done")
    await host.kill_daemon()
    await host.start_daemon()
    assert await host.get("done") == before
    assert await host.lines("done") == ["words"]


@kernel
async def test_left_over_cgroups_are_removed_at_start(host: RuntimeHost) -> None:
    await host.kill_daemon()
    for top in host.cgroups.layout.hierarchies:
        (top / host.cgroup_parent / "ghost").mkdir()
    await host.start_daemon()
    assert host.cgroups.names() == set()


@kernel
async def test_kills_in_the_middle_of_many_starts_lose_nobody(host: RuntimeHost) -> None:
    async def attempt(number: int) -> None:
        try:
            await host.start(f"c{number}", "sleep", "1000")
        except Exception:  # noqa: BLE001 - the daemon is killed under it
            pass

    starting = [asyncio.create_task(attempt(number)) for number in range(16)]
    done, _ = await asyncio.wait(starting, return_when=asyncio.FIRST_COMPLETED)
    assert done
    await host.kill_daemon()
    await host.kill_spawner()
    await asyncio.gather(*starting)
    await host.start_daemon()
    listed = (await host.stub.ListContainers(pb.ListContainersRequest())).containers
    for container in listed:
        alive = container.id in host.cgroups.names() and bool(host.cgroups.processes(container.id))
        assert alive == (container.state == pb.CONTAINER_RUNNING), container
    # Every cgroup belongs to a container that runs: nothing runs unknown.
    assert host.cgroups.names() == {c.id for c in listed if c.state == pb.CONTAINER_RUNNING}


@kernel
async def test_a_second_daemon_on_the_same_root_is_refused(host: RuntimeHost) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, runtime_process.__file__, str(host.root), str(host.layer), stderr=-1
    )
    _, said = await process.communicate()
    assert process.returncode == 1
    assert "another runtime daemon" in said.decode()
    assert await host.shell("echo undisturbed") == (0, ["undisturbed"])


@kernel
async def test_stopping_still_works_for_an_adopted_orphan(host: RuntimeHost) -> None:
    await host.start("orphan", "sleep", "1000")
    await host.kill_daemon()
    await host.kill_spawner()
    await host.start_daemon()
    assert (await host.stop("orphan", grace_seconds=0)).exit_code in (137, 255)
    with pytest.raises(FailedPrecondition):
        await host.kill("orphan")


def found(*, machine: str = "now", exited: bool = False, outcome: Outcome | None = None, cloned: bool = True) -> Found:
    record = Record("c", pb.ContainerConfig(), Created(0.0, "", (), {}), outcome=outcome)
    process = ProcessRecord(5, 6, 0.0, machine) if cloned else None
    return Found(record, process, ExitRecord(0, 0.0) if exited else None)


@pytest.mark.parametrize(
    ("container", "alive", "owned", "verdict"),
    [
        pytest.param(found(cloned=False), False, False, Verdict.SETTLED, id="never cloned"),
        pytest.param(found(outcome=Outcome(0, 0.0)), False, False, Verdict.SETTLED, id="ended and said so"),
        pytest.param(found(exited=True), False, True, Verdict.ENDED, id="the spawner wrote its end"),
        pytest.param(found(), True, True, Verdict.RUNNING, id="runs under its spawner"),
        pytest.param(found(), True, False, Verdict.RUNNING, id="runs without its spawner"),
        pytest.param(found(), False, True, Verdict.RUNNING, id="its exit is about to be told"),
        pytest.param(found(), False, False, Verdict.LOST, id="gone without a word"),
        pytest.param(found(machine="before"), True, True, Verdict.LOST, id="a pid of another boot"),
        pytest.param(found(machine="before", exited=True), False, False, Verdict.ENDED, id="ended before the reboot"),
    ],
)
def test_what_became_of_a_container(container: Found, alive: bool, owned: bool, verdict: Verdict) -> None:
    assert judge(container, alive=alive, owned=owned, machine="now")[0] is verdict


def test_state_survives_a_torn_record(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path)
    record = Record("c", pb.ContainerConfig(image="i"), Created(1.0, "sha256:x", ("/l",), {}))
    state.create(record)
    (tmp_path / "c/outcome.json").write_text('{"exit_co')
    (tmp_path / "d").mkdir()
    (tmp_path / "d/config.pb").write_text("\xff\xff")
    (only,) = state.load_all()
    assert only.record == record
    assert not (tmp_path / "d").exists()
