"""How far a rolling update has come, slot by slot (pure): what each slot's new task has shown so far.

Everything is derived from what is stored, so a new leader sees what the old one saw. A slot is *touched* when it needs
a new task or has one; *taken* when it has one. The new task of a taken slot is *broken* when it failed within the
monitor time of its start, or did not run before the progress deadline; *settled* when the update may go on to the next
slot; *proven* when it ran for the whole monitor time. A slot is judged by its tasks of this update alone (swarm mistake
31); one that was given up, or has ended well for good, holds nothing up.
"""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from pyswarm.manager.orchestrator.slots import Slot, SlotKey
from pyswarm.proto.model.objects import Service, Task
from pyswarm.proto.model.spec import UpdateConfig
from pyswarm.proto.model.states import TaskState


class Progress(Struct, frozen=True):
    """`moments` are when something of this may look otherwise without anything being written."""

    touched: int
    taken: int
    settled: int
    idle: int
    """Settled slots that do not run: broken, given up, or ended for good."""
    lapsed: int
    """Settled slots that lost their new task, with its node, before it had shown anything: they prove nothing."""
    proven: int
    broken: tuple[Task, ...]
    moments: tuple[float, ...]

    @property
    def unsettled(self) -> int:
        return self.taken - self.settled

    @property
    def is_over(self) -> bool:
        """Whether every slot that the update touches has a new task that was watched to the end."""
        return self.proven + self.lapsed + len(self.broken) >= self.touched


def progress_of(
    service: Service, slots: Mapping[SlotKey, Slot], dirty: Sequence[Slot], config: UpdateConfig, *, now: float
) -> Progress:
    """Return how far the update of a service to its present spec version has come."""
    taken = [slot for slot in slots.values() if any(t.spec_version == service.spec_version for t in slot.tasks)]
    waiting = {slot.key for slot in dirty}
    taken = [slot for slot in taken if slot.key not in waiting]
    broken: list[Task] = []
    moments: list[float] = []
    settled = proven = idle = lapsed = 0
    proven_at = 0.0
    for slot in taken:
        culprit = _broken_task(service, slot, config, now)
        fresh = [t for t in slot.live if t.spec_version == service.spec_version]
        running_at = max((t.status.timestamp for t in fresh if t.state is TaskState.RUNNING), default=None)
        if culprit is not None:
            broken.append(culprit)
            settled += 1
            idle += not slot.is_running
        elif running_at is not None:
            settled += running_at + config.delay_seconds <= now
            proven += running_at + config.monitor_seconds <= now
            moments.append(running_at + config.delay_seconds)
            # The last of them alone: an update is complete, and a canary step over, when all are proven. To look again
            # at each of thousands would be to look all the time.
            proven_at = max(proven_at, running_at + config.monitor_seconds)
        elif not slot.live:
            settled += 1
            idle += 1
            has_ended = slot.newest.state.is_failure or slot.newest.state is TaskState.COMPLETE
            proven += has_ended
            lapsed += not has_ended
        if culprit is None and config.progress_deadline_seconds:
            moments += [t.created_at + config.progress_deadline_seconds for t in fresh if t.state < TaskState.RUNNING]
    later = tuple(moment for moment in (*moments, proven_at) if moment > now)
    return Progress(len(taken) + len(dirty), len(taken), settled, idle, lapsed, proven, tuple(broken), later)


def _broken_task(service: Service, slot: Slot, config: UpdateConfig, now: float) -> Task | None:
    """Return the task for whose sake the slot counts as broken; each slot counts once."""
    for task in slot.tasks:
        if task.spec_version != service.spec_version:
            continue
        if task.state.is_failure and task.created_at >= service.update_status.started_at:
            ran = task.status.timestamp - task.status.running_at if task.status.running_at else 0.0
            if ran <= config.monitor_seconds:
                return task
        elif task.is_live and is_overdue(task, config, now):
            return task
    return None


def is_overdue(task: Task, config: UpdateConfig, now: float) -> bool:
    """Whether a task does not run though it was given its time (swarm mistake 36)."""
    deadline = config.progress_deadline_seconds
    return bool(deadline) and task.state < TaskState.RUNNING and task.created_at + deadline <= now


def allowed_by_canary(progress: Progress, config: UpdateConfig) -> int:
    """Return how many slots may be taken: those of the first step whose slots are not all proven yet.

    Another slot stands in for one that lapsed.
    """
    known = progress.proven + len(progress.broken)
    for step in config.canary:
        count = slots_of_step(step, progress.touched)
        if known < count:
            return count + progress.lapsed
    return progress.touched


def slots_of_step(step: str, slots: int) -> int:
    """Return how many of `slots` a canary step means: a number, or a share of them rounded up."""
    if step.endswith("%"):
        return min(slots, -(-slots * int(step[:-1]) // 100))
    return min(slots, int(step))
