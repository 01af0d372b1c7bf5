"""Decide what a list of changes does to the tables: all of it, or a conflict (pure).

Every check is made against the state before the entry, so the order of changes inside an entry does not
matter to them, with one exception by design: names are compared with what the entry leaves behind, so
that one entry may delete a service and create another of the same name.
"""

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from pyswarm.manager.store.changes import Change, Create, Expect, Kind, Update
from pyswarm.manager.store.conflict import Conflict, InvalidChanges
from pyswarm.manager.store.tables import Draft, Named, Tables, kind_of, name_key
from pyswarm.proto.model.objects import Cluster, Object

Action = Literal["create", "update", "delete"]


class Event(Struct, frozen=True, gc=False):
    """One object's step. `object` is the new one (the last one for a delete), `old` what it replaced."""

    action: Action
    kind: Kind
    object: Object
    old: Object | None


def transition(before: Tables, changes: Sequence[Change], version: int) -> tuple[Tables, tuple[Event, ...]]:
    """Return the tables after `changes`, whose objects get `version`, and what happened, in their order.

    Raises:
        Conflict: an object is not at the version its change names; nothing has been changed.
        InvalidChanges: an object is written twice or has no id.
    """
    events = tuple(event for change in changes if (event := _check(before, change, version)) is not None)
    _refuse_double_writes(events)
    _refuse_taken_names(before, events)
    if not events:
        return before, ()
    draft = Draft(before)
    # Deletes first, so that the name a deleted service gives up is free for its successor.
    for event in events:
        if event.action == "delete":
            draft.remove(event.object)
    for event in events:
        if event.action != "delete":
            draft.put(event.object, event.old)
    return draft.freeze(), events


def _check(before: Tables, change: Change, version: int) -> Event | None:
    if isinstance(change, Create | Update):
        object = change.object
        kind = kind_of(object)
        if not object.id:
            raise InvalidChanges(f"a {kind} without an id cannot be stored")
        old = before.get(kind, object.id)
        found = old.version if old is not None else 0
        if isinstance(change, Create):
            if old is not None:
                raise Conflict(kind, object.id, expected=0, found=found)
            if isinstance(object, Cluster) and before.clusters:
                other = next(iter(before.clusters.values()))
                raise Conflict("cluster", other.id, expected=0, found=other.version)
            return Event("create", kind, replace(object, version=version), None)
        if old is None or found != object.version:
            raise Conflict(kind, object.id, expected=object.version, found=found)
        return Event("update", kind, replace(object, version=version), old)

    old = before.get(change.kind, change.id)
    found = old.version if old is not None else 0
    if isinstance(change, Expect):
        if (old is not None) != (change.version != 0) or found != change.version:
            raise Conflict(change.kind, change.id, expected=change.version, found=found)
        return None
    if change.version and found != change.version:
        raise Conflict(change.kind, change.id, expected=change.version, found=found)
    return Event("delete", change.kind, old, old) if old is not None else None


def _refuse_double_writes(events: tuple[Event, ...]) -> None:
    if len(events) < 2:
        return
    written: set[tuple[Kind, str]] = set()
    for event in events:
        key = (event.kind, event.object.id)
        if key in written:
            raise InvalidChanges(f"{event.kind} {event.object.id} is written twice in one list of changes")
        written.add(key)


def _refuse_taken_names(before: Tables, events: tuple[Event, ...]) -> None:
    written = {(e.kind, e.object.id) for e in events}
    claimed: dict[tuple[Kind, str], str] = {}
    for event in events:
        kind, ids = event.kind, before.ids_of(event.kind)
        if ids is None or event.action == "delete" or not isinstance(event.object, Named) or not event.object.spec.name:
            continue
        key = name_key(event.object.spec.name)
        holder = claimed.setdefault((kind, key), event.object.id)
        if holder == event.object.id:
            stored = ids.get(key)
            # A holder that this very entry deletes or renames lets go of the name.
            holder = stored if stored is not None and (kind, stored) not in written else holder
        if holder != event.object.id:
            owner = before.get(kind, holder)
            raise Conflict(
                kind,
                holder,
                expected=0,
                found=owner.version if owner is not None else 0,
                why=f"the name {event.object.spec.name!r} is taken by {kind} {holder}",
            )
