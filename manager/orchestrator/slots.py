"""A service's tasks by slot, and the questions the reconcilers ask of a slot (pure).

A slot is a replica's number, or the node's id for a global service. It outlives its tasks: a restart or an
update puts a new task into the same slot.
"""

from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct

from pyswarm.proto.model.objects import Service, Task
from pyswarm.proto.model.states import TaskState

SlotKey = int | str

NewId = Callable[[], str]
"""Where the ids of new tasks come from."""


class Slot(Struct, frozen=True):
    """The tasks of one slot, oldest first."""

    key: SlotKey
    tasks: tuple[Task, ...]

    @property
    def newest(self) -> Task:
        return self.tasks[-1]

    @property
    def live(self) -> tuple[Task, ...]:
        """Tasks that are wanted and not dead: they fill the slot."""
        return tuple(t for t in self.tasks if t.is_live)

    @property
    def is_running(self) -> bool:
        return any(t.is_live and t.state is TaskState.RUNNING for t in self.tasks)

    @property
    def is_kept(self) -> bool:
        """Whether the slot still belongs to the service: not all its tasks are to be removed."""
        return any(t.desired_state < TaskState.REMOVE for t in self.tasks)


def slot_key(service: Service, task: Task) -> SlotKey:
    return task.node_id if service.spec.mode.is_per_node else task.slot


def slots_of(service: Service, tasks: Iterable[Task]) -> Mapping[SlotKey, Slot]:
    """Return the kept slots of a service by key, in ascending order."""
    found: dict[SlotKey, list[Task]] = {}
    for task in tasks:
        found.setdefault(slot_key(service, task), []).append(task)
    slots = {
        key: Slot(key, tuple(sorted(members, key=lambda t: (t.created_at, t.version, t.id))))
        for key, members in found.items()
    }
    return {key: slots[key] for key in sorted(slots, key=_order) if slots[key].is_kept}


def _order(key: SlotKey) -> tuple[int, str]:
    return (key, "") if isinstance(key, int) else (0, key)
