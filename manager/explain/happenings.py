"""What an event of the store means to people: its type, what was done, and the attributes that changed (pure).

Types, actions and attributes are Docker's where Docker has them (`state.old`, `availability.new`, `replicas.new`).
Events that change nothing people know of are left out.
"""

from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.manager.store.transition import Event
from pyswarm.proto.model.objects import Config, Node, Object, Revision, Secret, Service, Stack, Task

KINDS = ("node", "service", "task", "secret", "config", "stack")

_ACTIONS = {"create": "create", "update": "update", "delete": "remove"}

Attributes = dict[str, str]


class Happening(Struct, frozen=True):
    type: str
    action: str
    id: str
    attributes: Mapping[str, str]


def happenings(events: Sequence[Event], seen: Snapshot) -> list[Happening]:
    """Return what the events of one commit mean; `seen` is the view after it."""
    # What goes with its service in one commit is still to be called by its name.
    gone = {e.object.service_id: e.object.service_name for e in events if isinstance(e.object, Revision)}
    return [found for event in events if (found := _happening(event, seen, gone)) is not None]


def _happening(event: Event, seen: Snapshot, gone: Mapping[str, str]) -> Happening | None:
    """Return what an event means; None for kinds that nobody follows and for changes of no interest."""
    if event.kind not in KINDS:
        return None
    changed = dict(_changes(event.object, event.old))
    if event.action == "update" and not changed:
        return None
    return Happening(
        event.kind, _ACTIONS[event.action], event.object.id, {**_facts(event.object, seen, gone), **changed}
    )


def _facts(subject: Object, seen: Snapshot, gone: Mapping[str, str]) -> Attributes:
    if isinstance(subject, Task):
        revision, node = seen.revision_of(subject), seen.node(subject.node_id)
        known = revision.service_name if revision is not None else gone.get(subject.service_id)
        name = known or subject.service_id
        where = {"node": node.description.hostname or node.id} if node is not None else {}
        return {"name": f"{name}.{subject.slot or subject.node_id}", "service": name, **where}
    if isinstance(subject, Node):
        return {"name": subject.description.hostname or subject.id}
    if isinstance(subject, Service | Secret | Config):
        return {"name": subject.spec.name}
    return {"name": subject.id}


def _changes(new: Object, old: Object | None) -> Iterator[tuple[str, str]]:
    """Yield what differs, before and after."""
    before, after = _watched(old), _watched(new)
    for key, value in after.items():
        if old is not None and before.get(key) != value and (value or before.get(key)):
            if before.get(key):
                yield f"{key}.old", before[key]
            yield f"{key}.new", value
        elif old is None and value and isinstance(new, Task):
            yield key, value


def _watched(subject: Object | None) -> Attributes:
    if isinstance(subject, Task):
        return {
            "state": _word(subject.state),
            "desired": _word(subject.desired_state),
            "error": subject.status.err,
            "why": subject.stop_why or subject.why,
        }
    if isinstance(subject, Node):
        return {
            "state": _word(subject.status.state),
            "availability": _word(subject.spec.availability),
            "role": _word(subject.role),
            "labels": ",".join(f"{key}={value}" for key, value in sorted(subject.spec.labels.items())),
        }
    if isinstance(subject, Service):
        mode, template = subject.spec.mode, subject.spec.task_template
        return {
            "image": template.container_spec.image,
            "replicas": str(mode.replicated.replicas) if mode.replicated is not None else "",
            "version": str(subject.spec_version),
            "updatestate": _word(subject.update_status.state),
            "run": str(subject.job_status.iteration or ""),
            "runstate": _word(subject.job_status.state),
        }
    if isinstance(subject, Stack):
        return {"deploys": str(subject.deploys)}
    if isinstance(subject, Secret | Config):
        return {"labels": ",".join(f"{key}={value}" for key, value in sorted(subject.spec.labels.items()))}
    return {}


def _word(value: object) -> str:
    word = str(getattr(value, "name", "")).lower().replace("_", "-")
    return "" if word == "unset" else word
