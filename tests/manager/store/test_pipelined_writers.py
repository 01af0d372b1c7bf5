"""Any number of writers decide on views that are old by the time their entries are applied: checked against a model.

The model knows a version for every object and applies an entry if each of its checks holds, whoever wrote it and
whatever the order in which entries arrive; a copy of an entry that was applied before changes nothing. Whatever
happens, indexes, digest, and what a follower was told must agree with the objects.
"""

from hypothesis import given, settings
from hypothesis import strategies as st
from lib.builders import a_task
from msgspec import Struct

from pyswarm.manager.store.apply import (
    EMPTY,
    Applied,
    Entry,
    Outcome,
    Refused,
    State,
    apply_entry,
    encode_entry,
    state_objects,
)
from pyswarm.manager.store.changes import Change, Create, Delete, Expect, Update
from pyswarm.manager.store.digest import tally
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.manager.store.transition import Event
from pyswarm.proto.model.objects import Task

IDS = ("a", "b", "c", "d")
Model = dict[str, int]


class Proposal(Struct, frozen=True):
    client: str
    sequence: int
    changes: tuple[Change, ...]

    @property
    def payload(self) -> bytes:
        return encode_entry(Entry(self.client, self.sequence, 1, self.changes))


def an_id(change: Change) -> str:
    return change.object.id if isinstance(change, Create | Update) else change.id


def fits(model: Model, change: Change) -> bool:
    found = model.get(an_id(change), 0)
    match change:
        case Create():
            return found == 0
        case Update():
            return found != 0 and found == change.object.version
        case Delete():
            return change.version in (0, found)
        case Expect():
            return change.version == found


def apply_to(model: Model, changes: tuple[Change, ...], index: int) -> Model:
    after = dict(model)
    for change in changes:
        if isinstance(change, Create | Update):
            after[change.object.id] = index
        elif isinstance(change, Delete):
            after.pop(change.id, None)
    return after


def a_change(data: st.DataObject, id: str, seen: Model) -> Change:
    """Return a change that fits what its writer sees."""
    node, service = data.draw(st.sampled_from(("", "n1", "n2"))), data.draw(st.sampled_from(("s1", "s2")))
    version = seen.get(id, 0)
    task = a_task(id, version=version, node=node, service=service)
    if not version:
        return data.draw(st.sampled_from((Create(task), Expect("task", id, 0), Delete("task", id))))
    return data.draw(
        st.sampled_from((Update(task), Delete("task", id, version), Delete("task", id), Expect("task", id, version)))
    )


def follow(told: dict[str, Task], events: tuple[Event, ...]) -> None:
    """Do to a follower's copy what the events say; they must fit it."""
    for event in events:
        assert isinstance(event.object, Task)
        assert told.get(event.object.id) == event.old
        if event.action == "delete":
            del told[event.object.id]
        else:
            told[event.object.id] = event.object


def check(state: State, model: Model, told: dict[str, Task]) -> None:
    view = state.view
    tasks = {task.id: task for task in view.tasks()}
    assert {id: task.version for id, task in tasks.items()} == model
    assert told == tasks
    assert state.objects_tally == tally(state_objects(state))
    assert view.tables == Snapshot.of(*tasks.values()).tables
    for node in ("n1", "n2"):
        assert {t.id for t in view.tasks_of_node(node)} == {t.id for t in tasks.values() if t.node_id == node}
    for service in ("s1", "s2"):
        assert {t.id for t in view.tasks_of_service(service)} == {
            t.id for t in tasks.values() if t.service_id == service
        }


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_pipelined_writers_end_where_the_model_does(data: st.DataObject) -> None:
    state, model = EMPTY, Model()
    told: dict[str, Task] = {}
    in_flight: list[Proposal] = []
    outcomes: dict[tuple[str, int], Outcome] = {}
    sequences = {"w1": 0, "w2": 0, "w3": 0}
    index = 0
    for _ in range(data.draw(st.integers(1, 25))):
        if not in_flight or data.draw(st.booleans()):
            client = data.draw(st.sampled_from(tuple(sequences)))
            sequences[client] += 1
            ids = data.draw(st.lists(st.sampled_from(IDS), min_size=1, max_size=3, unique=True))
            in_flight.append(Proposal(client, sequences[client], tuple(a_change(data, id, model) for id in ids)))
            continue
        # Entries arrive in any order, and some twice: its writer could not know, and proposed it again.
        position = data.draw(st.integers(0, len(in_flight) - 1))
        proposal = in_flight[position] if data.draw(st.booleans()) else in_flight.pop(position)
        index += data.draw(st.integers(1, 3))
        state, outcome, events = apply_entry(state, index, proposal.payload)

        key = (proposal.client, proposal.sequence)
        if key in outcomes:
            assert (outcome, events) == (outcomes[key], ())
        elif all(fits(model, change) for change in proposal.changes):
            assert outcome == Applied(index)
            model = apply_to(model, proposal.changes, index)
        else:
            assert isinstance(outcome, Refused)
            assert events == ()
            misfit = next(change for change in proposal.changes if not fits(model, change))
            assert (outcome.id, outcome.found) == (an_id(misfit), model.get(an_id(misfit), 0))
        outcomes[key] = outcome
        follow(told, events)
        check(state, model, told)
