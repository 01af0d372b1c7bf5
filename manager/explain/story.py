"""What has happened to an object, step by step, each with its index, its moment and its cause (pure).

Told from the commits that a manager remembers; what is older is told from the object alone: why it was made, and why
it shall stop, are stored in a task.
"""

from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct

from pyswarm.manager.store.transition import Event
from pyswarm.proto.model.objects import Node, Object, Service, Task
from pyswarm.proto.model.states import TaskState

Commits = Sequence[tuple[int, tuple[Event, ...]]]
"""Versions and what happened at them, oldest first."""


class Step(Struct, frozen=True):
    """`what` happened, at which index of the store and moment (seconds since the epoch), and why."""

    index: int
    at: float
    what: str
    cause: str = ""


def story_of(subject: Object, commits: Commits) -> tuple[Step, ...]:
    """Return the steps of one object, oldest first."""
    return stories_of([subject], commits)[subject.id]


def stories_of(subjects: Iterable[Object], commits: Commits) -> dict[str, tuple[Step, ...]]:
    """Return the steps of each object by its id: one walk over what is remembered."""
    known = {subject.id: subject for subject in subjects}
    steps: dict[str, list[Step]] = {id: [] for id in known}
    whole: set[str] = set()
    for version, events in commits:
        for event in events:
            subject = known.get(event.object.id)
            if subject is not None and type(event.object) is type(subject):
                if event.action == "create":
                    whole.add(subject.id)
                steps[subject.id] += _steps(version, event)
    for id in known.keys() - whole:
        steps[id] = [*_remembered(known[id], steps[id]), *steps[id]]
    return {id: tuple(found) for id, found in steps.items()}


def steps_of(version: int, event: Event) -> list[Step]:
    """Return what one event means."""
    return list(_steps(version, event))


def _steps(version: int, event: Event) -> Iterator[Step]:
    new, old = event.object, event.old
    if event.action == "delete":
        yield Step(version, new.updated_at, "forgotten" if isinstance(new, Task) else "removed")
    elif isinstance(new, Task):
        yield from _task_steps(version, new, old if isinstance(old, Task) else None)
    elif isinstance(new, Node):
        yield from _node_steps(version, new, old if isinstance(old, Node) else None)
    elif isinstance(new, Service):
        yield from _service_steps(version, new, old if isinstance(old, Service) else None)


def _task_steps(version: int, new: Task, old: Task | None) -> Iterator[Step]:
    at = new.updated_at or new.created_at
    if old is None:
        yield Step(version, new.created_at, f"created, to be {_word(new.desired_state)}", new.why)
        return
    if old.desired_state != new.desired_state:
        # A replacement that was only prepared so far may start: that is no end, so it has no reason to stop.
        cause = new.stop_why if new.desired_state > TaskState.COMPLETE else "its time has come"
        yield Step(version, at, f"to be {_word(new.desired_state)}", cause)
    if old.state != new.state:
        where = f" to node {new.node_id}" if new.node_id and not old.node_id else ""
        yield Step(version, new.status.timestamp or at, f"{_word(new.state)}{where}", _cause(new))
    elif old.status.err != new.status.err and new.status.err:
        yield Step(version, new.status.timestamp or at, f"still {_word(new.state)}", new.status.err)


def _cause(task: Task) -> str:
    if task.status.err:
        return task.status.err
    if task.state.is_terminal and task.stop_why:
        return task.stop_why
    return task.status.message


def _node_steps(version: int, new: Node, old: Node | None) -> Iterator[Step]:
    at = new.updated_at or new.created_at
    if old is None:
        yield Step(version, new.created_at, "joined", f"as a {_word(new.role)}")
        return
    if old.status.state != new.status.state:
        yield Step(version, at, _word(new.status.state), new.status.message)
    if old.spec.availability != new.spec.availability:
        yield Step(version, at, f"availability {_word(new.spec.availability)}", "the operator changed it")
    if old.role != new.role:
        yield Step(version, at, f"is a {_word(new.role)}", "the operator changed its role")
    if old.spec.labels != new.spec.labels:
        yield Step(version, at, "other labels", "the operator changed them")


def _service_steps(version: int, new: Service, old: Service | None) -> Iterator[Step]:
    at = new.updated_at or new.created_at
    if old is None:
        yield Step(version, new.created_at, "created")
        return
    if old.spec_version != new.spec_version:
        yield Step(version, at, f"spec version {new.spec_version}")
    elif old.spec != new.spec:
        yield Step(version, at, "changed, its tasks stay as they are")
    if old.update_status.state != new.update_status.state and new.update_status.state:
        yield Step(version, at, f"update {_word(new.update_status.state)}", new.update_status.message)
    if old.job_status.iteration != new.job_status.iteration:
        yield Step(version, at, f"run {new.job_status.iteration} begins")
    elif old.job_status.state != new.job_status.state:
        yield Step(version, at, f"run {new.job_status.iteration} {_word(new.job_status.state)}", new.job_status.message)


def _remembered(subject: Object, steps: list[Step]) -> Iterator[Step]:
    """What the object itself tells of the time before the first remembered step."""
    yield Step(0, subject.created_at, "created", subject.why if isinstance(subject, Task) else "")
    if steps or not isinstance(subject, Task):
        return
    if subject.stop_why:
        yield Step(0, 0.0, f"to be {_word(subject.desired_state)}", subject.stop_why)
    yield Step(subject.version, subject.status.timestamp, _word(subject.state), _cause(subject))


def _word(value: TaskState | object) -> str:
    return getattr(value, "name", "").lower().replace("_", " ")
