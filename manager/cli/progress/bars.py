"""Progress → text: bars for a terminal, a line per news for anything else (pure)."""

from collections.abc import Mapping, Sequence

from pyswarm.manager.cli.progress.convergence import Outcome, Progress, Slot
from pyswarm.proto.model.states import TaskState

SLOTS_SHOWN_MAX = 20
"""Beyond that many slots only the sum is shown, as Docker does."""

_BAR = 50
_STEPS: Mapping[TaskState, int] = {
    TaskState.NEW: 1,
    TaskState.PENDING: 2,
    TaskState.ASSIGNED: 3,
    TaskState.ACCEPTED: 4,
    TaskState.PREPARING: 5,
    TaskState.READY: 6,
    TaskState.STARTING: 7,
    TaskState.RUNNING: 9,
    TaskState.COMPLETE: 9,
}
_STEPS_MAX = 9


def bars(progresses: Sequence[Progress], *, width: int, height: int) -> list[str]:
    """Return the lines to show on a terminal of that size; never more lines or wider ones than it has."""
    with_slots = [line for progress in progresses for line in _block(progress, len(progresses) > 1)]
    if len(with_slots) >= height:
        with_slots = [_overall(progress, len(progresses) > 1) for progress in progresses][: height - 1]
    return [line[: width - 1] for line in with_slots]


def news(before: Progress | None, now: Progress) -> list[str]:
    """Return the lines that tell what changed, for output that is not a terminal."""
    lines = []
    if before is None or (before.done, before.desired) != (now.done, now.desired):
        lines.append(f"{now.name}: {now.done}/{now.desired} {now.aim}")
    errors = {slot.error for slot in before.slots} if before is not None else set()
    for slot in now.slots:
        if slot.error and slot.error not in errors:
            errors.add(slot.error)
            lines.append(f"{now.name}.{slot.name}: {slot.error}")
    if now.outcome is Outcome.CONVERGED:
        is_news = before is None or before.outcome is not Outcome.CONVERGED
        lines += [f"verify: {now.note}"] if is_news else []
    elif now.outcome is Outcome.WORKING and now.note and not _same_note(before, now):
        lines.append(f"{now.name}: {now.note}")
    return lines


def _same_note(before: Progress | None, now: Progress) -> bool:
    """A countdown is told once."""
    return before is not None and before.note[:8] == now.note[:8]


def _block(progress: Progress, is_named: bool) -> list[str]:
    lines = [_overall(progress, is_named)]
    if progress.desired <= SLOTS_SHOWN_MAX and len(progress.slots) <= SLOTS_SHOWN_MAX:
        lines += [_slot_line(slot, progress.desired) for slot in progress.slots]
    if progress.outcome is Outcome.CONVERGED:
        lines.append(f"verify: {progress.note}")
    elif progress.note:
        lines.append(progress.note)
    return lines


def _overall(progress: Progress, is_named: bool) -> str:
    name = f"{progress.name}: " if is_named else ""
    return f"{name}overall progress: {progress.done} out of {progress.desired} tasks"


def _slot_line(slot: Slot, desired: int) -> str:
    name = f"{slot.name}/{desired}" if slot.name.isdigit() else slot.name[:25]
    state = "waiting" if slot.state is None else slot.state.name.lower()
    if slot.error:
        return f"{name}: {state:<9} {slot.error}"
    filled = _BAR * _STEPS.get(slot.state or TaskState.NEW, 0) // _STEPS_MAX
    bar = "=" * max(0, filled - 1) + (">" if filled else "")
    return f"{name}: {state:<9} [{bar:<{_BAR}}]"
