"""The containers of this node: create, start, stop, remove, and everything that happens to them meanwhile.

The one place that changes a container's record. Operations on one container take turns; the end of a container is
handled as soon as it is known, whoever is waiting. What survives us is on disk (`state_directory`) and in the spawner;
`recovery` puts it together again at start.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from pyswarm.agent_runtime.bundle import build
from pyswarm.agent_runtime.container.attach import Attachment
from pyswarm.agent_runtime.container.entry import Entry
from pyswarm.agent_runtime.container.events import Events
from pyswarm.agent_runtime.container.exit_watch import ExitWatch
from pyswarm.agent_runtime.container.images import ImageStore
from pyswarm.agent_runtime.container.launch import CannotStart, Launcher
from pyswarm.agent_runtime.container.log_drivers import settings_of
from pyswarm.agent_runtime.container.log_format import Line
from pyswarm.agent_runtime.container.log_reader import read_lines
from pyswarm.agent_runtime.container.oom_watch import OomWatch
from pyswarm.agent_runtime.container.prepare import Preparer
from pyswarm.agent_runtime.container.record import LOST_EXIT_CODE, Created, Outcome, Record, check_id, parse_signal
from pyswarm.agent_runtime.container.recovery import Discovery, Verdict
from pyswarm.agent_runtime.container.removal import Removals
from pyswarm.agent_runtime.container.spawner_client import SpawnerClient
from pyswarm.agent_runtime.container.state_directory import ExitRecord
from pyswarm.agent_runtime.container.watchers import Watchers
from pyswarm.agent_runtime.kernel.process import exit_code, open_pidfd
from pyswarm.proto.clock import Clock
from pyswarm.proto.errors import AlreadyExists, FailedPrecondition, Internal, NotFound, SwarmError
from pyswarm.proto.log import get_logger
from pyswarm.proto.v1 import runtime_pb2 as pb

log = get_logger(__name__)

T = TypeVar("T")

KILL_SECONDS = 30.0
"""How long SIGKILL may take: longer means a process stuck in the kernel."""


class Containers:
    """All containers. `tasks` owns the background work; it must outlive every call."""

    def __init__(
        self,
        *,
        preparer: Preparer,
        images: ImageStore,
        spawner: SpawnerClient,
        exits: ExitWatch,
        ooms: OomWatch,
        clock: Clock,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._preparer = preparer
        self._state = preparer.state
        self._cgroups = preparer.cgroups
        self._images = images
        self._spawner = spawner
        self._exits = exits
        self._ooms = ooms
        self._clock = clock
        self._tasks = tasks
        self._entries: dict[str, Entry] = {}
        self._watchers = Watchers()
        self.events = Events(clock)
        self._operations: set[asyncio.Task[None]] = set()
        self._removals = Removals(self._state, tasks)
        self._launcher = Launcher(preparer, spawner, clock, tasks)

    # Reading

    def get(self, container_id: str) -> pb.Container:
        return self._entry(container_id).record.to_message()

    def all(self) -> list[pb.Container]:
        return [entry.record.to_message() for entry in self._entries.values()]

    def watch(self) -> AsyncIterator[pb.Container]:
        """Yield every container, then each one that changes, without a gap."""
        return self._watchers.subscribe(self.all)

    def uses_image(self, image_id: str) -> bool:
        return any(entry.record.created.image_id == image_id for entry in self._entries.values())

    async def wait(self, container_id: str) -> pb.Container:
        """Return when the container has stopped. Raises NotFound if it is removed meanwhile, or was never there."""
        entry = self._entry(container_id)
        await entry.ended.wait()
        if entry.record.outcome is None:
            raise _not_found(container_id)
        return entry.record.to_message()

    def logs(
        self, container_id: str, *, follow: bool, tail: int, since: float, until: float = 0.0
    ) -> AsyncIterator[Line]:
        """Yield lines of its log. Raises FailedPrecondition when its driver hands them on to somebody else."""
        entry = self._entry(container_id)
        if entry.log is None:
            driver = entry.record.config.log_driver.name
            raise FailedPrecondition(
                f"configured logging driver does not support reading: {driver}",
                remedy="Read them where the driver takes them, or use the driver json-file or local.",
            )
        seconds = max(0.0, until - self._clock.now()) if until else None
        return read_lines(entry.log, follow=follow, tail=tail, since=since, until=until, seconds=seconds)

    def attach(self, config: pb.AttachConfig) -> Attachment:
        """Attach to a running container. Raises FailedPrecondition when it does not run."""
        return Attachment(self._entry(config.container), config, self.kill, self.events)

    def joinable(self, container_id: str) -> tuple[Record, int]:
        """Return a running container's record and a pidfd of its first process, which is the caller's to close."""
        entry = self._entry(container_id)
        if not entry.record.is_alive or entry.pidfd is None or entry.finishing:
            raise not_running(container_id)
        if entry.record.paused:
            raise FailedPrecondition(f"container {container_id} is paused", remedy="Unpause it first.")
        return entry.record, os.dup(entry.pidfd)

    def running(self) -> list[Record]:
        """Return the records of the containers that run or are paused."""
        return [entry.record for entry in self._entries.values() if entry.record.is_alive]

    def record(self, container_id: str) -> Record:
        return self._entry(container_id).record

    async def in_turn(self, container_id: str, change: Callable[[Entry], Awaitable[None]]) -> pb.Container:
        """Let `change` do something to a container while nobody else does; return how it is then."""
        entry = self._entry(container_id)

        async def take_turn() -> pb.Container:
            async with entry.turn:
                self._check_present(entry)
                await change(entry)
                return entry.record.to_message()

        return await self._carry_out(take_turn())

    def note(self, container_id: str, fresh: Record) -> None:
        """Note what has been learnt of a container, whoever has its turn. Raises NotFound."""
        self.replace(self._entry(container_id), fresh)

    def replace(self, entry: Entry, record: Record) -> None:
        """Note what has changed and tell those who watch."""
        entry.record = record
        self._watchers.publish(record.to_message())

    def _entry(self, container_id: str) -> Entry:
        entry = self._entries.get(container_id)
        if entry is None:
            raise _not_found(container_id)
        return entry

    async def _carry_out(self, operation: Coroutine[Any, Any, T]) -> T:
        """Run an operation to its end even when the caller goes away: half of one would leave things behind."""
        outcome: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        # Nobody may be left to look at it.
        outcome.add_done_callback(lambda done: done.cancelled() or done.exception())

        async def run() -> None:
            try:
                outcome.set_result(await operation)
            except Exception as error:  # noqa: BLE001 - handed to the caller
                outcome.set_exception(error)
            finally:
                outcome.cancel()  # does nothing once it is set
                self._operations.discard(task)

        task = self._tasks.create_task(run())
        self._operations.add(task)
        return await asyncio.shield(outcome)

    # Creating and starting

    async def create(self, container_id: str, config: pb.ContainerConfig) -> pb.Container:
        """Make a container and bring it to the point of its start; one that exists with the same config is returned as
        it is."""
        check_id(container_id)
        if (same := self._existing(container_id, config)) is not None:
            return same.record.to_message()
        entry = await self._create(container_id, config)
        return await self._carry_out(self._hold_in_turn(entry))

    async def run(self, container_id: str, config: pb.ContainerConfig, *, remove: bool) -> AsyncIterator[pb.Container]:
        """Make a container and run it: yield it when it runs, and when it has stopped; then `remove` it, if wanted.

        Nothing is held on the way, which makes it the shortest one; what it leaves on disk is erased after it is gone.
        Raises as `create` and `start` do.
        """
        check_id(container_id)
        entry = self._existing(container_id, config) or await self._create(container_id, config)
        try:
            yield await self._carry_out(self._start_in_turn(entry))
            await entry.ended.wait()
            yield entry.record.to_message()
        finally:
            if remove and entry.record.outcome is not None and self._entries.get(container_id) is entry:
                await self._carry_out(self._remove_in_turn(entry, force=False, erase_later=True))

    async def _create(self, container_id: str, config: pb.ContainerConfig) -> Entry:
        image = await self._images.resolve(config.image)
        created = Created(
            created_at=self._clock.now(),
            image_id=image.id,
            layers=tuple(str(layer) for layer in image.layers),
            image=dict(image.config.get("config") or {}),
        )
        record = Record(container_id, config, created)
        spec = build.build(container_id, config, created.image, self._preparer.host)
        if config.stop_signal:
            parse_signal(config.stop_signal)
        settings_of(config)
        # Somebody else may have created it while the image was looked up; from here on nobody can.
        if (same := self._existing(container_id, config)) is not None:
            return same
        self._state.create(record)
        entry = self._entries[container_id] = Entry(record, self._state.path(container_id), self._tasks)
        entry.spec = spec
        self._watchers.publish(entry.record.to_message())
        self.events.tell("create", record)
        return entry

    def _existing(self, container_id: str, config: pb.ContainerConfig) -> Entry | None:
        entry = self._entries.get(container_id)
        if entry is None:
            return None
        if entry.record.config != config:
            raise AlreadyExists(
                f"container {container_id} exists with another config", remedy="Remove it first, or use another id."
            )
        return entry

    async def _hold_in_turn(self, entry: Entry) -> pb.Container:
        async with entry.turn:
            self._check_present(entry)
            if entry.record.state == pb.CREATED and entry.held is None:
                await self._launcher.hold(entry)
            return entry.record.to_message()

    async def start(self, container_id: str) -> pb.Container:
        """Run a created container; returns once its program was executed. A running one is left alone.

        A container that cannot be started is stopped for good, with the reason in `error`; the same reason is
        raised as FailedPrecondition.
        """
        return await self._carry_out(self._start_in_turn(self._entry(container_id)))

    async def _start_in_turn(self, entry: Entry) -> pb.Container:
        async with entry.turn:
            self._check_present(entry)
            if entry.record.state == pb.CREATED:
                await self._start(entry)
            elif entry.record.state == pb.STOPPED:
                raise FailedPrecondition(
                    f"container {entry.record.id} has run already", remedy="Create a new one: containers run once."
                )
            return entry.record.to_message()

    async def _start(self, entry: Entry) -> None:
        try:
            started = await self._launcher.start(entry)
        except CannotStart as error:
            self._give_up(entry, error)
            raise FailedPrecondition(error.reason, remedy=error.remedy) from error
        entry.record = entry.record.running(started.process, started.at)
        entry.pidfd = open_pidfd(started.process)
        self._watchers.publish(entry.record.to_message())
        self.events.tell("start", entry.record)
        self._ooms.watch(entry.record.id)
        if entry.early_exit is not None:
            self._on_exit(entry.record.id, entry.early_exit)
        elif not self._spawner.is_connected:
            self._adopt_orphan(entry)

    def _give_up(self, entry: Entry, error: CannotStart) -> None:
        entry.close_output()
        self._stopped(entry, Outcome(error.exit_code, self._clock.now(), error=error.reason))

    # The end of a container

    def on_exit(self, container_id: str, status: int) -> None:
        """The spawner says that a container has ended."""
        self._on_exit(container_id, status)

    def _on_exit(self, container_id: str, status: int | None) -> None:
        entry = self._entries.get(container_id)
        if entry is None or entry.record.outcome is not None:
            # Given up meanwhile, for example because its start took too long.
            self._tasks.create_task(self._release(container_id))
            return
        if entry.record.process is None:
            entry.early_exit = status  # it ended before its start was reported to whoever waits for that
            return
        if not entry.finishing:
            entry.finishing = True
            self._tasks.create_task(self._finish(entry, status))

    async def _finish(self, entry: Entry, status: int | None) -> None:
        """Save what a container left behind: its last output, its exit code, whether memory ran out."""
        container_id = entry.record.id
        record = self._state.exit_record(container_id)
        if record is not None:
            status = record.status
        await entry.drain_output()
        entry.close_output()
        self._ooms.forget(container_id)
        if (kills := self._cgroups.oom_kills(container_id)) > entry.record.oom_kills:
            self.on_oom_kill(container_id, kills)
        outcome = Outcome(
            exit_code=LOST_EXIT_CODE if status is None else exit_code(status),
            finished_at=record.finished_at if record else self._clock.now(),
            oom_killed=entry.record.oom_kills > 0,
            error=_what_went_wrong(status, record),
        )
        self._stopped(entry, outcome)
        try:
            await self._launcher.discard_cgroup(container_id)
            await self._release(container_id)
        except (OSError, SwarmError) as error:
            log.error("could not clean up after a container", container=container_id, error=error)
        entry.cleaned.set()

    async def _release(self, container_id: str) -> None:
        """Let the spawner forget a container; one that died meanwhile has forgotten it."""
        try:
            await self._spawner.release(container_id)
        except SwarmError as error:
            log.info("the spawner died before it could be told to forget", container=container_id, error=error)

    def _stopped(self, entry: Entry, outcome: Outcome) -> None:
        entry.record = entry.record.stopped(outcome)
        try:
            self._state.write_outcome(entry.record.id, outcome)
        except OSError as error:
            # It is stopped all the same; after a restart its exit record says so again.
            log.error("cannot write down how a container ended", container=entry.record.id, error=error)
        entry.close()
        if not entry.finishing:
            entry.cleaned.set()
        self._watchers.publish(entry.record.to_message())
        because = {"error": outcome.error} if outcome.error else {}
        self.events.tell("die", entry.record, exitCode=outcome.exit_code, **because)

    def on_oom_kill(self, container_id: str, kills: int) -> None:
        """The kernel has killed a process of a container for its memory limit, `kills` in all."""
        fresh = self.record(container_id).with_oom_kills(kills)
        try:
            self._state.write_oom_kills(container_id, kills)
        except OSError as error:
            # The next daemon will tell of it again.
            log.error("cannot write down a kill for memory", container=container_id, error=error)
        self.note(container_id, fresh)
        self.events.tell("oom", fresh, oomKills=kills)

    # Stopping and removing

    async def stop(self, container_id: str, grace_seconds: float | None) -> pb.Container:
        """Ask it to stop, kill it after the grace period (None = its own), return when it is stopped."""
        return await self._carry_out(self._stop_in_turn(self._entry(container_id), grace_seconds))

    async def _stop_in_turn(self, entry: Entry, grace_seconds: float | None) -> pb.Container:
        async with entry.turn:
            if entry.record.is_alive:
                grace = entry.record.grace_seconds if grace_seconds is None else grace_seconds
                self._signal(entry, entry.record.stop_signal)
                await self._thaw(entry)
                try:
                    async with asyncio.timeout(grace):
                        await entry.ended.wait()
                except TimeoutError:
                    await self._kill(entry)
                self.events.tell("stop", entry.record)
            return entry.record.to_message()

    async def kill(self, container_id: str, signal_name: str) -> pb.Container:
        """Send a signal to the container's first process; SIGKILL kills all of it, also one that is paused."""
        entry = self._entry(container_id)
        number = parse_signal(signal_name or "SIGKILL")
        if not entry.record.is_alive:
            raise not_running(container_id)
        self._signal(entry, number)
        if number == signal.SIGKILL:
            await self._thaw(entry)
        return entry.record.to_message()

    async def _thaw(self, entry: Entry) -> None:
        """Let a paused container go on, so that it can act on a signal, or die of one."""
        if entry.record.paused and entry.record.is_alive:
            try:
                await asyncio.to_thread(self._cgroups.freeze, entry.record.id, frozen=False)
            except FileNotFoundError:
                return  # it ended meanwhile
            if entry.record.is_alive:
                self.replace(entry, entry.record.with_pause(False))

    def _signal(self, entry: Entry, number: int) -> None:
        if entry.pidfd is not None:
            try:
                signal.pidfd_send_signal(entry.pidfd, number)
            except ProcessLookupError:
                return  # it is ending; its exit is on the way
            self.events.tell("kill", entry.record, signal=number)

    async def _kill(self, entry: Entry) -> None:
        # The first process of a pid namespace takes all others with it.
        self._signal(entry, signal.SIGKILL)
        self._cgroups.kill(entry.record.id)
        await self._thaw(entry)
        try:
            async with asyncio.timeout(KILL_SECONDS):
                await entry.ended.wait()
        except TimeoutError:
            raise Internal(
                f"container {entry.record.id} does not die: a process of it is stuck in the kernel",
                remedy="Look at the kernel's log on that node; only a reboot may help.",
            ) from None

    async def remove(self, container_id: str, *, force: bool) -> None:
        """Remove a container and everything of it. A running one is killed with `force`, refused without."""
        await self._carry_out(self._remove_in_turn(self._entry(container_id), force=force))

    async def _remove_in_turn(self, entry: Entry, *, force: bool, erase_later: bool = False) -> None:
        container_id = entry.record.id
        async with entry.turn:
            self._check_present(entry)
            if entry.record.is_alive:
                if not force:
                    raise FailedPrecondition(
                        f"container {container_id} is running", remedy="Stop it first, or remove it with force."
                    )
                await self._kill(entry)
            await self._launcher.let_go(entry)
            if entry.record.state == pb.STOPPED:
                await entry.cleaned.wait()
            discarded = self._state.discard(container_id)
            del self._entries[container_id]
            entry.close()
            self._watchers.publish(entry.record.to_message(removed=True))
            self.events.tell("destroy", entry.record)
        if erase_later:
            await self._removals.add(discarded)
        else:
            await asyncio.to_thread(self._state.erase, discarded)

    def _check_present(self, entry: Entry) -> None:
        if self._entries.get(entry.record.id) is not entry:
            raise _not_found(entry.record.id)

    # Surviving

    def adopt(self, discoveries: list[Discovery]) -> None:
        """Take over what the previous daemon left. Call once, after the spawner is connected."""
        for found in discoveries:
            entry = self._entries[found.record.id] = Entry(found.record, self._state.path(found.record.id), self._tasks)
            if found.verdict is Verdict.SETTLED:
                if found.record.outcome is not None:
                    entry.cleaned.set()
                    entry.close()
                continue
            if found.record.config.tty:
                entry.reclaiming = self._tasks.create_task(self._reclaim_terminal(entry))
            else:
                entry.open_output(self._clock)
            if found.verdict is Verdict.LOST:
                entry.close_output()
                self._stopped(entry, Outcome(LOST_EXIT_CODE, self._clock.now(), error=found.reason))
                entry.cleaned.set()
            elif found.verdict is Verdict.ENDED:
                self._on_exit(found.record.id, None)
            else:
                entry.pidfd = found.pidfd
                entry.record = entry.record.with_pause(self._cgroups.is_frozen(found.record.id))
                self._ooms.watch(found.record.id, told=found.record.oom_kills)
                if found.record.id not in self._spawner.owned:
                    self._adopt_orphan(entry)
        for container_id in self._spawner.owned - {
            e.record.id for e in self._entries.values() if not e.cleaned.is_set()
        }:
            self._tasks.create_task(self._release(container_id))
        self._sweep_cgroups()

    async def _reclaim_terminal(self, entry: Entry) -> None:
        """Read on from the terminal that the spawner has kept."""
        try:
            terminal = await self._spawner.terminal(entry.record.id)
        except SwarmError as error:
            log.warning("a container's terminal is lost", container=entry.record.id, error=error)
            return
        if terminal is None:
            return
        if entry.record.outcome is not None:
            os.close(terminal)
            return
        entry.open_output(self._clock, terminal)

    def _sweep_cgroups(self) -> None:
        """Remove cgroups of containers that do not run: a start that was cut short, a removal that was."""
        for name in self._cgroups.names():
            entry = self._entries.get(name)
            if entry is None or not (entry.record.is_alive or entry.finishing):
                log.info("removing a left-over cgroup", container=name)
                self._cgroups.kill(name)
                self._cgroups.remove(name)

    def on_spawner_lost(self) -> None:
        """The spawner died: watch its containers ourselves, and get another one for those to come."""
        for entry in self._entries.values():
            if entry.record.is_alive and not entry.finishing:
                self._adopt_orphan(entry)
            elif entry.held is not None:
                self._tasks.create_task(self._let_go_in_turn(entry))
        self._tasks.create_task(self._reconnect())

    async def _let_go_in_turn(self, entry: Entry) -> None:
        """It ended with the spawner: its start will make another one."""
        async with entry.turn:
            await self._launcher.let_go(entry)

    async def _reconnect(self) -> None:
        try:
            await self._spawner.connect()
        except (SwarmError, OSError) as error:
            log.error("cannot start a spawner; the next container will try again", error=error)

    def _adopt_orphan(self, entry: Entry) -> None:
        container_id = entry.record.id
        if entry.pidfd is None or self._state.exit_record(container_id) is not None:
            self._on_exit(container_id, None)
            return
        log.info("watching a container without its spawner", container=container_id, pid=entry.record.process)
        self._exits.watch(entry.pidfd, lambda status: self._on_exit(container_id, status))

    def close(self) -> None:
        """Let go of all containers; they go on. What is under way is cut short: the next daemon cleans up."""
        for operation in self._operations:
            operation.cancel()
        for entry in self._entries.values():
            entry.abandon()


def _not_found(container_id: str) -> NotFound:
    return NotFound(f"no such container: {container_id}", remedy="List them to see what is there.")


def not_running(container_id: str) -> FailedPrecondition:
    return FailedPrecondition(f"container {container_id} is not running", remedy="Start it first.")


def _what_went_wrong(status: int | None, record: ExitRecord | None) -> str:
    if record is not None and record.failure is not None:
        return f"it could not be started: {os.strerror(record.failure[1])}"
    return "its exit status was lost: the spawner died and this kernel keeps none" if status is None else ""
