"""Drive one task on this node: do the steps that `steps.py` decides, note each state before and after.

A controller owns its task's container and network. It wakes when its assignment or its container changes, and ends when
the task is no longer assigned and everything of it is gone.
"""

import asyncio
from collections.abc import Callable

from msgspec.structs import replace

from pyswarm.proto.clock import Clock
from pyswarm.proto.errors import NotFound, SwarmError, Unavailable
from pyswarm.proto.log import get_logger
from pyswarm.proto.model.objects import ContainerStatus, NodeDescription, TaskStatus
from pyswarm.proto.model.states import TaskState
from pyswarm.proto.v1 import runtime_pb2 as pb
from pyswarm.worker.agent.container_config import container_config, published_ports
from pyswarm.worker.agent.journal import Accepted, Journal
from pyswarm.worker.agent.steps import Step, final_status, next_step
from pyswarm.worker.network.node_network import NodeNetwork
from pyswarm.worker.runtime.port import RuntimePort
from pyswarm.worker.secrets.files import SecretFiles

log = get_logger(__name__)

RETRY_SECONDS = 1.0
"""Pause after a step that failed for a passing reason: the runtime is restarting."""

Report = Callable[[str, TaskStatus], None]


class TaskController:
    def __init__(
        self,
        accepted: Accepted,
        *,
        runtime: RuntimePort,
        network: NodeNetwork,
        secrets: SecretFiles,
        journal: Journal,
        report: Report,
        clock: Clock,
        node_id: str,
        node: NodeDescription,
    ) -> None:
        self.accepted = accepted
        self._runtime = runtime
        self._network = network
        self._secrets = secrets
        self._journal = journal
        self._report = report
        self._clock = clock
        self._node_id = node_id
        self._node = node
        self._container: pb.Container | None = None
        self._holds_network = accepted.status.state >= TaskState.PREPARING
        self._is_assigned = True
        self._woken = asyncio.Event()
        self._woken.set()

    @property
    def task_id(self) -> str:
        return self.accepted.task.id

    @property
    def status(self) -> TaskStatus:
        return self.accepted.status

    # -- what the agent tells

    def assign(self, fresh: Accepted) -> None:
        """Take a new version of the assignment; a desired state never goes back (swarm mistake 1)."""
        if fresh.task.desired_state > self.accepted.task.desired_state:
            self.accepted = replace(self.accepted, task=fresh.task)
            self._journal.write(self.accepted)
        self._woken.set()

    def unassign(self) -> None:
        """The managers have forgotten the task: remove all of it."""
        self._is_assigned = False
        self._woken.set()

    def observe(self, container: pb.Container | None) -> None:
        """Take what the runtime says of the container; None: it does not exist."""
        self._container = container
        self._woken.set()

    # -- living

    async def run(self) -> None:
        """Drive the task until it is unassigned and gone."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            try:
                if not self._is_assigned:
                    await self._remove()
                    return
                while await self._step() and self._is_assigned:
                    pass
            except Unavailable as error:
                log.warning("a step waits for the runtime", task=self.task_id, reason=error.message)
                await asyncio.sleep(RETRY_SECONDS)
                self._woken.set()
            except SwarmError as error:
                await self._fail(error.message)
            except OSError as error:
                await self._fail(f"the node: {error}")

    async def _step(self) -> bool:
        """Do one step; return whether there may be another one at once."""
        desired, state = self.accepted.task.desired_state, self.status.state
        step = next_step(desired, state, self._container, holds_network=self._holds_network)
        match step:
            case Step.WAIT:
                return False
            case Step.ACCEPT:
                self._note(TaskState.ACCEPTED, "accepted")
            case Step.PREPARE:
                await self._prepare()
            case Step.START:
                await self._start()
            case Step.STOP:
                await self._stop()
            case Step.CANCEL:
                self._note(TaskState.SHUTDOWN, "shutdown")
            case Step.WATCH_END:
                await self._note_end(was_asked=False)
            case Step.LOST:
                self._note(TaskState.FAILED, "failed", "the container is gone")
            case Step.CLEAN:
                await self._release_network()
        return True

    async def _prepare(self) -> None:
        if self.status.state < TaskState.PREPARING:
            self._note(TaskState.PREPARING, "preparing")
        spec = self.accepted.spec.container_spec
        await self._pull(spec.image)
        self._holds_network = True
        attachment = await self._network.attach(self.task_id)
        files = await self._secrets.write(self.task_id, spec)
        config = container_config(
            self.accepted, node_id=self._node_id, node=self._node, namespace=str(attachment.namespace), files=files
        )
        self._container = self._newer(await self._runtime.create(self.task_id, config))
        if self.status.state < TaskState.READY:
            self._note(TaskState.READY, "prepared")

    async def _pull(self, image: str) -> None:
        """Pull the image. When the registry cannot be had but the image is here, that one will do."""
        try:
            async for _ in self._runtime.pull(image):
                pass
        except SwarmError as error:
            here = {reference for i in await self._runtime.images() for reference in (*i.references, i.id)}
            if not any(_names(reference, image) for reference in here):
                raise
            log.warning("using the image that is here", image=image, reason=error.message)

    async def _start(self) -> None:
        if self.status.state < TaskState.STARTING:
            self._note(TaskState.STARTING, "starting")
        ports = published_ports(self.accepted)
        await self._network.publish(self.task_id, ports)
        self._container = self._newer(await self._runtime.start(self.task_id))
        if self._container.state == pb.CONTAINER_RUNNING:
            self._note(TaskState.RUNNING, "started")

    def _newer(self, answer: pb.Container) -> pb.Container:
        """Return what is newer: the runtime's answer to a call, or what the watch has told meanwhile.

        A container that ends at once may be seen to have stopped before the answer that it was started is here.
        """
        seen = self._container
        return answer if seen is None or seen.state < answer.state else seen

    async def _stop(self) -> None:
        # Out of the rules first: new connections go elsewhere while this one ends.
        await self._network.unpublish(self.task_id)
        grace = self.accepted.spec.container_spec.stop_grace_period_seconds
        self._container = await self._runtime.stop(self.task_id, grace_seconds=grace)
        await self._note_end(was_asked=True)

    async def _note_end(self, *, was_asked: bool) -> None:
        assert self._container is not None, "only a container that is there can have ended"
        await self._network.unpublish(self.task_id)
        state, message, err = final_status(self._container, was_asked=was_asked)
        self._note(state, message, err)

    async def _fail(self, why: str) -> None:
        """What failed before it ran is REJECTED, what failed after is FAILED."""
        if not self.status.state.is_terminal:
            rejected = self.status.state < TaskState.STARTING
            self._note(TaskState.REJECTED if rejected else TaskState.FAILED, "failed", why)
        self._woken.set()

    async def _release_network(self) -> None:
        await self._network.detach(self.task_id)
        self._secrets.remove(self.task_id)
        self._holds_network = False

    async def _remove(self) -> None:
        """Stop what still runs, then remove container, network and memory of the task."""
        await self._network.unpublish(self.task_id)
        try:
            container = self._container
            if container is not None and container.state in (pb.CONTAINER_RUNNING, pb.CONTAINER_PAUSED):
                grace = self.accepted.spec.container_spec.stop_grace_period_seconds
                await self._runtime.stop(self.task_id, grace_seconds=grace)
            await self._runtime.remove(self.task_id, force=True)
        except NotFound:
            log.debug("the container was gone already", task=self.task_id)
        await self._network.detach(self.task_id)
        self._secrets.remove(self.task_id)
        self._journal.remove(self.task_id)
        log.info("task removed", task=self.task_id)

    def _note(self, state: TaskState, message: str, err: str = "") -> None:
        """Record a state durably, then report it. States only grow."""
        assert state >= self.status.state, f"task {self.task_id} cannot go from {self.status.state} back to {state}"
        container = self._container
        status = TaskStatus(
            state=state,
            timestamp=self._clock.now(),
            message=message,
            err=err,
            container_status=None
            if container is None
            else ContainerStatus(
                container_id=container.id,
                pid=container.pid,
                exit_code=container.exit_code,
                oom_killed=container.oom_killed,
            ),
        )
        self.accepted = replace(self.accepted, status=status)
        self._journal.write(self.accepted)
        self._report(self.task_id, status)
        log.info("task moved", task=self.task_id, state=state.name.lower(), **({"err": err} if err else {}))


def _names(reference: str, image: str) -> bool:
    """Whether a stored reference is what `image` means; the runtime stores normalised ones."""
    return reference == image or reference.endswith(f"/{image}") or reference.split("@")[0] == image
