"""Whether a start-first update's new task waits for room that only the old one could give (pure).

With a host port, a limit of replicas per node or full nodes, a slot's new task may fit nowhere as long as the old one
runs, and the old one runs as long as there is no new one (swarm mistake 35). Such a slot is updated stop-first. A task
that would not fit either way is left waiting: stopping what runs would help nobody.
"""

from pyswarm.manager.orchestrator.slots import Slot
from pyswarm.manager.scheduler.filters import admits_by_nature, has_room
from pyswarm.manager.scheduler.nodes import NodeTable
from pyswarm.manager.store.changes import Delete
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.proto.model.objects import Service, Task
from pyswarm.proto.model.states import TaskState


def in_the_way(seen: Snapshot, service: Service, slot: Slot) -> tuple[Task, ...]:
    """Return the outdated task that the slot's new one needs to be gone; none while the scheduler has not refused."""
    if len(slot.live) < 2:
        return ()
    waiting = [
        t for t in slot.live if t.spec_version == service.spec_version and t.state is TaskState.PENDING and t.status.err
    ]
    if not waiting:
        return ()
    outdated = [t for t in slot.live if t.spec_version < service.spec_version and t.node_id]
    return tuple(t for t in outdated if _fits_in_its_place(seen, waiting[0], t))[:1]


def _fits_in_its_place(seen: Snapshot, waiting: Task, old: Task) -> bool:
    node, revision = seen.node(old.node_id), seen.revision_of(waiting)
    if node is None or revision is None:
        return False
    ahead = seen.with_changes((Delete("task", old.id, old.version),), version=seen.version + 1)
    table = NodeTable(Snapshot.of(version=1))
    table.node_changed(node, ahead)
    info = table.infos[node.id]
    return admits_by_nature(info, revision) and has_room(info, revision)
