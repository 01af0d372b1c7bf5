"""What a change of services would come to: which tasks would start, stop and stay, and where (pure).

The real decisions are taken on a view that nobody else sees, with agents that do at once what they are told, on a clock
that jumps from one moment to the next. Nothing is written. What cannot be foreseen (a task that fails, other changes
meanwhile) is not: the tasks of a preview never fail. Of an update the nodes are the likely ones: where several would
do, it depends on when the old tasks end.
"""

from collections.abc import Collection, Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from pyswarm.manager.orchestrator.reconcile import reconcile
from pyswarm.manager.scheduler.nodes import NodeTable
from pyswarm.manager.scheduler.schedule import schedule
from pyswarm.manager.store.changes import Change, Create, Update
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.proto.model.objects import Node, Task, TaskStatus
from pyswarm.proto.model.spec import ServiceSpec
from pyswarm.proto.model.states import TaskState

ROUNDS_MAX = 600
STEPS_OF_AN_UPDATE = 12
"""An update of many tasks is foreseen in larger steps than it will take."""


class Placed(Struct, frozen=True):
    """A task that would start: on `node`, or nowhere and `why_not`; `instead_of` is the node its slot is on now."""

    slot: int
    node: str
    instead_of: str = ""
    why_not: str = ""


class Forecast(Struct, frozen=True):
    """What becomes of one service's tasks."""

    service_id: str
    kept: int
    stopped: int
    starts: tuple[Placed, ...]


def forecast(seen: Snapshot, changes: Sequence[Change], service_ids: Collection[str], *, now: float) -> list[Forecast]:
    """Return what becomes of the services when `changes` are written now."""
    end = _Future(seen, changes, frozenset(service_ids), now).settled()
    return [_compared(seen, end, id) for id in sorted(service_ids)]


class _Future:
    def __init__(self, seen: Snapshot, changes: Sequence[Change], service_ids: frozenset[str], now: float) -> None:
        self.seen = seen
        self.now = now
        self.table = NodeTable(seen)
        self._service_ids = service_ids
        self._ids = (f"planned-{number}" for number in range(10**9))
        self._apply(changes)
        for id in service_ids:
            self._hurry(id)

    def settled(self) -> Snapshot:
        """Return the view once nothing changes any more."""
        for _ in range(ROUNDS_MAX):
            moments = [moment for id in sorted(self._service_ids) if (moment := self._decide(id)) is not None]
            before = self.seen
            self._place()
            self._apply(list(self._obey()))
            if moments and self.seen is before:
                later = [m for m in moments if m > self.now]
                if not later:
                    break
                self.now = min(later)
            elif self.seen is before:
                break
            else:
                self.now += 0.01
        return self.seen

    def _decide(self, service_id: str) -> float | None:
        service = self.seen.service(service_id)
        if service is None:
            return None
        plan = reconcile(self.seen, service, now=self.now, new_id=lambda: next(self._ids))
        self._apply(plan.changes)
        if service.spec.schedule is not None and not plan.changes:
            return None  # what its future moments bring is not foreseen
        return self.now + 0.01 if plan.changes else plan.look_again_at

    def _place(self) -> None:
        waiting = [
            t for id in self._service_ids for t in self.seen.tasks_of_service(id) if t.state < TaskState.ASSIGNED
        ]
        self._apply(schedule(self.seen, waiting, now=self.now, table=self.table).changes)

    def _obey(self) -> Iterator[Change]:
        """Agents do what they are told, at once."""
        for id in self._service_ids:
            for task in self.seen.tasks_of_service(id):
                state = _obeyed(task)
                if TaskState.ASSIGNED <= task.state <= TaskState.RUNNING and state is not task.state:
                    yield Update(replace(task, status=TaskStatus(state=state, timestamp=self.now)))

    def _apply(self, changes: Sequence[Change]) -> None:
        if not changes:
            return
        stamped = [Create(replace(c.object, created_at=self.now)) if isinstance(c, Create) else c for c in changes]
        self.seen, events = self.seen.step(stamped, version=self.seen.version + 1)
        for event in events:
            if isinstance(event.object, Task):
                old = event.old if isinstance(event.old, Task) else None
                self.table.task_changed(old, None if event.action == "delete" else event.object, self.seen)

    def _hurry(self, service_id: str) -> None:
        """Let an update of many tasks take larger steps."""
        service = self.seen.service(service_id)
        if service is None or service.spec.mode.is_job:
            return
        least = len(self.seen.tasks_of_service(service_id)) // STEPS_OF_AN_UPDATE
        if 0 < service.spec.update_config.parallelism < least:
            config = replace(service.spec.update_config, parallelism=least)
            self._apply([Update(replace(service, spec=replace(service.spec, update_config=config)))])


def _obeyed(task: Task) -> TaskState:
    if task.desired_state > TaskState.COMPLETE:
        return TaskState.SHUTDOWN
    if task.desired_state is TaskState.COMPLETE:
        return TaskState.COMPLETE
    return TaskState.READY if task.desired_state is TaskState.READY else TaskState.RUNNING


def _compared(before: Snapshot, after: Snapshot, service_id: str) -> Forecast:
    live = {t.id: t for t in before.tasks_of_service(service_id) if t.is_live}
    there = {t.id for t in after.tasks_of_service(service_id) if t.is_live}
    fresh = [t for t in after.tasks_of_service(service_id) if before.task(t.id) is None and t.is_wanted]
    # An old task that waits for a node all along waits for the same reason.
    waiting = [t for id, t in live.items() if id in there and t.state < TaskState.ASSIGNED]
    at = {t.slot: t.node_id for t in live.values() if t.slot}
    starts = [
        Placed(t.slot, _name(after.node(t.node_id)), _name(before.node(at.get(t.slot, ""))), _why_not(after, t.id))
        for t in sorted([*fresh, *waiting], key=lambda t: (t.slot, t.node_id, t.id))
    ]
    return Forecast(
        service_id=service_id,
        kept=len(live.keys() & there) - len(waiting),
        stopped=len(live.keys() - there),
        starts=tuple(starts),
    )


def _why_not(after: Snapshot, task_id: str) -> str:
    task = after.task(task_id)
    if task is None or task.state >= TaskState.ASSIGNED:
        return ""
    return task.status.err or "it waits for another to stop"


def _name(node: Node | None) -> str:
    return "" if node is None else node.spec.name or node.description.hostname or node.id


def changed_specs(before: Snapshot, after: Snapshot, service_id: str) -> tuple[ServiceSpec, ServiceSpec] | None:
    """Return a service's spec before and after, None unless it has both."""
    old, new = before.service(service_id), after.service(service_id)
    return None if old is None or new is None else (old.spec, new.spec)
