"""One task's controller that runs against fakes, and what it reported: for the tests of the agent."""

import asyncio
from pathlib import Path

from lib.builders import FakeClock, a_service, a_task
from lib.fake_runtime import FakeNetwork, FakeRuntime
from msgspec.structs import replace

from pyswarm.proto.model.objects import NodeDescription, TaskStatus
from pyswarm.proto.model.resources import Platform
from pyswarm.proto.model.states import TaskState
from pyswarm.worker.agent.controller import TaskController
from pyswarm.worker.agent.images import Images
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
            images=Images(self.runtime),
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
