"""Applying entries: deterministic, exactly once, never raising, restored to the same state."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from immutables import Map
from lib.builders import a_cluster, a_node, a_service, a_task
from msgspec.structs import replace

from pyswarm.manager.store import apply as subject
from pyswarm.manager.store.apply import (
    EMPTY,
    Applied,
    Entry,
    Forgotten,
    Invalid,
    Refused,
    State,
    apply_entry,
    decode_outcome,
    encode_entry,
    state_digest,
)
from pyswarm.manager.store.changes import Change, Create, Delete, Update
from pyswarm.manager.store.pieces import PIECE_BYTES, SnapshotDamaged, read_pieces, write_pieces
from pyswarm.manager.store.store import Store
from pyswarm.proto.model.objects import NodeDescription


def entry(*changes: Change, client: str = "c", sequence: int = 1, settled_below: int = 1) -> bytes:
    return encode_entry(Entry(client, sequence, settled_below, changes))


def applied(*entries: bytes, state: State = EMPTY, start: int = 1) -> State:
    for index, payload in enumerate(entries, start=start):
        state, _, _ = apply_entry(state, index, payload)
    return state


def test_an_entry_applies_whole_or_not_at_all() -> None:
    state = applied(entry(Create(a_node("n1"))))
    after, outcome, events = apply_entry(
        state, 2, entry(Create(a_node("n2")), Update(a_node("n1", version=7)), sequence=2)
    )
    assert isinstance(outcome, Refused)
    assert (outcome.kind, outcome.id, outcome.expected, outcome.found) == ("node", "n1", 7, 1)
    assert (after.view.node("n2"), events, after.view.version) == (None, (), 2)


def test_an_entry_proposed_twice_takes_effect_once_and_answers_the_same() -> None:
    payload = entry(Create(a_node("n1")))
    state, first, _ = apply_entry(EMPTY, 1, payload)
    state = applied(entry(Delete("node", "n1"), sequence=2), state=state, start=2)
    again, second, events = apply_entry(state, 3, payload)

    assert first == second == Applied(1)
    assert events == ()
    assert again.view.node("n1") is None


def test_a_refusal_is_remembered_too() -> None:
    refused = entry(Update(a_node("n1", version=5)), sequence=1)
    state, first, _ = apply_entry(EMPTY, 1, refused)
    state = applied(entry(Create(a_node("n1")), sequence=2), state=state, start=5)
    _, second, _ = apply_entry(state, 6, refused)
    assert first == second
    assert isinstance(first, Refused)


def test_writers_do_not_share_numbers() -> None:
    state = applied(entry(Create(a_node("n1")), client="a"), entry(Create(a_node("n2")), client="b"))
    assert state.view.count("node") == 2


def test_what_its_writer_has_settled_is_forgotten_and_never_applied_again() -> None:
    first = entry(Create(a_node("n1")), sequence=1)
    state = applied(
        first, entry(Delete("node", "n1"), sequence=2), entry(Create(a_node("n3")), sequence=3, settled_below=3)
    )
    assert list(state.writers["c"].outcomes) == [3]
    after, outcome, events = apply_entry(state, 4, first)
    assert outcome == Forgotten()
    assert (after.view.node("n1"), events) == (None, ())


def test_entries_of_one_writer_may_overtake_each_other() -> None:
    state = applied(
        entry(Create(a_node("n2")), sequence=2, settled_below=1),
        entry(Create(a_node("n1")), sequence=1, settled_below=1),
    )
    assert state.view.count("node") == 2


def test_the_table_of_outcomes_is_bounded_and_stays_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "MAX_OUTCOMES", 3)
    first = entry(Create(a_node("n0")), sequence=1)
    state = applied(first, *(entry(Create(a_node(f"n{n}")), sequence=n) for n in range(2, 10)))
    assert sorted(state.writers["c"].outcomes) == [7, 8, 9]
    state = applied(entry(Delete("node", "n0"), sequence=10), state=state, start=10)
    assert applied(first, state=state, start=11).view.node("n0") is None


def test_the_table_of_writers_is_bounded_and_forgets_the_one_that_wrote_longest_ago(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subject, "MAX_WRITERS", 2)
    assert sorted(applied(*(entry(client=c, sequence=n) for n, c in enumerate("abac", 1))).writers) == ["a", "c"]


@pytest.mark.parametrize(
    "junk", [b"", b"\xc1", b"\x93", entry()[:-1], entry() + b"x", b"\x94\xa1c\x01\x01\x91\x80", b"\x94\xa1\x80"]
)
def test_what_cannot_be_read_is_refused_without_raising(junk: bytes) -> None:
    state, outcome, events = apply_entry(EMPTY, 4, junk)
    assert isinstance(outcome, Invalid)
    assert (state.view.version, events) == (4, ())
    store = Store()
    assert isinstance(decode_outcome(store.apply(4, junk)), Invalid)


@given(st.binary(max_size=200))
def test_no_bytes_at_all_make_apply_raise(junk: bytes) -> None:
    apply_entry(EMPTY, 1, junk)


def busy_log() -> list[bytes]:
    """A log that touches every kind of object and every outcome."""
    log = [entry(Create(a_cluster()), client="boot")]
    for n in range(1, 200):
        changes: list[Change] = [Create(a_task(f"t{n}", service=f"s{n % 7}", node=f"n{n % 5}"))]
        if n % 3 == 0:
            changes.append(Delete("task", f"t{n - 1}"))
        if n % 10 == 0:
            changes.append(Create(a_node(f"n{n}", labels={f"k{k}": "v" for k in range(n % 9)})))
        if n % 25 == 0:
            changes.append(Create(a_service(f"s{n}")))
        if n % 11 == 0:
            changes.append(Delete("node", "n1", 999))
        log.append(entry(*changes, client=f"c{n % 3}", sequence=n, settled_below=max(1, n - 20)))
    return log


def test_a_state_written_out_and_read_back_is_the_same_state() -> None:
    state = applied(*busy_log())
    pieces = list(write_pieces(state))
    again = read_pieces(state.view.version, pieces)
    assert state_digest(again) == state_digest(state)
    assert again.writers == state.writers
    assert again.view.tasks_of_node("n3") == state.view.tasks_of_node("n3")
    # And it goes on in the same way.
    more = entry(Create(a_node("later")), client="c1", sequence=500)
    assert state_digest(applied(more, state=again, start=900)) == state_digest(applied(more, state=state, start=900))


def test_a_repeated_entry_is_recognised_after_a_restore() -> None:
    payload = entry(Create(a_task("t1")))
    state = applied(payload)
    restored = read_pieces(1, write_pieces(state))
    state, outcome, events = apply_entry(applied(entry(Delete("task", "t1"), sequence=2), state=restored), 3, payload)
    assert outcome == Applied(1)
    assert (state.view.task("t1"), events) == (None, ())


def test_objects_larger_than_a_piece_are_cut_and_joined() -> None:
    fat = replace(a_node("fat"), description=NodeDescription(engine_labels={"k": "x" * (3 * PIECE_BYTES)}))
    state = applied(entry(Create(fat)))
    pieces = list(write_pieces(state))
    assert len(pieces) >= 4
    assert max(map(len, pieces)) <= PIECE_BYTES
    assert state_digest(read_pieces(1, pieces)) == state_digest(state)


def test_a_state_written_out_later_is_the_state_at_the_time_it_was_asked_for() -> None:
    store = Store()
    store.apply(1, entry(Create(a_node("n1"))))
    pieces = store.snapshot()
    before = store.digest()
    store.apply(2, entry(Create(a_node("n2")), sequence=2))
    other = Store()
    other.restore(1, pieces)
    assert other.digest() == before != store.digest()


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_damaged_snapshot_is_refused_and_changes_nothing(data: st.DataObject) -> None:
    whole = b"".join(write_pieces(applied(*busy_log()[:12])))
    at = data.draw(st.integers(0, len(whole) - 1))
    damage = data.draw(st.sampled_from(["cut", "flip", "extend"]))
    if damage == "cut":
        broken = whole[:at]
    elif damage == "flip":
        broken = whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :]
    else:
        broken = whole + whole[at:]
    store = Store()
    store.apply(1, entry(Create(a_node("kept"))))
    before = store.digest()
    cut = data.draw(st.integers(1, len(whole)))
    with pytest.raises(SnapshotDamaged):
        store.restore(1000, [broken[:cut], broken[cut:]])
    assert store.digest() == before


def test_the_digest_does_not_depend_on_how_the_state_came_about() -> None:
    one = applied(entry(Create(a_node("n1"))), entry(Create(a_node("n2")), client="d"))
    reordered = State(one.view, Map({k: one.writers[k] for k in ("d", "c")}), one.objects_tally)
    assert state_digest(one) == state_digest(reordered)


PROGRAM = """
import sys
sys.path[:0] = [{tests!r}, {here!r}]
from test_apply import applied, busy_log, state_digest, write_pieces
import hashlib
state = applied(*busy_log())
print(state_digest(state), hashlib.sha256(b"".join(write_pieces(state))).hexdigest())
"""


def test_processes_with_different_hash_seeds_agree_on_every_byte() -> None:
    here = Path(__file__).parent
    program = PROGRAM.format(tests=str(here.parents[1]), here=str(here))
    printed = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "77")
    }
    state = applied(*busy_log())
    assert printed == {f"{state_digest(state)} {hashlib.sha256(b''.join(write_pieces(state))).hexdigest()}\n"}
