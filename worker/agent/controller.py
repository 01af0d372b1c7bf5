"""Drive one task on this node: do the steps that `steps.py` decides, note each state before and after.

A controller owns its task's container and network. It wakes when its assignment or its container changes, and ends when
the task is no longer assigned and everything of it is gone.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from msgspec.structs import replace

from pyswarm.proto.clock import Clock
from pyswarm.proto.codec.messages import from_message
from pyswarm.proto.errors import NotFound, SwarmError, Unavailable
from pyswarm.proto.log import get_logger
from pyswarm.proto.model.objects import ContainerStatus, NodeDescription, TaskStatus
from pyswarm.proto.model.spec import ContainerSpec, HealthConfig, TaskSpec
from pyswarm.proto.model.states import TaskState
from pyswarm.proto.v1 import runtime_pb2 as pb
from pyswarm.worker.agent.checks import Checks
from pyswarm.worker.agent.container_config import container_config, published_ports
from pyswarm.worker.agent.ending import end_container
from pyswarm.worker.agent.images import Images
from pyswarm.worker.agent.journal import Accepted, Journal
from pyswarm.worker.agent.probes import Outcome, probe_container
from pyswarm.worker.agent.steps import Step, final_status, next_step
from pyswarm.worker.network.node_network import NodeNetwork
from pyswarm.worker.runtime.port import RuntimePort
from pyswarm.worker.secrets.files import SecretFiles

log = get_logger(__name__)

RETRY_SECONDS = 1.0
"""Pause after a step that failed for a passing reason: the runtime is restarting."""

NO_CHECKS = Checks(ContainerSpec(), HealthConfig())

Report = Callable[[str, TaskStatus], None]


class TaskController:
    def __init__(
        self,
        accepted: Accepted,
        *,
        runtime: RuntimePort,
        images: Images,
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
        self._images = images
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
        # What was let in before the agent was restarted still is.
        self._is_open = accepted.status.state is TaskState.RUNNING
        self._checks: Checks | None = None
        self._image_health: HealthConfig | None = None
        self._group: asyncio.TaskGroup | None = None
        self._files_may_differ = False
        self._ended = asyncio.Event()
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
        """Take a new version of the assignment; a desired state never goes back (swarm mistake 1).

        What a task runs never changes either, but for files that are replaced in place.
        """
        before = self.accepted
        if fresh.task.desired_state > before.task.desired_state:
            self.accepted = replace(self.accepted, task=fresh.task)
        if replaced := _with_files(before.spec, fresh.spec):
            self.accepted = replace(self.accepted, spec=replaced)
        if self.accepted != before:
            self._journal.write(self.accepted)
        # What one holds may have come only now, after a restart of the agent.
        self._files_may_differ = True
        self._woken.set()

    def unassign(self) -> None:
        """The managers have forgotten the task: remove all of it."""
        self._is_assigned = False
        self._woken.set()

    def observe(self, container: pb.Container | None) -> None:
        """Take what the runtime says of the container; None: it does not exist."""
        self._container = container
        if container is None or container.state == pb.STOPPED:
            self._ended.set()
        self._woken.set()

    # -- living

    async def run(self) -> None:
        """Drive the task until it is unassigned and gone."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            await self._live()
            self._end_checks()

    async def _live(self) -> None:
        while True:
            await self._woken.wait()
            self._woken.clear()
            try:
                if not self._is_assigned:
                    await self._remove()
                    return
                while await self._step() and self._is_assigned:
                    pass
                await self._replace_files()
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
        checks = await self._current_checks()
        await self._report_health(checks)
        step = next_step(
            desired,
            state,
            self._container,
            holds_network=self._holds_network,
            health=checks.health,
            is_ready=checks.is_ready,
            is_open=self._is_open,
        )
        match step:
            case Step.WAIT:
                return False
            case Step.ACCEPT:
                self._note(TaskState.ACCEPTED, "accepted")
            case Step.PREPARE:
                await self._prepare()
            case Step.START:
                await self._start(is_gated=checks.exist)
            case Step.RUN:
                await self._open()
                self._note(TaskState.RUNNING, "started")
            case Step.OPEN:
                await self._open()
                self._note(TaskState.RUNNING, "ready again")
            case Step.SHUT:
                await self._shut()
                self._note(TaskState.RUNNING, f"not ready: {checks.complaint}")
            case Step.UNHEALTHY:
                await self._stop_unhealthy(checks.complaint)
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
        image = await self._images.pull(spec.image)
        self._image_health = from_message(image.healthcheck, HealthConfig)
        self._holds_network = True
        attachment = await self._network.attach(self.task_id)
        files = await self._secrets.write(self.task_id, spec)
        config = container_config(
            self.accepted, node_id=self._node_id, node=self._node, namespace=str(attachment.namespace), files=files
        )
        self._container = self._newer(await self._runtime.create(self.task_id, config))
        if self.status.state < TaskState.READY:
            self._note(TaskState.READY, "prepared")

    async def _start(self, *, is_gated: bool) -> None:
        if self.status.state < TaskState.STARTING:
            self._note(TaskState.STARTING, "starting: waiting for its health check" if is_gated else "starting")
        if not is_gated:
            # Before it starts, so that a port that cannot be had costs no start.
            await self._open()
        # A task runs once: not even a power cut may make one forget that its container was started.
        await self._journal.synced()
        self._container = self._newer(await self._runtime.start(self.task_id))

    async def _open(self) -> None:
        await self._network.publish(self.task_id, published_ports(self.accepted))
        self._is_open = True

    async def _shut(self) -> None:
        await self._network.unpublish(self.task_id)
        self._is_open = False

    def _newer(self, answer: pb.Container) -> pb.Container:
        """Return what is newer: the runtime's answer to a call, or what the watch has told meanwhile.

        A container that ends at once may be seen to have stopped before the answer that it was started is here.
        """
        seen = self._container
        return answer if seen is None or seen.state <= answer.state else seen

    async def _stop(self) -> None:
        # Out of the rules first: new connections go elsewhere while those that there are come to their end.
        was_open = self._is_open and self.status.state is TaskState.RUNNING
        await self._shut()
        self._end_checks()
        spec = self.accepted.spec.container_spec
        if was_open and spec.drain_delay_seconds:
            await self._wait_for_end(spec.drain_delay_seconds)
        await self._end_container()
        await self._note_end(was_asked=True)

    async def _stop_unhealthy(self, complaint: str) -> None:
        await self._shut()
        self._end_checks()
        await self._end_container()
        self._note(TaskState.FAILED, "failed", f"task: unhealthy container{f': {complaint}' if complaint else ''}")

    async def _wait_for_end(self, seconds: float) -> None:
        """Wait until the container has ended by itself, at most `seconds`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ended.wait()

    async def _replace_files(self) -> None:
        """Give a container that runs the newest versions of its files, and tell it so."""
        if not self._files_may_differ:
            return
        self._files_may_differ = False
        container = self._container
        if container is None or container.state not in (pb.CONTAINER_RUNNING, pb.CONTAINER_PAUSED):
            return
        for signal in self._secrets.replace(self.task_id, self.accepted.spec.container_spec):
            log.info("files were replaced", task=self.task_id, signal=signal)
            try:
                await self._runtime.kill(self.task_id, signal)
            except Unavailable:
                raise
            except SwarmError as error:
                # It has just ended: its end is told by the watch.
                log.warning("a container was not told of its new files", task=self.task_id, reason=error.message)

    async def _end_container(self) -> None:
        spec = self.accepted.spec.container_spec
        runs = not self._ended.is_set()
        self._container = await end_container(self._runtime, self.task_id, spec, runs=runs)

    async def _note_end(self, *, was_asked: bool) -> None:
        assert self._container is not None, "only a container that is there can have ended"
        await self._network.unpublish(self.task_id)
        state, message, err = final_status(self._container, was_asked=was_asked)
        self._note(state, message, err)

    async def _fail(self, why: str) -> None:
        """What failed before it ran is REJECTED, what failed after is FAILED. Nothing of it goes on running."""
        if not self.status.state.is_terminal:
            self._end_checks()
            await self._stop_what_runs()
            rejected = self.status.state < TaskState.STARTING
            self._note(TaskState.REJECTED if rejected else TaskState.FAILED, "failed", why)
        self._woken.set()

    async def _stop_what_runs(self) -> None:
        if self._container is None or self._container.state not in (pb.CONTAINER_RUNNING, pb.CONTAINER_PAUSED):
            return
        try:
            await self._end_container()
        except SwarmError as error:
            log.error("a failed task's container could not be stopped", task=self.task_id, reason=error.message)

    # -- health

    async def _current_checks(self) -> Checks:
        """Return the container's checks, and begin them once it runs."""
        if self._checks is None:
            if not TaskState.READY <= self.status.state <= TaskState.RUNNING:
                return NO_CHECKS
            image = self._image_health
            if image is None:
                image = await self._look_up_image_health()
            self._checks = Checks(self.accepted.spec.container_spec, image)
        runs = self._container is not None and self._container.state == pb.CONTAINER_RUNNING
        if runs and TaskState.STARTING <= self.status.state <= TaskState.RUNNING and self._checks.exist:
            assert self._container is not None, "it runs"
            assert self._group is not None, "only a controller that runs takes steps"
            started_at = self._container.started_at
            self._checks.begin(
                self._group,
                self._probe,
                self._woken.set,
                age=max(0.0, self._clock.now() - started_at) if started_at else 0.0,
                was_passing=self.status.state is TaskState.RUNNING,
            )
        return self._checks

    async def _look_up_image_health(self) -> HealthConfig:
        """After a restart of the agent: what the container's image says."""
        image = await self._images.with_id(self._container.image_id) if self._container is not None else None
        return HealthConfig() if image is None else from_message(image.healthcheck, HealthConfig)

    async def _probe(self, config: HealthConfig) -> Outcome | None:
        if self._container is None or self._container.state != pb.CONTAINER_RUNNING:
            return None
        address = self._network.address_of(self.task_id)
        return await probe_container(self._runtime, self.task_id, config, address)

    async def _report_health(self, checks: Checks) -> None:
        """Let the runtime know what the health check says, when it does not yet: it forgets when it is restarted."""
        container, health = self._container, checks.report()
        if health is None or container is None or container.state != pb.CONTAINER_RUNNING:
            return
        if container.health.status == health.status:
            return
        try:
            self._container = self._newer(await self._runtime.report_health(self.task_id, health))
        except Unavailable:
            raise
        except SwarmError as error:
            # It has just ended, or the runtime is of an older version: the task is none the worse for it.
            log.debug("the health of a container was not reported", task=self.task_id, reason=error.message)

    def _end_checks(self) -> None:
        if self._checks is not None:
            self._checks.end()

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
        """Record a state, then report it. States only grow."""
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


def _with_files(held: TaskSpec, told: TaskSpec) -> TaskSpec | None:
    """Return the spec with the files that managers tell; None when these are the same."""
    before, after = held.container_spec, told.container_spec
    if (before.secrets, before.configs) == (after.secrets, after.configs):
        return None
    return replace(held, container_spec=replace(before, secrets=after.secrets, configs=after.configs))
