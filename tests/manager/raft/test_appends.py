"""What a follower makes of an append: only what is new, and nothing is cut that matches (the core's defect S2)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyswarm.manager.raft.appends import LogDiverged, Rewind, Suffix, check_append, fit
from pyswarm.manager.raft.codec import Append, BadMessage, Entry
from pyswarm.manager.raft.commands import NOOP_COMMAND, encode_batch

COMMAND = b"\x00" + encode_batch([b"x"])


class Log:
    """Terms by index, from `first` on."""

    def __init__(self, terms: list[int], first: int = 1) -> None:
        self.terms, self.first_index = terms, first

    @property
    def last_index(self) -> int:
        return self.first_index + len(self.terms) - 1

    def term_at(self, index: int) -> int | None:
        return self.terms[index - self.first_index] if self.first_index <= index <= self.last_index else None


def entry(index: int, term: int) -> Entry:
    return (COMMAND, index, term)


def append(prev: tuple[int, int], *terms: int, term: int = 9) -> Append:
    return Append(term, 1, 0, *prev, tuple(entry(prev[0] + n, t) for n, t in enumerate(terms, start=1)))


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        pytest.param(append((3, 1), 2), Suffix(3, 1, (entry(4, 2),), 4), id="what is new is added"),
        pytest.param(append((1, 1), 1, 1), Suffix(3, 1, (), 3), id="what is there is passed over"),
        pytest.param(append((1, 1), 1), Suffix(3, 1, (), 2), id="a late append cuts nothing and covers what it has"),
        pytest.param(append((1, 1)), Suffix(3, 1, (), 1), id="a heartbeat covers what it names, not our tail"),
        pytest.param(append((1, 1), 1, 1, 2), Suffix(3, 1, (entry(4, 2),), 4), id="only the new part is taken"),
        pytest.param(append((1, 1), 1, 2), Suffix(2, 1, (entry(3, 2),), 3), id="the log is cut where it conflicts"),
        pytest.param(append((7, 1), 1), Rewind(4), id="behind the end: go on from there"),
        pytest.param(append((3, 2), 2), Rewind(3), id="another previous entry: go on behind what is committed"),
    ],
)
def test_an_append_is_reduced_to_what_is_new(message: Append, expected: Suffix | Rewind) -> None:
    assert fit(message, Log([1, 1, 1]), committed=2) == expected


def test_what_lies_before_the_log_is_in_the_snapshot() -> None:
    log = Log([1, 1, 1], first=5)
    assert fit(append((2, 1), 1, 1, 1, 1, 1, 2), log, committed=6) == Suffix(7, 1, (entry(8, 2),), 8)
    assert fit(append((2, 1)), log, committed=6) == Suffix(7, 1, (), 5)


@pytest.mark.parametrize("message", [append((1, 1), 2), append((2, 2), 2)])
def test_a_committed_entry_is_never_given_up(message: Append) -> None:
    with pytest.raises(LogDiverged):
        fit(message, Log([1, 1, 1]), committed=2)


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(Append(9, 1, 0, 3, 1, ((COMMAND, 5, 1),)), id="a gap"),
        pytest.param(append((3, 2), 1), id="a term that goes back"),
        pytest.param(append((3, 2), 10, term=9), id="a term of the future"),
        pytest.param(Append(9, 1, 0, 3, 1, ((b"\x80\x04N.", 4, 1),)), id="a pickle"),
        pytest.param(Append(9, 1, 0, 3, 1, ((b"\x00\x80\x04N.", 4, 1),)), id="a pickle as a regular command"),
        pytest.param(Append(9, 1, 0, 3, 1, ((b"\x02\x80\x04N.", 4, 1),)), id="a pickle as a membership change"),
        pytest.param(Append(9, 1, 0, 3, 1, ((b"\x03\x01", 4, 1),)), id="the core's version switch"),
        pytest.param(Append(9, 1, 0, 3, 1, ((NOOP_COMMAND + b"x", 4, 1),)), id="a no-op that carries something"),
        pytest.param(Append(9, 1, 0, 3, 1, ((b"", 4, 1),)), id="nothing at all"),
    ],
)
def test_what_no_leader_sends_is_refused(message: Append) -> None:
    with pytest.raises(BadMessage):
        check_append(message)


@st.composite
def leader_and_follower(draw: st.DrawFn) -> tuple[list[int], list[int], int]:
    """The leader's terms, the follower's, and how far both are committed: the same prefix, then anything that grows."""
    common = sorted(draw(st.lists(st.integers(1, 3), min_size=1, max_size=8)))
    leader = common + sorted(draw(st.lists(st.integers(common[-1], 6), max_size=6)))
    # The follower's tail is of terms the leader's is not of: one term has one leader.
    tail = sorted(draw(st.lists(st.integers(7, 9), max_size=6)))
    return leader, common + tail, draw(st.integers(1, len(common)))


@given(leader_and_follower(), st.data())
def test_after_an_append_the_log_equals_the_leaders_as_far_as_it_says(
    logs: tuple[list[int], list[int], int], data: st.DataObject
) -> None:
    leader, follower, committed = logs
    prev = data.draw(st.integers(1, len(leader)))
    last = data.draw(st.integers(prev, len(leader)))
    step = fit(append((prev, leader[prev - 1]), *leader[prev:last]), Log(follower), committed=committed)
    if isinstance(step, Rewind):
        assert step.next_index <= len(follower) + 1
        assert follower[:committed] == leader[:committed]
        return
    # What the core does with it: cut behind the previous entry only if something follows, then add.
    after = follower[: step.prev_index] + [e[2] for e in step.entries]
    assert after[: step.covered] == leader[: step.covered]
    kept = [ours for ours, theirs in zip(follower, leader[:last], strict=False) if ours == theirs]
    assert after[: len(kept)] == kept
