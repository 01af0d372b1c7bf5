"""Change a container while it runs: let it stand still and go on, give it other limits, note how well it is.

A pause is nothing but a state of its cgroup, which outlives daemon and spawner; limits are written down besides.
"""

import asyncio

from pyswarm.agent_runtime.bundle.build import limits_of
from pyswarm.agent_runtime.container.containers import Containers, not_running
from pyswarm.agent_runtime.container.entry import Entry
from pyswarm.agent_runtime.container.state_directory import StateDirectory
from pyswarm.agent_runtime.kernel.cgroup_usage import read_usage
from pyswarm.agent_runtime.kernel.cgroups import Cgroups
from pyswarm.proto.errors import FailedPrecondition, Internal, InvalidArgument
from pyswarm.proto.v1 import runtime_pb2 as pb
from pyswarm.proto.v1 import types_pb2 as types

HEALTH_STATUSES = ("starting", "healthy", "unhealthy")


class Adjustments:
    def __init__(self, containers: Containers, cgroups: Cgroups, state: StateDirectory) -> None:
        self._containers = containers
        self._cgroups = cgroups
        self._state = state

    async def pause(self, container_id: str) -> pb.Container:
        """Freeze every process of a running container; returns when all stand still."""

        async def pause(entry: Entry) -> None:
            if not entry.record.is_alive or entry.finishing:
                raise not_running(container_id)
            if entry.record.paused:
                raise FailedPrecondition(f"container {container_id} is paused already", remedy="Unpause it.")
            await self._freeze(entry, frozen=True)

        return await self._containers.in_turn(container_id, pause)

    async def unpause(self, container_id: str) -> pb.Container:
        """Let a paused container go on."""

        async def unpause(entry: Entry) -> None:
            if not entry.record.paused or not entry.record.is_alive:
                raise FailedPrecondition(f"container {container_id} is not paused", remedy="Pause it first.")
            await self._freeze(entry, frozen=False)

        return await self._containers.in_turn(container_id, unpause)

    async def _freeze(self, entry: Entry, *, frozen: bool) -> None:
        name = entry.record.id
        try:
            await asyncio.to_thread(self._cgroups.freeze, name, frozen=frozen)
        except FileNotFoundError:
            raise not_running(name) from None  # it ended meanwhile
        except TimeoutError as error:
            await asyncio.to_thread(self._cgroups.freeze, name, frozen=not frozen)
            raise Internal(
                f"container {name} cannot be paused: {error}",
                remedy="A process of it is stuck in the kernel, for example in file I/O; try again later.",
            ) from error
        if entry.record.is_alive:
            self._containers.replace(entry, entry.record.with_pause(frozen))
            self._containers.events.tell("pause" if frozen else "unpause", entry.record)

    async def update(self, request: pb.UpdateContainerRequest) -> pb.Container:
        """Change the limits that are given; a container that was not started yet will start with them."""

        async def update(entry: Entry) -> None:
            if entry.record.outcome is not None or entry.finishing:
                raise FailedPrecondition(f"container {request.id} has ended", remedy="Its limits mean nothing now.")
            await self._update(entry, _changed(entry.record.present_config.limits, request))

        return await self._containers.in_turn(request.id, update)

    def report_health(self, container_id: str, health: pb.ContainerHealth) -> pb.Container:
        """Note what a running container's checks have found; tell when it is another status. Raises NotFound."""
        if health.status not in HEALTH_STATUSES:
            raise InvalidArgument(f"there is no health {health.status!r}", remedy=f"Say {', '.join(HEALTH_STATUSES)}.")
        before = self._containers.record(container_id)
        if not before.is_alive:
            raise not_running(container_id)
        if before.health == health:
            return before.to_message()
        fresh = before.with_health(health)
        self._containers.note(container_id, fresh)
        if health.status != "starting" and (before.health is None or before.health.status != health.status):
            self._containers.events.tell(f"health_status: {health.status}", fresh)
        return fresh.to_message()

    async def _update(self, entry: Entry, limits: types.Resources) -> None:
        name, old, new = entry.record.id, limits_of(entry.record.present_config.limits), limits_of(limits)
        if entry.record.is_alive or entry.held is not None:
            usage = await asyncio.to_thread(read_usage, self._cgroups, name)
            if new.memory_bytes and usage.memory - usage.memory_inactive > new.memory_bytes:
                raise FailedPrecondition(
                    f"container {name} uses {usage.memory - usage.memory_inactive} bytes of memory, "
                    f"more than the new limit of {new.memory_bytes}",
                    remedy="Give it more, or stop it first: the kernel would kill it.",
                )
            try:
                await asyncio.to_thread(self._cgroups.update, name, old, new)
            except OSError as error:
                raise FailedPrecondition(
                    f"the kernel refuses the new limits of container {name}: {error.strerror}",
                    remedy="Give it more, or stop it first.",
                ) from error
        self._state.write_limits(name, limits)
        self._containers.replace(entry, entry.record.with_limits(limits))
        self._containers.events.tell("update", entry.record)


def _changed(present: types.Resources, request: pb.UpdateContainerRequest) -> types.Resources:
    limits = types.Resources()
    limits.CopyFrom(present)
    for field in ("nano_cpus", "memory_bytes", "pids"):
        if request.HasField(field):
            setattr(limits, field, getattr(request, field))
    return limits
