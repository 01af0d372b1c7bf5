"""Whether and when a dead task's slot gets a new one (pure).

The facts are all in the store: how the task ended, how many went before it in its slot, and when. So a new
leader decides as the old one would have, and a delay that has begun goes on (swarm mistakes 23, 24).
"""

from msgspec import Struct

from pyswarm.manager.orchestrator.slots import Slot
from pyswarm.proto.model.objects import Task
from pyswarm.proto.model.spec import RestartPolicy
from pyswarm.proto.model.states import RestartCondition, TaskState

LEAST_BACKOFF_SECONDS = 1.0
"""What doubles in a crash loop at least, for policies without a delay."""


class Verdict(Struct, frozen=True):
    """`start_after` (seconds since the epoch) is when the new task may run; None: no new task. `why` says so."""

    start_after: float | None
    why: str


def after_loss(policy: RestartPolicy, *, now: float, why: str) -> Verdict:
    """A task that was fine but whose node is lost or drained is replaced at once: the delay is for crash loops."""
    if policy.condition is RestartCondition.NONE:
        return Verdict(None, f"{why}, and its restart condition is none")
    return Verdict(now, why)


def after_death(slot: Slot, dead: Task, policy: RestartPolicy, *, now: float) -> Verdict:
    """A task that ended by itself is replaced when the policy says so, after the policy's delay or a longer one."""
    ended = f"task {dead.id} ended: {dead.status.err or dead.status.message or dead.state.name.lower()}"
    if policy.condition is RestartCondition.NONE:
        return Verdict(None, f"{ended}; its restart condition is none")
    if policy.condition is RestartCondition.ON_FAILURE and dead.state is TaskState.COMPLETE:
        return Verdict(None, f"{ended}; it is restarted on failure only")
    restarts = _restarts(slot, dead, policy, now)
    if 0 < policy.max_attempts <= restarts:
        return Verdict(None, f"{ended}; {restarts} restarts were tried, which is the limit")
    delay = delay_of(policy, _quick_ends(slot, dead, policy))
    told = f"{ended}; in a crash loop, so it waits {delay:g} s" if delay > policy.delay_seconds else ended
    return Verdict(max(now, dead.status.timestamp + delay), told)


def delay_of(policy: RestartPolicy, quick_ends: int) -> float:
    """Return how long to wait after so many quick ends in a row: twice as long each time, up to a limit."""
    if quick_ends < 2:
        return policy.delay_seconds
    doubled = max(policy.delay_seconds, LEAST_BACKOFF_SECONDS) * 2.0 ** min(quick_ends - 1, 40)
    return max(policy.delay_seconds, min(doubled, policy.max_delay_seconds))


def _quick_ends(slot: Slot, dead: Task, policy: RestartPolicy) -> int:
    """How many of this version's last tasks in the slot, `dead` included, ended sooner than the longest wait lasts."""
    count = 0
    for task in reversed([t for t in slot.tasks if t.spec_version == dead.spec_version and t.state.is_terminal]):
        ran = task.status.timestamp - task.status.running_at if task.status.running_at else 0.0
        ended_by_itself = task.state.is_failure or task.state is TaskState.COMPLETE
        if not ended_by_itself or ran >= max(policy.max_delay_seconds, policy.delay_seconds):
            break
        count += 1
    return count


def _restarts(slot: Slot, dead: Task, policy: RestartPolicy, now: float) -> int:
    """How often this version of the task was restarted in this slot, lately when the policy has a window."""
    attempts = [t for t in slot.tasks if t.spec_version == dead.spec_version]
    restarted = attempts[1:]
    if policy.window_seconds > 0:
        restarted = [t for t in restarted if t.created_at >= now - policy.window_seconds]
    return len(restarted)
