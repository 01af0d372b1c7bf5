"""Decide the next step of a rolling update or rollback (pure).

Everything is derived from what is stored: which revision each slot's live task has, when the new ones began to run,
which of them failed, and the service's update status. So a new leader carries a half-done update on without
creating anything twice (swarm mistake 34). Slots are taken in ascending order, at most `parallelism` of them are
without a settled new task at any time, and stop-first never leaves fewer than replicas - parallelism running.
"""

from collections.abc import Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from pyswarm.manager.orchestrator.placement import satisfies
from pyswarm.manager.orchestrator.slots import Slot, SlotKey
from pyswarm.manager.store.changes import Change, Create
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.proto.model.objects import Revision, Service, Task, UpdateStatus, revision_id
from pyswarm.proto.model.spec import Placement, UpdateConfig
from pyswarm.proto.model.states import FailureAction, TaskState, UpdateOrder, UpdateState


class UpdateStep(Struct, frozen=True):
    """`service` as it shall be stored; `replace`: slots whose live tasks are to be replaced now."""

    service: Service
    replace: tuple[Slot, ...] = ()
    extra: tuple[Change, ...] = ()
    look_again_at: float | None = None
    why: str = ""


def decide_update(seen: Snapshot, service: Service, slots: Mapping[SlotKey, Slot], *, now: float) -> UpdateStep:
    """Return the next step; an empty one when every slot is up to date or the update is paused."""
    state = service.update_status.state
    dirty = [slot for slot in slots.values() if _needs_new_task(seen, service, slot)]
    if not dirty and state not in (UpdateState.UPDATING, UpdateState.ROLLBACK_STARTED):
        return UpdateStep(service)
    if state in (UpdateState.PAUSED, UpdateState.ROLLBACK_PAUSED):
        return UpdateStep(service)
    config = update_config(service)
    failed = _failed(service, slots)
    if failed and len(failed) / max(1, len(slots)) > config.max_failure_ratio:
        return _on_failure(service, config, failed, now)
    if not dirty:
        return _finish(service, slots, config, now)
    return _advance(seen, service, slots, dirty, config, now)


def _needs_new_task(seen: Snapshot, service: Service, slot: Slot) -> bool:
    """Whether a slot holds an outdated task and no new one yet (start-first has both for a while)."""
    if any(task.spec_version == service.spec_version for task in slot.live):
        return False
    return any(is_dirty(seen, service, task) for task in slot.live)


def superseded(service: Service, slot: Slot) -> tuple[Task, ...]:
    """Return the outdated tasks that a start-first update may stop now, because the new one runs."""
    fresh = [t for t in slot.live if t.spec_version == service.spec_version and t.state is TaskState.RUNNING]
    return tuple(t for t in slot.live if t.spec_version < service.spec_version) if fresh else ()


def update_config(service: Service) -> UpdateConfig:
    rolls_back = service.update_status.state in (UpdateState.ROLLBACK_STARTED, UpdateState.ROLLBACK_PAUSED)
    return service.spec.rollback_config if rolls_back else service.spec.update_config


def is_dirty(seen: Snapshot, service: Service, task: Task) -> bool:
    """Whether a live task must be replaced for the service's present spec.

    A change of placement alone restarts nothing that still fits where it is (swarm mistake 37).
    """
    if task.spec_version == service.spec_version:
        return False
    old = seen.revision_of(task)
    if old is None or old.ports != service.ports:
        return True
    template = service.spec.task_template
    if replace(old.task_template, placement=Placement()) != replace(template, placement=Placement()):
        return True
    node = seen.node(task.node_id)
    return node is not None and not satisfies(node, template.placement.constraints)


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
    now: float,
) -> UpdateStep:
    parallelism = config.parallelism or len(slots)
    unsettled, look_again_at = _unsettled(service, slots, config, now)
    budget = parallelism - unsettled
    running = sum(slot.is_running for slot in slots.values())
    floor = len(slots) - parallelism
    chosen: list[Slot] = []
    for slot in dirty:
        if len(chosen) == budget:
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
        look_again_at=look_again_at,
        why=f"updating to spec version {service.spec_version}{_index(seen, service)}" if chosen else "",
    )


def _unsettled(
    service: Service, slots: Mapping[SlotKey, Slot], config: UpdateConfig, now: float
) -> tuple[int, float | None]:
    """Return how many slots of the new version do not run, or run for less than the delay; and when to look again."""
    count, moments = 0, []
    for slot in slots.values():
        if not any(t.spec_version == service.spec_version for t in slot.tasks):
            continue
        fresh = [t for t in slot.live if t.spec_version == service.spec_version]
        settled_at = max((t.status.timestamp for t in fresh if t.state is TaskState.RUNNING), default=None)
        if settled_at is None:
            # Also a slot whose new task died and waits for its restart, or that gave up: it is not running.
            count += 1
        elif settled_at + config.delay_seconds > now:
            count += 1
            moments.append(settled_at + config.delay_seconds)
    return count, min(moments, default=None)


def _failed(service: Service, slots: Mapping[SlotKey, Slot]) -> list[Task]:
    """Return the tasks of this update that broke while it is under way, one per slot (swarm mistake 31)."""
    since = service.update_status.started_at
    found = []
    for slot in slots.values():
        broken = [
            t
            for t in slot.tasks
            if t.spec_version == service.spec_version and t.state.is_failure and t.created_at >= since
        ]
        found += broken[:1]
    return found


def _finish(service: Service, slots: Mapping[SlotKey, Slot], config: UpdateConfig, now: float) -> UpdateStep:
    """Every slot has a new task: the update is complete once all have run for the monitoring time."""
    fresh = [t for slot in slots.values() for t in slot.live]
    if len(fresh) < len(slots) or any(t.state < TaskState.RUNNING for t in fresh):
        return UpdateStep(service)
    watched_until = max((t.status.timestamp for t in fresh), default=0.0) + config.monitor_seconds
    if watched_until > now:
        return UpdateStep(service, look_again_at=watched_until)
    rolled_back = service.update_status.state is UpdateState.ROLLBACK_STARTED
    state = UpdateState.ROLLBACK_COMPLETED if rolled_back else UpdateState.COMPLETED
    done = _with_status(service, state, now, "rollback completed" if rolled_back else "update completed")
    return UpdateStep(done, why="every slot runs the new spec")


def _on_failure(service: Service, config: UpdateConfig, failed: Sequence[Task], now: float) -> UpdateStep:
    cause = failed[0].status.err or failed[0].status.message
    text = f"{len(failed)} of the update's tasks failed; task {failed[0].id}: {cause}"
    rolls_back = service.update_status.state is UpdateState.ROLLBACK_STARTED
    if config.failure_action is FailureAction.CONTINUE:
        return UpdateStep(service)
    if config.failure_action is FailureAction.ROLLBACK and not rolls_back and service.previous_spec is not None:
        return start_rollback(service, now=now, why=text)
    # A failing rollback pauses and stays paused (swarm mistake 33).
    state = UpdateState.ROLLBACK_PAUSED if rolls_back else UpdateState.PAUSED
    return UpdateStep(_with_status(service, state, now, text), why=text)


def start_rollback(service: Service, *, now: float, why: str) -> UpdateStep:
    """Return the service with its previous spec as a new revision; automatic rollback happens once."""
    assert service.previous_spec is not None
    version = service.spec_version + 1
    rolled = replace(
        service,
        spec=service.previous_spec,
        previous_spec=None,
        spec_version=version,
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
