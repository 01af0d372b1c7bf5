"""What a node must hold, and how that differs from what it was told last (pure).

A task is assigned from ASSIGNED on, until it is deleted from the store. What the agent itself reports (its status)
is no difference: only what managers decide is sent.
"""

from collections.abc import Mapping

from msgspec import Struct
from msgspec.structs import replace

from pyswarm.manager.orchestrator.in_place import template_held
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.manager.store.transition import Event
from pyswarm.proto.model.objects import Config, Revision, Secret, Service, Task
from pyswarm.proto.model.spec import ContainerSpec, payload_id, replaced_files
from pyswarm.proto.model.states import TaskState


class Assigned(Struct, frozen=True):
    """A task with the revision that says what to run; `in_place` are the ids of files that replace the revision's."""

    task: Task
    revision: Revision
    in_place: tuple[str, ...] = ()


class Difference(Struct, frozen=True):
    """`update` holds new and changed assignments, `remove` the ids of tasks to forget; the same for the contents of
    secrets and configs. All sorted by id."""

    update: tuple[Assigned, ...]
    remove: tuple[str, ...]
    payloads: tuple[Secret | Config, ...] = ()
    remove_payloads: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.update or self.remove or self.payloads or self.remove_payloads)


class Assignments(Struct, frozen=True):
    """What one node must hold: tasks by id, and the secrets and configs that those which may still start need."""

    tasks: Mapping[str, Assigned] = {}
    payloads: Mapping[str, Secret | Config] = {}


def is_told(event: Event) -> bool:
    """Whether an event of a task may change what its node must hold. Most events are what the node itself reported."""
    old, new = event.old, event.object
    if not isinstance(old, Task) or not isinstance(new, Task) or event.action != "update":
        return True
    return _as_told(old) != _as_told(new)


def _as_told(task: Task) -> tuple[object, ...]:
    return (task.node_id, task.desired_state, task.revision_id, _is_assigned(task), task.is_live)


def _is_assigned(task: Task) -> bool:
    return task.state >= TaskState.ASSIGNED and task.state is not TaskState.ORPHANED


def assignments_of(seen: Snapshot, node_id: str) -> Assignments:
    """Return the assignment set of a node: only its own tasks, never another's."""
    found = {}
    payloads: dict[str, Secret | Config] = {}
    for task in seen.tasks_of_node(node_id):
        if not _is_assigned(task):
            continue
        # Dead tasks with a place in the history stay known, so that the agent keeps what belongs to them.
        revision = seen.revision_of(task)
        if revision is not None:
            assigned = _with_files(seen, task, revision)
            found[task.id] = assigned
            if task.is_live:
                payloads |= _payloads_of(seen, assigned.revision.task_template.container_spec)
    return Assignments(found, payloads)


def _with_files(seen: Snapshot, task: Task, revision: Revision) -> Assigned:
    """Return the assignment with the versions of files that its service has replaced in place since."""
    if not replaced_files(revision.task_template.container_spec):
        return Assigned(task, revision)
    held = template_held(seen.service(revision.service_id), revision)
    if held is revision.task_template:
        return Assigned(task, revision)
    ids = tuple(map(payload_id, replaced_files(held.container_spec)))
    return Assigned(task, replace(revision, task_template=held), ids)


def replaces_in_place(event: Event) -> bool:
    """Whether an event of a service may give tasks that run another version of a file."""
    old, new = event.old, event.object
    if not isinstance(old, Service) or not isinstance(new, Service) or event.action != "update":
        return False
    return replaced_files(old.spec.task_template.container_spec) != replaced_files(
        new.spec.task_template.container_spec
    )


def _payloads_of(seen: Snapshot, container: ContainerSpec) -> dict[str, Secret | Config]:
    """Return what the container needs. One that was removed is left out: the agent says that it is missing."""
    found: list[Secret | Config | None] = [seen.secret(r.secret_id) for r in container.secrets]
    found += [seen.config(r.config_id) for r in container.configs]
    return {payload.id: payload for payload in found if payload is not None}


def difference(old: Assignments, new: Assignments) -> Difference:
    """Return what to tell a node that was told `old`."""
    told, now = old.tasks, new.tasks
    update = [now[id] for id in sorted(now) if id not in told or _decided(told[id]) != _decided(now[id])]
    return Difference(
        update=tuple(update),
        remove=tuple(sorted(set(told) - set(now))),
        # What one holds never changes, so its id says all.
        payloads=tuple(new.payloads[id] for id in sorted(set(new.payloads) - set(old.payloads))),
        remove_payloads=tuple(sorted(set(old.payloads) - set(new.payloads))),
    )


def _decided(assigned: Assigned) -> tuple[TaskState, str, tuple[str, ...]]:
    return assigned.task.desired_state, assigned.revision.id, assigned.in_place
