"""Decide the next step of a rolling update or rollback (pure).

What each slot's new task has shown so far comes from `update_progress.py`, from what is stored alone. So a new leader
carries a half-done update on without creating anything twice (swarm mistake 34). Slots are taken in ascending order,
those that do not run first; at most `parallelism` of them are without a settled new task at any time, and stop-first
never leaves fewer than replicas - parallelism running, those aside that broke or are given up. Canary steps bound
how many are taken before those of the step before are proven.
"""

from collections.abc import Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from pyswarm.manager.allocator.ports import allocate_ports
from pyswarm.manager.orchestrator.in_place import with_files_of
from pyswarm.manager.orchestrator.placement import satisfies
from pyswarm.manager.orchestrator.slots import Slot, SlotKey
from pyswarm.manager.orchestrator.update_progress import Progress, allowed_by_canary, is_overdue, progress_of
from pyswarm.manager.store.changes import Change, Create
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.proto.errors import SwarmError
from pyswarm.proto.model.objects import Revision, Service, Task, UpdateStatus, revision_id
from pyswarm.proto.model.spec import Placement, UpdateConfig
from pyswarm.proto.model.states import FailureAction, TaskState, UpdateOrder, UpdateState


class UpdateStep(Struct, frozen=True):
    """`service` as it shall be stored; `replace`: slots whose live tasks are to be replaced now."""

    service: Service
    replace: tuple[Slot, ...] = ()
    extra: tuple[Change, ...] = ()
    moments: tuple[float, ...] = ()
    why: str = ""


def decide_update(seen: Snapshot, service: Service, slots: Mapping[SlotKey, Slot], *, now: float) -> UpdateStep:
    """Return the next step; an empty one when every slot is up to date or the update is paused."""
    state = service.update_status.state
    must_be_replaced = _Outdated(seen, service)
    dirty = [slot for slot in slots.values() if _needs_new_task(service, slot, must_be_replaced)]
    if not dirty and state is UpdateState.UNSET and _holds_older_tasks(service, slots):
        done = _with_status(service, UpdateState.COMPLETED, now, "no task had to be replaced")
        return UpdateStep(done, why="every task fits the new spec")
    if not dirty and state not in (UpdateState.UPDATING, UpdateState.ROLLBACK_STARTED):
        return UpdateStep(service)
    if state in (UpdateState.PAUSED, UpdateState.ROLLBACK_PAUSED):
        return UpdateStep(service)
    config = update_config(service)
    progress = progress_of(service, slots, dirty, config, now=now)
    if progress.broken and _is_too_much(progress, config):
        return _on_failure(seen, service, config, progress.broken, now)
    if not dirty:
        return _finish(service, progress, now)
    return _advance(seen, service, slots, dirty, config, progress, now)


def _is_too_much(progress: Progress, config: UpdateConfig) -> bool:
    """Failures count against the slots that the update touches, not against all (swarm mistake 32).

    With canary steps they count against those taken so far: a canary that fails is one failure of one.
    """
    whole = progress.taken if config.canary else progress.touched
    return len(progress.broken) / max(1, whole) > config.max_failure_ratio


def _needs_new_task(service: Service, slot: Slot, must_be_replaced: "_Outdated") -> bool:
    """Whether a slot holds outdated tasks only: no new one yet, and none that a rollback may simply keep.

    A numbered slot without a live task was given up by the restart policy: another spec is another chance. (A global
    service's is filled when its node may run it, by reconcile.py.)
    """
    if not slot.live:
        return isinstance(slot.key, int) and slot.newest.spec_version < service.spec_version
    return all(must_be_replaced(task) for task in slot.live)


def _holds_older_tasks(service: Service, slots: Mapping[SlotKey, Slot]) -> bool:
    """Whether tasks of an earlier spec version live on: that those that do need no other is then to be said."""
    return service.spec_version > 1 and any(
        t.spec_version < service.spec_version for slot in slots.values() for t in slot.live
    )


def superseded(seen: Snapshot, service: Service, slot: Slot) -> tuple[Task, ...]:
    """Return the tasks that may be stopped now, because another one of the slot runs as the service's spec says."""
    if len(slot.live) < 2:
        return ()
    running = [t for t in slot.live if t.state is TaskState.RUNNING]
    if any(t.spec_version == service.spec_version for t in running):
        return tuple(t for t in slot.live if t.spec_version < service.spec_version)
    must_be_replaced = _Outdated(seen, service)
    outdated = tuple(t for t in slot.live if must_be_replaced(t))
    return outdated if any(t not in outdated for t in running) else ()


def update_config(service: Service) -> UpdateConfig:
    rolls_back = service.update_status.state in (UpdateState.ROLLBACK_STARTED, UpdateState.ROLLBACK_PAUSED)
    return service.spec.rollback_config if rolls_back else service.spec.update_config


class _Outdated:
    """Whether a live task must be replaced for the service's present spec.

    A change of placement alone restarts nothing that still fits where it is (swarm mistake 37), nor does a new version
    of a file that is replaced in place. Found out once for each earlier spec, and for each node.
    """

    def __init__(self, seen: Snapshot, service: Service) -> None:
        self._seen = seen
        self._service = service
        self._specs: dict[int, bool] = {}
        self._nodes: dict[str, bool] = {}

    def __call__(self, task: Task) -> bool:
        version = task.spec_version
        if version == self._service.spec_version:
            return False
        is_other = self._specs.get(version)
        if is_other is None:
            is_other = self._specs[version] = self._is_other_spec(task)
        if is_other:
            return True
        is_unfit = self._nodes.get(task.node_id)
        if is_unfit is None:
            is_unfit = self._nodes[task.node_id] = self._is_unfit(task.node_id)
        return is_unfit

    def _is_other_spec(self, task: Task) -> bool:
        old = self._seen.revision_of(task)
        if old is None or old.ports != self._service.ports:
            return True
        template = self._service.spec.task_template
        held = with_files_of(old.task_template, template)
        return replace(held, placement=Placement()) != replace(template, placement=Placement())

    def _is_unfit(self, node_id: str) -> bool:
        node = self._seen.node(node_id)
        return node is not None and not satisfies(node, self._service.spec.task_template.placement.constraints)


def _index(seen: Snapshot, service: Service) -> str:
    """Return where in the store's history the service got its present spec."""
    revision = seen.revision(revision_id(service.id, service.spec_version))
    return "" if revision is None else f" (index {revision.version})"


def _advance(
    seen: Snapshot,
    service: Service,
    slots: Mapping[SlotKey, Slot],
    dirty: Sequence[Slot],
    config: UpdateConfig,
    progress: Progress,
    now: float,
) -> UpdateStep:
    parallelism = config.parallelism or len(slots)
    room = min(parallelism - progress.unsettled, allowed_by_canary(progress, config) - progress.taken)
    running = sum(slot.is_running for slot in slots.values())
    floor = len(slots) - parallelism - progress.idle
    chosen: list[Slot] = []
    # What does not run has nothing to lose, so it comes first.
    for slot in sorted(dirty, key=lambda slot: slot.is_running):
        if len(chosen) >= room:
            break
        if slot.is_running and config.order is not UpdateOrder.START_FIRST:
            if running <= floor:
                break
            running -= 1
        chosen.append(slot)
    started = _with_status(service, UpdateState.UPDATING, now, "update in progress")
    return UpdateStep(
        started if service.update_status.state is UpdateState.UNSET else service,
        replace=tuple(chosen),
        moments=progress.moments,
        why=f"updating to spec version {service.spec_version}{_index(seen, service)}" if chosen else "",
    )


def _finish(service: Service, progress: Progress, now: float) -> UpdateStep:
    """Every slot has a new task: the update is complete once all have run for the monitoring time."""
    if not progress.is_over:
        return UpdateStep(service, moments=progress.moments)
    rolled_back = service.update_status.state is UpdateState.ROLLBACK_STARTED
    state = UpdateState.ROLLBACK_COMPLETED if rolled_back else UpdateState.COMPLETED
    text = "rollback completed" if rolled_back else "update completed"
    if progress.broken:
        text = f"{text}; {len(progress.broken)} of {progress.touched} tasks failed, which was to be borne"
    return UpdateStep(_with_status(service, state, now, text), why="every slot has the new spec")


def _on_failure(
    seen: Snapshot, service: Service, config: UpdateConfig, broken: Sequence[Task], now: float
) -> UpdateStep:
    rolls_back = service.update_status.state is UpdateState.ROLLBACK_STARTED
    text = f"{len(broken)} of the update's tasks failed; task {broken[0].id}: {_cause(broken[0], config, now)}"
    if config.failure_action is FailureAction.ROLLBACK and not rolls_back and service.previous_spec is not None:
        try:
            return start_rollback(seen, service, now=now, why=text)
        except SwarmError as error:
            text = f"{text}; it cannot be rolled back: {error.message}"
    # A failing rollback pauses and stays paused (swarm mistake 33).
    state = UpdateState.ROLLBACK_PAUSED if rolls_back else UpdateState.PAUSED
    return UpdateStep(_with_status(service, state, now, text), why=text)


def _cause(task: Task, config: UpdateConfig, now: float) -> str:
    told = task.status.err or task.status.message
    if is_overdue(task, config, now):
        return f"did not run within {config.progress_deadline_seconds:g} s: {told or task.state.name.lower()}"
    return told


def start_rollback(seen: Snapshot, service: Service, *, now: float, why: str) -> UpdateStep:
    """Return the service with its previous spec as a new revision; automatic rollback happens once.

    Raises what giving the service its previous ports raises: another service may have taken them.
    """
    assert service.previous_spec is not None
    rolled = replace(
        service,
        spec=service.previous_spec,
        previous_spec=None,
        ports=allocate_ports(seen, service.previous_spec, service),
        spec_version=service.spec_version + 1,
        update_status=UpdateStatus(UpdateState.ROLLBACK_STARTED, started_at=now, message=why),
    )
    return UpdateStep(rolled, extra=(Create(revision_for(rolled)),), why=f"rolling back: {why}")


def revision_for(service: Service) -> Revision:
    """Return the revision that the service's tasks of its present spec version name."""
    return Revision(
        id=revision_id(service.id, service.spec_version),
        service_id=service.id,
        spec_version=service.spec_version,
        task_template=service.spec.task_template,
        ports=service.ports,
        service_name=service.spec.name,
    )


def _with_status(service: Service, state: UpdateState, now: float, message: str) -> Service:
    status = service.update_status
    is_end = state in (UpdateState.COMPLETED, UpdateState.ROLLBACK_COMPLETED)
    fresh = UpdateStatus(
        state,
        started_at=status.started_at or now,
        completed_at=now if is_end else 0.0,
        message=message,
    )
    return replace(service, update_status=fresh)
