"""One task on its node, from assignment to removal, whatever order the runtime's answers and events come in."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from lib.builders import FakeClock, a_service, a_task
from lib.fake_runtime import FakeNetwork, FakeRuntime
from msgspec.structs import replace

from pyswarm.proto.errors import NotFound, Unavailable
from pyswarm.proto.model.objects import NodeDescription, TaskStatus
from pyswarm.proto.model.resources import Platform
from pyswarm.proto.model.spec import Mount
from pyswarm.proto.model.states import TaskState
from pyswarm.proto.v1 import runtime_pb2 as pb
from pyswarm.worker.agent import controller as module
from pyswarm.worker.agent.controller import TaskController
from pyswarm.worker.agent.journal import Accepted, Journal
from pyswarm.worker.secrets.files import SecretFiles

WEB = a_service("web")


class Driven:
    """A controller that runs, what it reported, and the world it works on."""

    def __init__(self, directory: Path) -> None:
        self.runtime, self.network, self.journal = FakeRuntime(), FakeNetwork(), Journal(directory)
        self.secrets = SecretFiles(directory / "secrets")
        self.reports: list[TaskStatus] = []
        self._reported = asyncio.Condition()
        task = a_task("t1", service=WEB, node="n1", state=TaskState.ASSIGNED)
        self.accepted = Accepted(task=task, spec=WEB.spec.task_template, status=task.status)
        self.controller = self.make()
        self.running: asyncio.Task[None] | None = None

    def make(self) -> TaskController:
        controller = TaskController(
            self.accepted,
            runtime=self.runtime,
            network=self.network,  # type: ignore[arg-type]
            secrets=self.secrets,
            journal=self.journal,
            report=self._report,
            clock=FakeClock(),
            node_id="n1",
            node=NodeDescription(hostname="host1", platform=Platform("x86_64", "linux")),
        )
        self.runtime.told = [controller.observe]
        return controller

    def _report(self, task_id: str, status: TaskStatus) -> None:
        assert task_id == "t1"
        self.reports.append(status)
        asyncio.get_running_loop().create_task(self._notify())

    async def _notify(self) -> None:
        async with self._reported:
            self._reported.notify_all()

    def start(self) -> None:
        self.running = asyncio.create_task(self.controller.run())

    async def until(self, state: TaskState) -> TaskStatus:
        async with asyncio.timeout(5), self._reported:
            await self._reported.wait_for(lambda: bool(self.reports) and self.reports[-1].state >= state)
        return self.reports[-1]

    def desire(self, state: TaskState) -> None:
        self.controller.assign(replace(self.accepted, task=replace(self.accepted.task, desired_state=state)))

    async def stop(self) -> None:
        if self.running is not None:
            self.running.cancel()
            await asyncio.gather(self.running, return_exceptions=True)


@pytest.fixture
async def driven(tmp_path: Path) -> AsyncIterator[Driven]:
    driven = Driven(tmp_path)
    yield driven
    await driven.stop()


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
