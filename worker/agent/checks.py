"""The health check and the readiness check of one task's container: begin them, end them, tell how they stand.

Both gate the start: a task runs once each has passed. Later on the health check says whether it must be replaced, the
readiness check whether it gets new connections.
"""

import asyncio
from collections.abc import Awaitable, Callable

from pyswarm.proto.model.spec import ContainerSpec, HealthConfig
from pyswarm.proto.v1 import runtime_pb2 as pb
from pyswarm.worker.agent.health import Health, Verdict, begun, effective
from pyswarm.worker.agent.probes import Outcome, Prober

_STATUS = {Verdict.STARTING: "starting", Verdict.PASSING: "healthy", Verdict.FAILING: "unhealthy"}

Probe = Callable[[HealthConfig], Awaitable[Outcome | None]]


class Checks:
    """`image` is the HEALTHCHECK of the container's image."""

    def __init__(self, spec: ContainerSpec, image: HealthConfig) -> None:
        self._health_config = effective(spec.healthcheck, image)
        self._readiness_config = effective(spec.readiness, HealthConfig())
        self._health: Prober | None = None
        self._readiness: Prober | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def exist(self) -> bool:
        return self._health_config is not None or self._readiness_config is not None

    def begin(
        self, group: asyncio.TaskGroup, probe: Probe, changed: Callable[[], None], *, age: float, was_passing: bool
    ) -> None:
        """Probe a container that started `age` seconds ago; does nothing when that is done already."""
        if self._tasks:
            return
        health = begun(asyncio.get_running_loop().time() - age, was_passing=was_passing)
        self._health = self._prober(group, self._health_config, health, probe, changed)
        self._readiness = self._prober(group, self._readiness_config, health, probe, changed)

    def _prober(
        self,
        group: asyncio.TaskGroup,
        config: HealthConfig | None,
        health: Health,
        probe: Probe,
        changed: Callable[[], None],
    ) -> Prober | None:
        if config is None:
            return None
        prober = Prober(config, health, lambda: probe(config), changed)
        self._tasks.append(group.create_task(prober.run(), name="probe"))
        return prober

    def end(self) -> None:
        """Probe no more. What is known stays."""
        for task in self._tasks:
            task.cancel()

    @property
    def health(self) -> Verdict:
        if self._health_config is None:
            return Verdict.PASSING
        return Verdict.STARTING if self._health is None else self._health.health.verdict

    def report(self) -> pb.ContainerHealth | None:
        """Return how the health check stands, in Docker's words; None without one."""
        if self._health_config is None:
            return None
        health = self._health.health if self._health is not None else None
        return pb.ContainerHealth(
            status=_STATUS[self.health],
            failing_streak=health.failures if health is not None else 0,
            output=health.output if health is not None else "",
        )

    @property
    def is_ready(self) -> bool:
        if self._readiness_config is None:
            return True
        return self._readiness is not None and self._readiness.health.verdict is Verdict.PASSING

    @property
    def complaint(self) -> str:
        """What the last failing probes wrote."""
        probers = [prober for prober in (self._health, self._readiness) if prober is not None]
        return next((prober.health.output for prober in probers if prober.health.output), "")
