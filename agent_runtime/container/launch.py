"""Bring up a container's first process: to the point of its start, and from there, or from nothing, to its program.

A container that is created is *held*: a child with everything set up (namespaces, mounts, cgroup, rights, filter) waits
before its execve, so that `start` is one message. It is held for the daemon that created it, by the
spawner: nothing on disk tells of it, and it ends when either of them does. Then, or when it could not be held, `start`
does all the work at once, and tells what is wrong. What a start means to a container's record is `containers`'
business.
"""

import asyncio
import os

from pyswarm.agent_runtime.bundle.become import Steps, explain_failure
from pyswarm.agent_runtime.container.entry import Entry, Held
from pyswarm.agent_runtime.container.prepare import Prepared, Preparer
from pyswarm.agent_runtime.container.spawner_client import SpawnerClient, Started, StartFailed
from pyswarm.proto.clock import Clock
from pyswarm.proto.errors import SwarmError
from pyswarm.proto.log import get_logger

log = get_logger(__name__)

START_SECONDS = 60.0
"""How long a container may take from clone to execve before it is given up."""


class CannotStart(Exception):
    """A container will never run: why, what to do about it, and a shell's exit code for it."""

    def __init__(self, reason: str, exit_code: int, cause: BaseException) -> None:
        super().__init__(reason)
        self.reason = reason
        self.exit_code = exit_code
        self.remedy = cause.remedy if isinstance(cause, SwarmError) else "Correct the service's spec or its image."


class Launcher:
    """Call for one container at a time, in its turn. `tasks` owns what nobody waits for."""

    def __init__(self, preparer: Preparer, spawner: SpawnerClient, clock: Clock, tasks: asyncio.TaskGroup) -> None:
        self._preparer = preparer
        self._spawner = spawner
        self._clock = clock
        self._tasks = tasks

    async def hold(self, entry: Entry) -> None:
        """Bring a container to the point of its start. What is in the way is told by the start, which tries again."""
        if not self._spawner.holds_created:
            return
        container_id = entry.record.id
        try:
            prepared = await self._prepare(entry, held=True)
        except (SwarmError, OSError) as error:
            log.info("a container cannot be made ready yet", container=container_id, error=error)
            return
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._spawner.hold(
                    container_id,
                    prepared.descriptors,
                    into_cgroup=prepared.into_cgroup,
                    terminal=prepared.terminal is not None,
                )
            terminal = None if prepared.terminal is None else os.dup(prepared.terminal)
            entry.held = Held(Steps.after_the_wait(prepared.program), prepared.spec.process.args[0], terminal)
        except (StartFailed, SwarmError, TimeoutError, OSError) as error:
            log.info("a container cannot be made ready yet", container=container_id, error=error)
            await self._drop(container_id)
        finally:
            self._close(prepared)

    async def start(self, entry: Entry) -> Started:
        """Let a created container run its program; return once it was executed. Raises CannotStart."""
        if entry.has_distant_log:
            await self._call_log(entry)
        started = None if entry.held is None else await self._go(entry, entry.held)
        return started or await self._start_from_nothing(entry)

    async def let_go(self, entry: Entry) -> None:
        """Let a container that is held end; one that is not is left alone."""
        if entry.held is not None:
            entry.held.close()
            entry.held = None
            await self._drop(entry.record.id)

    async def discard_cgroup(self, container_id: str) -> None:
        """Kill what is left of a container and remove its cgroup. Raises OSError."""
        # The first process took all others with it: nearly always there is nobody left to be killed.
        if not self._preparer.cgroups.try_remove(container_id):
            await asyncio.to_thread(self._discard_cgroup, container_id)

    def _discard_cgroup(self, container_id: str) -> None:
        self._preparer.cgroups.kill(container_id)
        self._preparer.cgroups.remove(container_id)

    async def _drop(self, container_id: str) -> None:
        try:
            await self._spawner.drop(container_id)
        except SwarmError as error:
            log.info("the spawner is gone, and what it held with it", container=container_id, error=error)
        await self.discard_cgroup(container_id)

    async def _call_log(self, entry: Entry) -> None:
        try:
            async with asyncio.timeout(START_SECONDS):
                await entry.call_log()
        except (OSError, TimeoutError) as error:
            await self.let_go(entry)
            raise CannotStart(f"failed to initialize logging driver: {_why(error)}", 128, error) from error

    async def _go(self, entry: Entry, held: Held) -> Started | None:
        """Start a container that is held; None if it is not there any more."""
        container_id, entry.held = entry.record.id, None
        try:
            # Before it says anything: what waits in two pipes has no order.
            entry.open_output(self._clock, held.terminal)
            async with asyncio.timeout(START_SECONDS):
                return await self._spawner.go(container_id)
        except (StartFailed, SwarmError, TimeoutError, OSError) as error:
            await self.discard_cgroup(container_id)
            was_let_go = self._preparer.state.process_record(container_id) is not None
            if isinstance(error, StartFailed | SwarmError) and not was_let_go:
                log.info("a container ended while it waited for its start", container=container_id, error=error)
                entry.abandon_output()
                return None
            raise _cannot_start(held.steps, held.name, error) from error

    async def _prepare(self, entry: Entry, *, held: bool = False) -> Prepared:
        spec, entry.spec = entry.spec, None
        return await asyncio.to_thread(self._preparer.prepare, entry.record, spec, held=held)

    async def _start_from_nothing(self, entry: Entry) -> Started:
        container_id = entry.record.id
        try:
            prepared = await self._prepare(entry)
        except (SwarmError, OSError) as error:
            reason = error.message if isinstance(error, SwarmError) else f"cannot prepare the container: {error}"
            raise CannotStart(reason, 128, error) from error
        try:
            terminal = None if prepared.terminal is None else os.dup(prepared.terminal)
            entry.open_output(self._clock, terminal)
            async with asyncio.timeout(START_SECONDS):
                return await self._spawner.start(
                    container_id,
                    prepared.descriptors,
                    into_cgroup=prepared.into_cgroup,
                    terminal=terminal is not None,
                )
        except (StartFailed, SwarmError, TimeoutError, OSError) as error:
            await self.discard_cgroup(container_id)
            raise _cannot_start(Steps.of(prepared.program), prepared.spec.process.args[0], error) from error
        finally:
            self._close(prepared)

    def _close(self, prepared: Prepared) -> None:
        """The last reference to a mount's descriptor costs a millisecond: nobody has to wait for that."""
        self._tasks.create_task(asyncio.to_thread(prepared.close))


def _why(error: OSError | TimeoutError) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) and error.args else "it does not answer"


def _cannot_start(steps: Steps, name: str, error: BaseException) -> CannotStart:
    """Return why a container did not start, and an exit code for it."""
    if isinstance(error, StartFailed):
        if error.index >= 0:
            return CannotStart(*explain_failure(steps, name, error.index, error.errno), error)
        return CannotStart(f"cannot clone the container: {os.strerror(error.errno)}", 128, error)
    if isinstance(error, TimeoutError):
        return CannotStart(f"the container did not start within {START_SECONDS:.0f} s", 128, error)
    return CannotStart(f"cannot start the container: {error}", 128, error)
