"""What a nemesis plans and records: reproducible faults of every kind, and outcomes taken at their word."""

from itertools import permutations
from pathlib import Path

import pytest
from lib.linearizability import CompareAndSet, Read, Write
from lib.nemesis_faults import LEADER, LONGEST_SECONDS, SHORTEST_SECONDS, Cut, name_of, parted, plan
from lib.nemesis_history import End, History, end_of, load_operations

from pyswarm.proto.errors import (
    AlreadyExists,
    Internal,
    NotFound,
    NotLeader,
    OutcomeUnknown,
    OutOfSequence,
    SwarmError,
    Unavailable,
    Unreachable,
)

KINDS = {
    *("kill-leader", "kill-1", "kill-2", "kill-3", "stop-leader", "stop-1", "stop-2", "stop-3"),
    *("full-disk", "full-disk-kill", "clock"),
    *("cut-leader-alone", "cut-halves", "cut-leader-deaf", "cut-leader-mute", "cut-leader-to-one"),
    *("cut-one-to-leader", "cut-one-deaf", "cut-ring", "cut-random"),
}


def test_a_seed_alone_decides_the_plan_and_every_kind_of_fault_is_in_it():
    rounds = plan(7, 400, 3)
    assert rounds == plan(7, 400, 3)
    assert rounds != plan(8, 400, 3)
    assert {name_of(fault) for planned in rounds for fault in planned.faults} == KINDS
    assert all(SHORTEST_SECONDS <= planned.seconds <= LONGEST_SECONDS for planned in rounds)


def test_a_plan_can_be_limited_to_some_kinds():
    rounds = plan(7, 50, 5, kinds=frozenset({"stop", "cut-ring"}))
    assert {name_of(f).split("-")[0] for planned in rounds for f in planned.faults} == {"stop", "cut"}


def test_a_partition_cuts_both_ways_between_the_sides_and_nothing_within():
    assert parted(3, {LEADER}) == {(0, 1), (1, 0), (0, 2), (2, 0)}


def test_in_a_ring_of_five_everybody_is_left_with_two_neighbours_and_all_are_connected():
    cut = next(f for planned in plan(1, 400, 5) for f in planned.faults if isinstance(f, Cut) and f.shape == "ring")
    left = set(permutations(range(5), 2)) - cut.links
    assert all(sum(source == part for source, _ in left) == 2 for part in range(5))
    assert {(b, a) for a, b in left} == left


def _unsent() -> Unreachable:
    error = Unreachable("nobody listens")
    error.was_sent = False
    return error


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (OutcomeUnknown("may be"), End.UNKNOWN),
        (Unreachable("no answer"), End.UNKNOWN),
        (_unsent(), End.REFUSED),
        (Unavailable("no leader"), End.REFUSED),
        (NotLeader(), End.REFUSED),
        (OutOfSequence("later"), End.NOT_MET),
        (NotFound("gone"), End.NOT_MET),
        (AlreadyExists("there"), End.NOT_MET),
        (Internal("a fault"), End.UNEXPECTED),
    ],
)
def test_an_error_is_taken_at_its_word(error: SwarmError, end: End):
    assert end_of(error) is end


def test_a_recorded_history_is_judged_and_is_the_same_when_it_is_loaded_again(tmp_path: Path):
    history = History(now=iter(range(100)).__next__)
    history.succeeded(1, "a", Write("x"), history.now())
    history.failed(2, "a", CompareAndSet("x", "y"), history.now(), OutcomeUnknown("may be"))
    history.failed(2, "a", Write("never"), history.now(), Unavailable("no leader"))
    history.succeeded(3, "a", Read(), history.now(), "y")
    assert history.violation() is None
    history.succeeded(3, "a", Read(), history.now(), "never")
    assert history.violation() is not None
    assert "never" in history.refused[0]
    history.save(tmp_path / "h.jsonl")
    assert load_operations(tmp_path / "h.jsonl") == history.operations


def test_an_object_that_exists_throughout_must_not_be_missed():
    history = History(now=lambda: 0.0)
    history.failed(1, "a", Read(), 0.0, NotFound("no such config"))
    assert history.unexpected
