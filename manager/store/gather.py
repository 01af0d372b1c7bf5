"""Take many decisions that do not need each other and find which of them can be written together (pure).

Each is taken on what those before it would leave, so the order is kept. One that refuses, or finds nothing to do, or
touches what another of the list has touched, ends the list: it is for the caller to decide that one on a fresh view.
Whether the versions still hold is checked where the entry is applied, for all together; manager/api/writes.py does the
writing.
"""

from collections.abc import Callable, Sequence

from msgspec import Struct

from pyswarm.manager.store.batch import CHANGES_PER_PART
from pyswarm.manager.store.changes import Change, Create, Plan, Update
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.proto.errors import SwarmError

Decide = Callable[[Snapshot], Plan]


class Gathered(Struct, frozen=True):
    """The plans of the first decisions of a list, to be committed as one."""

    plans: tuple[Plan, ...] = ()

    @property
    def changes(self) -> tuple[Change, ...]:
        return tuple(change for plan in self.plans for change in plan.changes)


def gather(seen: Snapshot, decisions: Sequence[Decide], *, changes_max: int = CHANGES_PER_PART) -> Gathered:
    """Return as many plans, from the first decision on, as may take effect in one entry."""
    plans: list[Plan] = []
    touched: set[str] = set()
    size = 0
    for decide in decisions:
        try:
            plan = decide(seen)
        except SwarmError:
            # What a view refuses that lags behind, the present one may allow: whoever decides it alone finds out.
            break
        ids = {_id_of(change) for change in plan.changes}
        size += len(plan.changes)
        if not ids or ids & touched or (plans and size > changes_max):
            break
        plans.append(plan)
        touched |= ids
        seen = seen.with_changes(plan.changes, version=seen.version + 1)
    return Gathered(tuple(plans))


def _id_of(change: Change) -> str:
    return change.object.id if isinstance(change, Create | Update) else change.id
