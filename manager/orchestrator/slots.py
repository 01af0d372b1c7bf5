"""A service's tasks by slot, and the questions the reconcilers ask of a slot (pure).

A slot is a replica's number, or the node's id for a global service. It outlives its tasks: a restart or an
update puts a new task into the same slot.
"""

from collections.abc import Callable, Collection, Iterable, Mapping

from msgspec import Struct

from pyswarm.proto.model.objects import Service, Task
from pyswarm.proto.model.states import TaskState

SlotKey = int | str

NewId = Callable[[], str]
"""Where the ids of new tasks come from."""


class Slot(Struct, frozen=True):
    """The tasks of one slot, oldest first; made by `slot_of`. Those that are wanted and not dead are `live`."""

    key: SlotKey
    tasks: tuple[Task, ...]
    live: tuple[Task, ...]
    is_running: bool

    @property
    def newest(self) -> Task:
        return self.tasks[-1]

    @property
    def is_kept(self) -> bool:
        """Whether the slot still belongs to the service: not all its tasks are to be removed."""
        return bool(self.live) or any(t.desired_state < TaskState.REMOVE for t in self.tasks)


def slot_of(key: SlotKey, tasks: tuple[Task, ...]) -> Slot:
    """Return the slot that holds `tasks`, oldest first."""
    if len(tasks) == 1:
        # Nearly every slot, and there are thousands.
        live: tuple[Task, ...] = tasks if tasks[0].is_live else ()
    else:
        live = tuple([t for t in tasks if t.is_live])
    return Slot(key, tasks, live, any(t.status.state is TaskState.RUNNING for t in live))


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
            found = dict(self._slots)
            for key in self._changed:
                slot = slot_of(key, _by_age(self._members[key].values()))
                if slot.is_kept:
                    found[key] = slot
                else:
                    found.pop(key, None)
            self._changed = set()
            if found.keys() != self._slots.keys():
                # All of one kind: numbers, or the ids of nodes.
                found = {key: found[key] for key in sorted(found)}
            self._slots = found
        return self._slots


def _by_age(tasks: Collection[Task]) -> tuple[Task, ...]:
    if len(tasks) == 1:
        return tuple(tasks)
    return tuple(sorted(tasks, key=lambda t: (t.created_at, t.version, t.id)))
