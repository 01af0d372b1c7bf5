"""Turn committed entries into state: deterministic, all or nothing, exactly once (pure).

Every manager applies the same bytes in the same order and must end in the same state, so nothing here reads
a clock, draws a number or depends on the order of a set. An entry that cannot be applied changes nothing
and has an outcome that says why; `apply` never raises.

Exactly once: a writer numbers its entries, and when it cannot know whether one was committed it proposes the
same number again. The state remembers the outcome of every entry its writer may still ask for (an entry
carries the number below which its writer has settled everything) and answers a repeated one with it.
"""

from collections.abc import Iterable
from typing import Final

import msgspec
from immutables import Map
from msgspec import Struct

from pyswarm.manager.store.changes import Change, Kind
from pyswarm.manager.store.conflict import Conflict, InvalidChanges
from pyswarm.manager.store.digest import combined, tally_after
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.manager.store.transition import Event
from pyswarm.proto.model.objects import Object

MAX_WRITERS: Final = 256
"""Writers remembered. Each start of a manager makes one; the one that wrote longest ago is forgotten first."""

MAX_OUTCOMES: Final = 4096
"""Outcomes remembered of one writer: more than it may have in flight (`writer.MAX_IN_FLIGHT`)."""


class Entry(Struct, frozen=True, array_like=True):
    """What is proposed: one writer's changes. Numbers below `settled_below` will never be proposed again."""

    client_id: str
    sequence: int
    settled_below: int
    changes: tuple[Change, ...]


class Applied(Struct, frozen=True, tag="applied"):
    """All changes took effect, at `version`."""

    version: int


class Refused(Struct, frozen=True, tag="conflict"):
    """An object was not where the entry expected it: the fields of `Conflict`."""

    kind: Kind
    id: str
    expected: int
    found: int
    message: str


class Invalid(Struct, frozen=True, tag="invalid"):
    """The entry can fit no state, or cannot be read."""

    message: str


class Forgotten(Struct, frozen=True, tag="forgotten"):
    """A copy of an entry that was settled, or pushed out of the table: whether it took effect is not known any more."""


Outcome = Applied | Refused | Invalid | Forgotten


class WriterRecord(Struct, frozen=True):
    """What is remembered of one writer: outcomes by sequence number, and when it last wrote."""

    last_index: int
    settled_below: int
    outcomes: Map[int, Outcome]


class State(Struct, frozen=True):
    """All that is replicated. Immutable: a state can be read and written out while later ones are made.

    `objects_tally` sums up the objects of the view (digest.py); it follows from them and is not written out.
    """

    view: Snapshot
    writers: Map[str, WriterRecord]
    objects_tally: int


EMPTY: Final = State(Snapshot(), Map(), 0)

UNREADABLE: Final = (msgspec.MsgspecError, ValueError, OverflowError, RecursionError)
"""All that decoding bytes of unknown origin raises: text that is no UTF-8 is a plain ValueError."""

_entry_encoder = msgspec.msgpack.Encoder()
_entry_decoder = msgspec.msgpack.Decoder(Entry)
_outcome_decoder: "msgspec.msgpack.Decoder[Outcome]" = msgspec.msgpack.Decoder(Outcome)


def encode_entry(entry: Entry) -> bytes:
    return _entry_encoder.encode(entry)


def encode_outcome(outcome: Outcome) -> bytes:
    return _entry_encoder.encode(outcome)


def decode_outcome(data: bytes) -> Outcome:
    return _outcome_decoder.decode(data)


def apply_entry(state: State, index: int, payload: bytes) -> tuple[State, Outcome, tuple[Event, ...]]:
    """Return the state after the entry at `index`, its outcome, and what happened to which object."""
    try:
        entry = _entry_decoder.decode(payload)
    except UNREADABLE as error:
        return _passed_by(state, index), Invalid(f"entry {index} cannot be read: {error}"), ()

    known = state.writers.get(entry.client_id)
    if known is not None:
        remembered = known.outcomes.get(entry.sequence)
        if remembered is not None:
            return _passed_by(state, index), remembered, ()
        if entry.sequence < known.settled_below:
            return _passed_by(state, index), Forgotten(), ()

    events: tuple[Event, ...] = ()
    outcome: Outcome
    try:
        view, events = state.view.step(entry.changes, version=index)
        outcome = Applied(index)
    except Conflict as error:
        view = _at(state.view, index)
        outcome = Refused(error.kind, error.id, error.expected, error.found, error.message)
    except InvalidChanges as error:
        view, outcome = _at(state.view, index), Invalid(error.message)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        # A fault of ours that this entry brings out: refusing it everywhere beats every manager dying of it
        # again at each start. The step is pure, so nothing has been half done.
        view, outcome = _at(state.view, index), Invalid(f"entry {index} cannot be applied: {error!r}")
    writers = _remember(state.writers, known, entry, index, outcome)
    return State(view, writers, tally_after(state.objects_tally, events)), outcome, events


def _remember(
    writers: Map[str, WriterRecord], known: WriterRecord | None, entry: Entry, index: int, outcome: Outcome
) -> Map[str, WriterRecord]:
    outcomes: Map[int, Outcome] = known.outcomes if known is not None else Map()
    settled_below = max(entry.settled_below, known.settled_below if known is not None else 0)
    with outcomes.mutate() as draft:
        if known is not None and settled_below > known.settled_below:
            for sequence in _settled(known, settled_below):
                draft.pop(sequence, None)
        draft[entry.sequence] = outcome
        outcomes = draft.finish()
    if len(outcomes) > MAX_OUTCOMES:
        # Moving the mark keeps the promise: a copy of what is pushed out is refused, never applied twice.
        oldest = min(outcomes)
        outcomes, settled_below = outcomes.delete(oldest), oldest + 1
    writers = writers.set(entry.client_id, WriterRecord(index, settled_below, outcomes))
    if len(writers) > MAX_WRITERS:
        writers = writers.delete(min(writers, key=lambda id: (writers[id].last_index, id)))
    return writers


def _settled(known: WriterRecord, settled_below: int) -> Iterable[int]:
    """Return the numbers to forget: a walk over the few that are new, or over all that are kept."""
    if settled_below - known.settled_below <= len(known.outcomes):
        return range(known.settled_below, settled_below)
    return [sequence for sequence in known.outcomes if sequence < settled_below]


def _at(view: Snapshot, index: int) -> Snapshot:
    """Return the same objects at a later index, which an entry without effect has passed."""
    return Snapshot(view.tables, index)


def _passed_by(state: State, index: int) -> State:
    return State(_at(state.view, index), state.writers, state.objects_tally)


def state_digest(state: State) -> str:
    """Return a fingerprint of the whole state: equal on every manager that has applied the same entries.

    It costs as much as what is remembered of writers, whatever the number of objects.
    """
    return combined(state.view.version, state.objects_tally, state_writers(state))


def state_objects(state: State) -> Iterable[Object]:
    """Yield every object in the one order that all managers share: by kind, then id."""
    view = state.view
    if view.cluster is not None:
        yield view.cluster
    yield from view.nodes()
    yield from view.services()
    yield from view.revisions()
    yield from view.tasks()
    yield from view.secrets()
    yield from view.configs()
    yield from view.stacks()


class StoredWriter(Struct, frozen=True, tag="writer"):
    """A `WriterRecord` as it is written out."""

    client_id: str
    last_index: int
    settled_below: int
    outcomes: tuple[tuple[int, Outcome], ...]


def state_writers(state: State) -> Iterable[StoredWriter]:
    """Yield what is remembered of each writer, by client id."""
    for client_id in sorted(state.writers):
        known = state.writers[client_id]
        yield StoredWriter(
            client_id,
            known.last_index,
            known.settled_below,
            tuple((n, known.outcomes[n]) for n in sorted(known.outcomes)),
        )
