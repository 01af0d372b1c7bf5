"""Place tasks that wait for a node, while this manager leads.

Follows the store, so that the table of nodes and the set of waiting tasks are true to it at the cost of what changes.
A round decides on some tasks, writes, and looks at what came back before the next; what a decision booked and could
not write is taken back. A task that fits nowhere is tried again when a node or what a node holds changes.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from functools import partial

from pyswarm.manager.leader.aside import Aside, at_once
from pyswarm.manager.scheduler.node_info import holds_resources
from pyswarm.manager.scheduler.nodes import NodeTable
from pyswarm.manager.scheduler.schedule import schedule
from pyswarm.manager.store.changes import Change, Update
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.manager.store.store import Commit, Overrun, Store
from pyswarm.manager.store.writer import Writer
from pyswarm.proto.clock import Clock
from pyswarm.proto.errors import NotLeader, SwarmError, Unavailable
from pyswarm.proto.log import get_logger
from pyswarm.proto.model.objects import Node, Task
from pyswarm.proto.model.states import TaskState

log = get_logger(__name__)

TASKS_PER_ROUND = 10_000
"""Tasks decided on before looking at the store again: what happens meanwhile must not wait for long."""

TASKS_IN_A_TURN = 2_000
"""Tasks decided on before the store is looked at again: some hundredths of a second."""

EVENTS_IN_A_TURN = 200
"""Events looked at before others get their turn."""

RETRY_SECONDS = 0.5


class Placing:
    """Runs the scheduler."""

    def __init__(self, *, store: Store, writer: Writer, clock: Clock, aside: Aside = at_once) -> None:
        self._store = store
        self._writer = writer
        self._clock = clock
        self._aside = aside

    async def run(self) -> None:
        """Run until cancelled."""
        while True:
            try:
                await self._follow()
            except Overrun:
                log.warning("the scheduler fell behind the store: looking at everything again")
            except (NotLeader, Unavailable) as error:
                # Cancelled soon if leadership is lost; otherwise a quorum is missing for the moment.
                log.warning("placements could not be written", reason=error.message)
                await asyncio.sleep(RETRY_SECONDS)

    async def _follow(self) -> None:
        seen, commits = self._store.view_and_watch({"task", "node"})
        with commits:
            work = await self._aside(partial(_Work, seen), tasks=seen.count("task"))
            while True:
                has_written = False if work.is_done else await self._round(work)
                if not work.is_done and not has_written:
                    continue  # else what was written comes back, so there is something to wait for
                events = 0
                for commit in await commits.next_batch():
                    work.after(commit)
                    events += len(commit.events)
                    if events >= EVENTS_IN_A_TURN:
                        events = 0
                        await asyncio.sleep(0)

    async def _round(self, work: "_Work") -> bool:
        """Decide on some tasks and write; return whether anything was written."""
        changes: list[Change] = []
        while not work.is_done and len(changes) < TASKS_PER_ROUND:
            seen = self._store.view
            tasks = work.take(seen, TASKS_IN_A_TURN)
            decide = partial(schedule, seen, tasks, now=self._clock.now(), table=work.table)
            changes += (await self._aside(decide, tasks=len(tasks))).changes
            await asyncio.sleep(0)
        # Side by side what goes to one node: the fewer nodes an entry concerns, the less its indexes and streams cost.
        changes.sort(key=_node_of)
        try:
            outcome = await self._writer.write_batch(changes)
        except SwarmError:
            work.again(changes)
            raise
        for part in outcome.overtaken:
            # A task moved while we decided: its event is on the way.
            log.debug("placement overtaken", kind=part.conflict.kind, id=part.conflict.id)
            work.again(part.changes)
        if changes:
            log.info("placed", changes=len(changes))
        return bool(changes)


class _Work:
    """The table of nodes, and the tasks that wait: `fresh` ones are to be decided on, the others were refused."""

    def __init__(self, seen: Snapshot) -> None:
        self.table = NodeTable(seen)
        self.fresh: deque[str] = deque()
        self._queued: set[str] = set()
        self._waiting = {task.id for task in seen.tasks() if _waits(task)}
        self._is_all_to_be_tried = True

    @property
    def is_done(self) -> bool:
        """Whether there is nothing to decide on at the moment."""
        return not self.fresh and not (self._is_all_to_be_tried and self._waiting)

    def take(self, seen: Snapshot, most: int) -> list[Task]:
        """Return at most so many of the tasks to decide on, those that have waited longest first."""
        if self._is_all_to_be_tried:
            self._is_all_to_be_tried = False
            for id in sorted(self._waiting - self._queued):
                self._queue(id)
        chosen: list[Task] = []
        while self.fresh and len(chosen) < most:
            id = self.fresh.popleft()
            self._queued.discard(id)
            task = seen.task(id)
            if task is not None:
                chosen.append(task)
        return chosen

    def again(self, changes: Iterable[Change]) -> None:
        """These decisions were not written."""
        tasks = [change.object for change in changes if isinstance(change, Update) and isinstance(change.object, Task)]
        self.table.take_back(tasks)
        for task in tasks:
            self._queue(task.id)

    def after(self, commit: Commit) -> None:
        for event in commit.events:
            is_gone = event.action == "delete"
            subject, old = event.object, event.old
            if isinstance(subject, Task):
                before = old if isinstance(old, Task) else None
                self._after_task(before, None if is_gone else subject, subject.id, commit.snapshot)
            elif isinstance(subject, Node) and is_gone:
                self.table.node_removed(subject.id)
                self._is_all_to_be_tried = True
            elif isinstance(subject, Node) and not (isinstance(old, Node) and _same_place(old, subject)):
                self.table.node_changed(subject, commit.snapshot)
                self._is_all_to_be_tried = True

    def _after_task(self, old: Task | None, new: Task | None, id: str, seen: Snapshot) -> None:
        self.table.task_changed(old, new, seen)
        if new is None or not _waits(new):
            self._waiting.discard(id)
        elif id not in self._waiting:
            self._waiting.add(id)
            self._queue(id)
        if old is not None and holds_resources(old) and (new is None or not holds_resources(new)):
            # It frees what another waits for.
            self._is_all_to_be_tried = True

    def _queue(self, id: str) -> None:
        if id not in self._queued:
            self._queued.add(id)
            self.fresh.append(id)


def _node_of(change: Change) -> str:
    return change.object.node_id if isinstance(change, Update) and isinstance(change.object, Task) else ""


def _waits(task: Task) -> bool:
    return task.status.state is TaskState.PENDING and task.is_wanted


def _same_place(old: Node, new: Node) -> bool:
    """Whether a change of a node is none for the scheduler."""
    return (old.spec, old.role, old.status.state, old.status.addr, old.description) == (
        new.spec,
        new.role,
        new.status.state,
        new.status.addr,
        new.description,
    )
