"""A service's tasks by slot, and the questions the reconcilers ask of a slot (pure).

A slot is a replica's number, or the node's id for a global service. It outlives its tasks: a restart or an
update puts a new task into the same slot.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cached_property

from msgspec import Struct

from pyswarm.proto.model.objects import Service, Task
from pyswarm.proto.model.states import TaskState

SlotKey = int | str

NewId = Callable[[], str]
"""Where the ids of new tasks come from."""


class Slot(Struct, frozen=True, dict=True):
    """The tasks of one slot, oldest first. (`dict`: what is asked of a slot again and again is found out once.)"""

    key: SlotKey
    tasks: tuple[Task, ...]

    @property
    def newest(self) -> Task:
        return self.tasks[-1]

    @cached_property
    def live(self) -> tuple[Task, ...]:
        """Tasks that are wanted and not dead: they fill the slot."""
        return tuple([t for t in self.tasks if t.is_live])

    @cached_property
    def is_running(self) -> bool:
        return any(t.state is TaskState.RUNNING for t in self.live)

    @property
    def is_kept(self) -> bool:
        """Whether the slot still belongs to the service: not all its tasks are to be removed."""
        return any(t.desired_state < TaskState.REMOVE for t in self.tasks)


def slot_key(service: Service, task: Task) -> SlotKey:
    return task.node_id if service.spec.mode.is_per_node else task.slot


def slots_of(service: Service, tasks: Iterable[Task]) -> Mapping[SlotKey, Slot]:
    """Return the kept slots of a service by key, in ascending order."""
    return SlotTable(service, tasks).slots


class SlotTable:
    """The slots of a service while a decision changes its tasks: what it costs to look again is what was changed."""

    def __init__(self, service: Service, tasks: Iterable[Task]) -> None:
        self._is_per_node = service.spec.mode.is_per_node
        self._members: dict[SlotKey, dict[str, Task]] = {}
        self._changed: set[SlotKey] = set()
        self._slots: dict[SlotKey, Slot] = {}
        for task in tasks:
            self.put(task)

    def put(self, task: Task) -> None:
        """Have a task in its slot, in the place of what it was before."""
        key = task.node_id if self._is_per_node else task.slot
        members = self._members.get(key)
        if members is None:
            self._members[key] = {task.id: task}
        else:
            members[task.id] = task
        self._changed.add(key)

    def tasks_in(self, key: SlotKey) -> Collection[Task]:
        return self._members.get(key, {}).values()

    @property
    def slots(self) -> Mapping[SlotKey, Slot]:
        """The kept slots by key, in ascending order: as they are now, whatever is put in later."""
        if self._changed:
            made = {key: _slot(key, self._members[key].values()) for key in self._changed}
            self._changed = set()
            found = {**self._slots, **{key: slot for key, slot in made.items() if slot.is_kept}}
            for key in [key for key, slot in made.items() if not slot.is_kept]:
                found.pop(key, None)
            if found.keys() != self._slots.keys():
                found = {key: found[key] for key in sorted(found, key=_order)}
            self._slots = found
        return self._slots


def _slot(key: SlotKey, members: Collection[Task]) -> Slot:
    if len(members) == 1:
        return Slot(key, tuple(members))
    return Slot(key, tuple(sorted(members, key=lambda t: (t.created_at, t.version, t.id))))


def _order(key: SlotKey) -> tuple[int, str]:
    return (key, "") if isinstance(key, int) else (0, key)
