"""One task on its node, from assignment to removal, whatever order the runtime's answers and events come in."""

import asyncio
from pathlib import Path

import pytest
from lib.driven_task import WEB, Driven
from msgspec.structs import replace

from pyswarm.proto.errors import NotFound, Unavailable
from pyswarm.proto.model.spec import ContainerSpec, FileTarget, LogDriver, Mount, SecretReference
from pyswarm.proto.model.states import TaskState
from pyswarm.proto.v1 import runtime_pb2 as pb
from pyswarm.proto.v1 import types_pb2
from pyswarm.worker.agent import controller as module
from pyswarm.worker.agent.journal import Accepted
from pyswarm.worker.secrets.files import SecretFiles


async def test_a_task_is_prepared_started_and_each_state_is_told_once(driven: Driven):
    driven.start()
    await driven.until(TaskState.RUNNING)
    states = [status.state for status in driven.reports]
    assert states == sorted(set(states))
    assert states[-1] is TaskState.RUNNING
    assert driven.runtime.calls == ["pull", "create", "start"]
    assert driven.network.attached == {"t1"}


async def test_a_container_that_ends_before_its_start_is_answered_is_seen_to_have_ended(driven: Driven):
    driven.runtime.on_start = lambda id: driven.runtime.change(id, pb.STOPPED, exit_code=3) and None
    driven.start()
    ended = await driven.until(TaskState.COMPLETE)
    assert (ended.state, ended.err) == (TaskState.FAILED, "task: non-zero exit (3)")


async def test_a_container_that_ends_well_completes_its_task_and_gives_back_its_network(driven: Driven):
    driven.start()
    await driven.until(TaskState.RUNNING)
    driven.runtime.change("t1", pb.STOPPED)
    assert (await driven.until(TaskState.COMPLETE)).state is TaskState.COMPLETE
    driven.controller.unassign()
    assert driven.running is not None
    await driven.running
    assert (driven.network.attached, driven.runtime.kept, driven.journal.load()) == (set(), {}, [])


async def test_a_tasks_container_has_the_log_and_the_terminal_that_the_service_asks_for(driven: Driven):
    wanted, asked = LogDriver("local", {"max-size": "1m"}), driven.accepted.spec
    container = replace(asked.container_spec, tty=True, open_stdin=True)
    driven.accepted = replace(driven.accepted, spec=replace(asked, log_driver=wanted, container_spec=container))
    driven.controller = driven.make()
    driven.start()
    await driven.until(TaskState.RUNNING)
    config = driven.runtime.kept["t1"].config
    assert config.log_driver == types_pb2.LogDriver(name="local", options={"max-size": "1m"})
    assert (config.tty, config.open_stdin) == (True, True)


async def test_a_replacement_waits_until_it_may_run(driven: Driven):
    driven.accepted = replace(driven.accepted, task=replace(driven.accepted.task, desired_state=TaskState.READY))
    driven.controller = driven.make()
    driven.start()
    await driven.until(TaskState.READY)
    assert driven.runtime.calls == ["pull", "create"]
    driven.desire(TaskState.RUNNING)
    await driven.until(TaskState.RUNNING)


async def test_a_task_of_a_job_runs_to_completion(driven: Driven):
    driven.accepted = replace(driven.accepted, task=replace(driven.accepted.task, desired_state=TaskState.COMPLETE))
    driven.controller = driven.make()
    driven.start()
    await driven.until(TaskState.RUNNING)
    driven.runtime.change("t1", pb.STOPPED)
    assert (await driven.until(TaskState.COMPLETE)).state is TaskState.COMPLETE


async def test_a_container_is_told_who_it_is_where_its_spec_asks_for_it(driven: Driven):
    container = replace(
        WEB.spec.task_template.container_spec,
        env=("NAME={{.Service.Name}}.{{ .Task.Slot }}", "WHERE={{.Node.Hostname}}", "PLAIN={}"),
        hostname="{{.Service.Name}}-{{.Task.Slot}}",
        mounts=(Mount(source="/data/{{.Task.Slot}}", target="/data"),),
    )
    task_spec = replace(WEB.spec.task_template, container_spec=container)
    driven.accepted = replace(driven.accepted, spec=task_spec, service_name="web")
    driven.controller = driven.make()
    driven.start()
    await driven.until(TaskState.RUNNING)
    config = driven.runtime.kept["t1"].config
    assert list(config.env) == ["NAME=web.1", "WHERE=host1", "PLAIN={}"]
    assert (config.hostname, config.mounts[0].source) == ("web-1", "/data/1")


async def test_a_task_that_is_told_to_stop_was_shut_down_not_failed(driven: Driven):
    driven.start()
    await driven.until(TaskState.RUNNING)
    driven.desire(TaskState.SHUTDOWN)
    assert (await driven.until(TaskState.COMPLETE)).state is TaskState.SHUTDOWN
    assert driven.network.published == {}


async def test_an_image_that_cannot_be_had_rejects_the_task_with_the_cause(driven: Driven):
    driven.runtime.failures["pull"] = NotFound("no such image: web:9")
    driven.start()
    rejected = await driven.until(TaskState.COMPLETE)
    assert (rejected.state, rejected.err) == (TaskState.REJECTED, "no such image: web:9")


@pytest.mark.parametrize("step", ["create", "start"])
async def test_a_runtime_that_restarts_in_the_middle_is_waited_for(
    driven: Driven, step: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    driven.runtime.failures[step] = Unavailable("the runtime does not answer")
    driven.start()
    assert (await driven.until(TaskState.RUNNING)).state is TaskState.RUNNING
    assert driven.runtime.calls.count(step) == 2


async def test_a_container_that_is_gone_fails_its_task(driven: Driven):
    driven.start()
    await driven.until(TaskState.RUNNING)
    driven.controller.observe(None)
    lost = await driven.until(TaskState.COMPLETE)
    assert (lost.state, lost.err) == (TaskState.FAILED, "the container is gone")


async def test_after_a_restart_of_the_agent_a_task_goes_on_where_it_was(driven: Driven):
    driven.start()
    await driven.until(TaskState.RUNNING)
    await driven.stop()
    (driven.accepted,) = driven.journal.load()
    driven.controller = driven.make()
    driven.controller.observe(driven.runtime.kept["t1"])
    driven.start()
    driven.runtime.change("t1", pb.STOPPED, exit_code=1)
    assert (await driven.until(TaskState.COMPLETE)).err == "task: non-zero exit (1)"
    assert driven.runtime.calls.count("start") == 1


async def test_a_wish_that_arrives_late_does_not_call_a_task_back(driven: Driven):
    """Swarm mistake 1: of two wishes the further one counts, in whichever order they come."""
    driven.desire(TaskState.SHUTDOWN)
    driven.desire(TaskState.RUNNING)
    driven.start()
    assert (await driven.until(TaskState.SHUTDOWN)).state is TaskState.SHUTDOWN
    assert driven.runtime.calls == []


class Files(SecretFiles):
    """Has no tmpfs, and says for which task with which secrets files were to be replaced."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.replaced: list[str] = []

    async def write(self, task_id: str, spec: ContainerSpec) -> tuple[Mount, ...]:
        return ()

    def replace(self, task_id: str, spec: ContainerSpec) -> tuple[str, ...]:
        is_new = spec.secrets[0].secret_id not in ("s1", *self.replaced)
        self.replaced.append(spec.secrets[0].secret_id)
        return ("SIGHUP",) if is_new else ()


async def test_new_versions_of_files_reach_the_container_and_outlive_the_agent(driven: Driven, tmp_path: Path):
    def with_key(id: str) -> Accepted:
        file = FileTarget("key", in_place=True, signal="SIGHUP")
        container = ContainerSpec(image="web:1", secrets=(SecretReference(id, "key", file),))
        return replace(driven.accepted, spec=replace(driven.accepted.spec, container_spec=container))

    driven.secrets = files = Files(tmp_path)
    driven.accepted = with_key("s1")
    driven.controller = driven.make()
    driven.start()
    await driven.until(TaskState.RUNNING)
    driven.controller.assign(with_key("s2"))
    driven.controller.assign(with_key("s2"))
    async with asyncio.timeout(5):
        while driven.runtime.calls[-1] != "kill SIGHUP":
            await driven.runtime.called.wait()
            driven.runtime.called.clear()
    assert driven.runtime.calls == ["pull", "create", "start", "kill SIGHUP"]
    assert files.replaced == ["s2"]
    (kept,) = driven.journal.load()
    assert kept.spec.container_spec.secrets[0].secret_id == "s2"
