"""The set of this node's tasks: takes assignments, drives a controller for each, and collects what is to be reported.

Knows nothing of sessions (`session.py`): assignments come in, statuses go out through `Reporter`. So tasks go on
whether or not a manager is in reach.
"""

import asyncio
from collections.abc import Iterable

from pyswarm.proto.clock import Clock
from pyswarm.proto.errors import NotFound, SwarmError, Unavailable
from pyswarm.proto.log import get_logger
from pyswarm.proto.model.objects import NodeDescription, TaskStatus
from pyswarm.proto.model.states import TaskState
from pyswarm.proto.v1 import runtime_pb2 as pb
from pyswarm.worker.agent.container_config import published_ports
from pyswarm.worker.agent.controller import TaskController
from pyswarm.worker.agent.images import Images
from pyswarm.worker.agent.journal import Accepted, Journal
from pyswarm.worker.agent.reporter import Reporter
from pyswarm.worker.network.node_network import NodeNetwork
from pyswarm.worker.runtime.port import RuntimePort
from pyswarm.worker.secrets.files import SecretFiles

log = get_logger(__name__)

WATCH_RETRY_SECONDS = 0.2


class Agent:
    def __init__(
        self,
        *,
        runtime: RuntimePort,
        network: NodeNetwork,
        secrets: SecretFiles,
        journal: Journal,
        reporter: Reporter,
        clock: Clock,
        node_id: str,
        node: NodeDescription,
    ) -> None:
        self._runtime = runtime
        self._images = Images(runtime)
        self._network = network
        self.secrets = secrets
        self._journal = journal
        self._reporter = reporter
        self._clock = clock
        self._node_id = node_id
        self._node = node
        self._controllers: dict[str, TaskController] = {}
        self._group: asyncio.TaskGroup | None = None
        self._containers: dict[str, pb.Container] = {}
        self._empty = asyncio.Event()

    async def run(self) -> None:
        """Resume the journal's tasks and drive all tasks until cancelled."""
        accepted = self._journal.load()
        await self._network.start(
            {a.task.id: published_ports(a) if a.status.state is TaskState.RUNNING else () for a in accepted}
        )
        await self._first_look()
        async with asyncio.TaskGroup() as group:
            self._group = group
            for task in accepted:
                self._begin(task)
            group.create_task(self._watch_containers(), name="watch-containers")

    # -- assignments

    def assign_all(self, assignments: Iterable[Accepted]) -> None:
        """Take a COMPLETE set: what is not in it must go, also containers nobody remembers (swarm mistake 45)."""
        wanted = {a.task.id: a for a in assignments}
        for task_id in sorted(set(self._controllers) - set(wanted)):
            self.forget(task_id)
        for assignment in wanted.values():
            self.assign(assignment)
        for container_id in sorted(set(self._containers) - set(wanted) - set(self._controllers)):
            if "pyswarm.task" in self._containers[container_id].config.labels:
                self._must_group().create_task(self._remove_leftover(container_id), name=f"leftover-{container_id}")

    def assign(self, assignment: Accepted) -> None:
        controller = self._controllers.get(assignment.task.id)
        if controller is not None:
            controller.assign(assignment)
        elif assignment.task.state.is_terminal:
            log.debug("a dead task of the history needs nothing here", task=assignment.task.id)
        else:
            self._journal.write(assignment)
            self._begin(assignment)

    def forget(self, task_id: str) -> None:
        controller = self._controllers.get(task_id)
        if controller is not None:
            controller.unassign()

    def statuses(self) -> dict[str, TaskStatus]:
        """Return every task's status: all of it is reported on each new session (swarm mistake 48)."""
        return {id: c.status for id, c in self._controllers.items() if c.status.state > TaskState.ASSIGNED}

    async def remove_everything(self) -> None:
        """Stop and remove every task and the node's network: for a node that leaves its cluster."""
        for task_id in sorted(self._controllers):
            self.forget(task_id)
        if self._controllers:
            self._empty.clear()
            await self._empty.wait()
        await self._network.remove_everything()
        await self.secrets.remove_everything()

    # -- controllers

    def _must_group(self) -> asyncio.TaskGroup:
        assert self._group is not None, "the agent is not running"
        return self._group

    def _begin(self, accepted: Accepted) -> None:
        controller = TaskController(
            accepted,
            runtime=self._runtime,
            images=self._images,
            network=self._network,
            secrets=self.secrets,
            journal=self._journal,
            report=self._reporter.report,
            clock=self._clock,
            node_id=self._node_id,
            node=self._node,
        )
        self._controllers[accepted.task.id] = controller
        controller.observe(self._containers.get(accepted.task.id))
        self._must_group().create_task(self._drive(controller), name=f"task-{accepted.task.id}")

    async def _drive(self, controller: TaskController) -> None:
        await controller.run()
        del self._controllers[controller.task_id]
        if not self._controllers:
            self._empty.set()

    # -- containers

    async def _first_look(self) -> None:
        """Wait for the runtime and learn which containers there are, before any task is judged."""
        while True:
            try:
                self._containers = {c.id: c for c in await self._runtime.containers()}
                return
            except Unavailable as error:
                log.warning("waiting for the runtime", reason=error.message)
                await asyncio.sleep(WATCH_RETRY_SECONDS)

    async def _watch_containers(self) -> None:
        while True:
            try:
                async for container in self._runtime.watch():
                    self._observe(container)
            except Unavailable as error:
                log.warning("the runtime went away: watching again", reason=error.message)
            await asyncio.sleep(WATCH_RETRY_SECONDS)

    def _observe(self, container: pb.Container) -> None:
        if container.removed:
            self._containers.pop(container.id, None)
        else:
            self._containers[container.id] = container
        controller = self._controllers.get(container.id)
        if controller is not None:
            controller.observe(None if container.removed else container)

    async def _remove_leftover(self, container_id: str) -> None:
        log.warning("removing a container that no task owns", container=container_id)
        try:
            await self._runtime.remove(container_id, force=True)
        except NotFound:
            log.debug("it was gone already", container=container_id)
        except SwarmError as error:
            log.error("a leftover container could not be removed", container=container_id, reason=error.message)
        await self._network.detach(container_id)
