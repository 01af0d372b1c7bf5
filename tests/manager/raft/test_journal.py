"""The log in memory and what of it is durable: replayed, cut, begun at a snapshot."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyswarm.manager.raft.codec import Entry
from pyswarm.manager.raft.commands import NOOP_COMMAND, MemberChange, encode_change
from pyswarm.manager.raft.journal import Frame, Journal, Staged, decode_frame
from pyswarm.manager.raft.port import Member
from pyswarm.manager.raft.wal import JournalDamaged

X = Member("raft-x", "node-x", "x:7946", "x:2377")
ADD_X = b"\x02" + encode_change(MemberChange("add", X))


def entries(first: int, last: int, *, term: int = 1) -> list[Entry]:
    return [(NOOP_COMMAND, index, term) for index in range(first, last + 1)]


def journal(*held: Entry) -> Journal:
    made = Journal()
    for entry in held:
        made.add(*entry)
    return made


def contents(log: Journal) -> list[Entry]:
    return list(log[0:])


def replayed(*frames: Staged) -> Journal:
    made = Journal()
    made.replay([decode_frame(frame.content) for frame in frames])
    return made


def test_what_was_staged_comes_back() -> None:
    log = journal(*entries(1, 5))
    log.setCurrentTerm(3, "raft-1")
    log.setRaftCommitIndex(4)
    again = replayed(log.take())
    assert contents(again) == contents(log)
    assert (again.getCurrentTerm(), again.getVotedForNodeId(), again.getRaftCommitIndex()) == (3, "raft-1", 4)


def test_a_commit_index_beyond_the_log_says_nothing() -> None:
    log = journal(*entries(1, 5))
    log.setRaftCommitIndex(9)
    assert replayed(log.take()).getRaftCommitIndex() == 5


def test_a_commit_index_alone_is_not_worth_a_sync() -> None:
    log = journal(*entries(1, 5))
    log.mark_durable(log.take())
    log.setRaftCommitIndex(5)
    assert not log.is_staged


def test_a_vote_is_worth_a_sync() -> None:
    log = journal(*entries(1, 5))
    log.mark_durable(log.take())
    log.setCurrentTerm(2, "raft-2")
    assert log.is_staged
    assert log.position > log.durable_position


def test_entries_added_while_a_frame_is_written_are_not_durable_with_it() -> None:
    log = journal(*entries(1, 5))
    staged = log.take()
    log.add(NOOP_COMMAND, 6, 1)
    log.mark_durable(staged)
    assert log.durable_index == 5
    log.mark_durable(log.take())
    assert log.durable_index == 6


def test_what_was_cut_and_added_while_a_frame_is_written_is_not_durable_with_it() -> None:
    log = journal(*entries(1, 5))
    staged = log.take()
    log.deleteEntriesFrom(2)
    for entry in entries(3, 6, term=2):
        log.add(*entry)
    log.mark_durable(staged)
    assert log.durable_index <= 2


def test_a_gap_between_frames_is_damage() -> None:
    first, second = journal(*entries(1, 3)).take(), journal(*entries(7, 8)).take()
    with pytest.raises(JournalDamaged):
        replayed(first, second)


def test_membership_changes_are_found_and_forgotten_with_their_entries() -> None:
    log = journal(*entries(1, 3), (ADD_X, 4, 1), *entries(5, 6))
    assert [(index, change.member) for index, change in log.changes] == [(4, X)]
    version = log.changes_version
    log.deleteEntriesFrom(3)
    assert log.changes == ()
    assert log.changes_version > version


def test_a_snapshot_behind_the_log_keeps_what_follows_it() -> None:
    log = journal(*entries(1, 9))
    log.begin_at_snapshot((NOOP_COMMAND, 5, 1), (NOOP_COMMAND, 6, 1))
    assert contents(log) == entries(5, 9)
    assert log.getRaftCommitIndex() == 6


def test_a_snapshot_right_before_the_log_keeps_the_whole_log() -> None:
    log = journal(*entries(7, 9))
    log.begin_at_snapshot((NOOP_COMMAND, 5, 1), (NOOP_COMMAND, 6, 1))
    assert contents(log) == entries(5, 9)
    assert contents(replayed(log.take())) == entries(5, 9)


@pytest.mark.parametrize("held", [entries(1, 4), entries(1, 9, term=2)], ids=["shorter", "of another term"])
def test_a_snapshot_replaces_a_log_that_does_not_contain_it(held: list[Entry]) -> None:
    log = journal(*held)
    before = log.take()
    log.begin_at_snapshot((NOOP_COMMAND, 5, 1), (NOOP_COMMAND, 6, 1))
    assert contents(log) == entries(5, 6)
    assert contents(replayed(before, log.take())) == entries(5, 6)


def test_a_log_that_begins_behind_its_snapshot_is_damage() -> None:
    with pytest.raises(JournalDamaged):
        journal(*entries(9, 12)).begin_at_snapshot((NOOP_COMMAND, 5, 1), (NOOP_COMMAND, 6, 1))


def test_a_tail_is_kept_for_slow_followers() -> None:
    log = Journal(tail_entries=3)
    for entry in entries(1, 10):
        log.add(*entry)
    log.deleteEntriesTo(8)
    assert contents(log) == entries(6, 10)


@given(st.lists(st.tuples(st.sampled_from(["add", "cut", "reset", "take"]), st.integers(1, 9)), max_size=40))
def test_the_frames_on_disk_always_make_the_log_in_memory(steps: list[tuple[str, int]]) -> None:
    log = Journal()
    frames: list[Frame] = []
    term = 1
    for step, number in steps:
        if step == "add":
            for _ in range(number):
                log.add(NOOP_COMMAND, log.last_index + 1, term)
        elif step == "cut" and len(log):
            log.deleteEntriesFrom(min(number, len(log) - 1))
            term += 1
        elif step == "reset":
            log.clear()
        elif step == "take":
            frames.append(decode_frame(log.take().content))
    frames.append(decode_frame(log.take().content))
    again = Journal()
    again.replay(frames)
    assert contents(again) == contents(log)
