"""The rules the core lacks, one script each: the same script loses or invents writes with the core alone."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import pytest
from lib.scripted_raft import ScriptedMember, command
from msgspec.structs import replace

from pyswarm.manager.raft.appends import LogDiverged
from pyswarm.manager.raft.codec import (
    Append,
    AppendReply,
    Heartbeat,
    HeartbeatReply,
    Message,
    PreVote,
    PreVoteRequest,
    SnapshotPiece,
    SnapshotReply,
    TermNotice,
    TimeoutNow,
    Vote,
    VoteRequest,
)
from pyswarm.manager.raft.commands import NOOP_COMMAND, MemberChange
from pyswarm.manager.raft.install import SnapshotSender
from pyswarm.manager.raft.progress import COMMIT_NEWS_SECONDS, WINDOW_APPENDS, WINDOW_BYTES, Progress
from pyswarm.manager.raft.rules import ALL_RULES
from pyswarm.manager.raft.snapshots import SnapshotHeader, SnapshotStore
from pyswarm.manager.sealing.sealer import Sealer
from pyswarm.proto.errors import Internal

Make = Callable[..., ScriptedMember]


@pytest.fixture
def member(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Make:
    return lambda others="bc", log=None, **kw: ScriptedMember(monkeypatch, tmp_path, others, log, **kw)


def entries(first: int, last: int, term: int) -> list[tuple[bytes, int, int]]:
    return [(command(b"%d.%d" % (index, term)), index, term) for index in range(first, last + 1)]


# -- as a follower


def test_a_commit_index_without_a_match_commits_nothing(member: Make) -> None:
    """S1: a leader that can show no entries (it is writing a snapshot) must not make us apply our own tail."""
    a = member(log=entries(2, 5, term=1))
    a.hear("b", Heartbeat(2, 1))
    a.hear("b", Append(2, 1, commit=5, prev_index=2, prev_term=1))
    a.tick()
    assert a.texts == [b"2.1"]


def test_a_late_append_cuts_nothing_that_was_acknowledged(member: Make) -> None:
    """S2: the same entries again, in part, after more had come."""
    a = member()
    a.hear("b", Append(1, 1, 0, 1, 0, tuple(entries(2, 9, term=1))))
    a.hear("b", Append(1, 2, 0, 1, 0, tuple(entries(2, 4, term=1))))
    assert a.journal.last_index == 9
    a.sync()
    assert [m.next_index for _, m in a.sent if isinstance(m, AppendReply)] == [10, 5]


def test_a_conflicting_tail_is_replaced(member: Make) -> None:
    a = member(log=entries(2, 6, term=1))
    a.hear("b", Append(2, 1, 0, 3, 1, tuple(entries(4, 5, term=2))))
    assert [a.journal.term_at(i) for i in range(1, 7)] == [0, 1, 1, 2, 2, None]


def test_a_committed_entry_is_never_replaced(member: Make) -> None:
    a = member(log=entries(2, 6, term=1))
    a.hear("b", Append(1, 1, 5, 6, 1))
    a.tick()
    with pytest.raises(LogDiverged):
        a.hear("c", Append(2, 1, 0, 3, 1, tuple(entries(4, 5, term=2))))


def test_an_acknowledgement_waits_for_the_disk(member: Make) -> None:
    a = member()
    a.hear("b", Append(1, 1, 0, 1, 0, tuple(entries(2, 3, term=1))))
    assert a.take() == []
    a.sync()
    assert a.take() == [("b", AppendReply(1, 1, 4, is_success=True))]


def test_a_vote_waits_for_the_disk_and_is_given_once(member: Make) -> None:
    a = member()
    a.hear("b", VoteRequest(5, 1, 0))
    a.hear("c", VoteRequest(5, 1, 0))
    assert a.take() == []
    a.sync()
    assert a.take() == [("b", Vote(5))]


def test_one_rewind_reaches_behind_a_divergent_tail(member: Make) -> None:
    """S17: not one step back per round, but to what is committed."""
    a = member(log=entries(2, 200, term=1))
    a.hear("b", Append(1, 1, 150, 200, 1))
    a.tick()
    a.hear("c", Append(3, 1, 150, 190, 2))
    a.sync()
    assert a.take()[-1] == ("c", AppendReply(3, 1, 151, is_success=False))


def test_an_older_term_is_told_the_newer_one(member: Make) -> None:
    a = member(log=entries(2, 3, term=4))
    a.hear("b", Append(3, 1, 0, 3, 4))
    a.hear("b", VoteRequest(2, 9, 9))
    assert a.take() == [("b", TermNotice(4)), ("b", TermNotice(4))]


def test_a_member_that_lags_follows_a_leader_it_does_not_know_yet(member: Make) -> None:
    a = member()
    a.hear("z", Append(1, 1, 0, 1, 0, tuple(entries(2, 3, term=1))))
    a.sync()
    assert a.take() == [("z", AppendReply(1, 1, 4, is_success=True))]


# -- elections


def test_nobody_stands_before_a_majority_would_vote_for_it(member: Make) -> None:
    a = member("bcde")
    a.wait(2.0)
    assert {type(m) for _, m in a.take()} == {PreVoteRequest}
    a.hear("b", PreVote(1, is_granted=True))
    a.hear("b", PreVote(1, is_granted=True))
    a.hear("c", PreVote(1, is_granted=False))
    a.tick()
    a.sync()
    assert a.guard.term == 0
    a.hear("d", PreVote(1, is_granted=True))
    a.tick()
    assert a.guard.term == 1
    assert a.take() == [], "a candidacy is a vote for oneself: it waits for the disk"
    a.sync()
    assert {m for _, m in a.take()} == {VoteRequest(1, 1, 0)}


def test_a_vote_counts_once_however_often_it_arrives(member: Make) -> None:
    """S3: two of five must not become a majority."""
    a = member("bcde")
    a.wait(2.0)
    for voter in "bc":
        a.hear(voter, PreVote(1, is_granted=True))
    a.tick()
    a.sync()
    for _ in range(5):
        a.hear("b", Vote(1))
    assert not a.core.is_leader
    a.hear("z", Vote(1))
    assert not a.core.is_leader, "a stranger's vote does not count"
    a.hear("c", Vote(1))
    assert a.core.is_leader


def test_a_leader_that_is_heard_is_not_deposed(member: Make) -> None:
    a = member()
    a.hear("b", Heartbeat(1, 1))
    a.sync()
    a.take()
    a.wait(0.2)
    a.hear("c", VoteRequest(9, 99, 9))
    a.hear("c", PreVoteRequest(9, 99, 9))
    a.sync()
    assert a.guard.term == 1
    assert a.take() == [("c", PreVote(9, is_granted=False))]


def test_a_term_is_shown_only_once_it_is_on_the_disk(member: Make) -> None:
    a = member()
    a.hear("b", Heartbeat(1, 1))
    assert a.take() == []
    a.sync()
    assert a.take() == [("b", HeartbeatReply(1, 1))]
    a.hear("b", Heartbeat(1, 2))
    assert a.take() == [("b", HeartbeatReply(1, 2))], "a known term waits for nothing"


def test_a_leader_may_hand_over_although_it_is_heard(member: Make) -> None:
    a = member()
    a.hear("b", Heartbeat(1, 1))
    a.hear("c", VoteRequest(2, 99, 1, is_transfer=True))
    a.sync()
    assert ("c", Vote(2)) in a.take()


def test_who_is_told_to_take_over_stands_at_once_and_says_why(member: Make) -> None:
    a = member()
    a.hear("b", Append(1, 1, 0, 1, 0))
    a.sync()
    a.take()
    a.hear("c", TimeoutNow(1))
    a.tick()
    assert a.guard.term == 1, "only the leader can hand over"
    a.hear("b", TimeoutNow(1))
    a.tick()
    a.sync()
    assert ("c", VoteRequest(2, 1, 0, is_transfer=True)) in a.take()


def test_a_leader_whose_stream_ends_and_who_stays_silent_is_deposed_within_a_few_heartbeats(member: Make) -> None:
    a = member()
    a.hear("b", Heartbeat(1, 1))
    a.sync()
    a.guard.link_down("b", a.now)
    a.take()
    a.wait(0.1)
    assert not a.take(), "one that lives is heard again within a heartbeat"
    a.wait(0.2)
    assert ("c", PreVoteRequest(2, 1, 0)) in a.take()
    a.hear("c", PreVote(2, is_granted=True))
    a.tick()
    a.sync()
    assert ("c", VoteRequest(2, 1, 0)) in a.take()


def test_a_leader_whose_stream_ends_and_who_is_heard_again_keeps_its_followers(member: Make) -> None:
    a = member()
    a.hear("b", Heartbeat(1, 1))
    a.sync()
    a.guard.link_down("b", a.now)
    a.wait(0.1)
    a.hear("b", Heartbeat(1, 2))
    a.sync()
    a.take()
    a.wait(0.29)
    a.hear("c", PreVoteRequest(9, 99, 9))
    a.sync()
    assert a.take() == [("c", PreVote(9, is_granted=False))]


def test_who_lost_the_stream_to_its_leader_helps_to_depose_it_and_who_lost_another_does_not(member: Make) -> None:
    a = member("bcd")
    a.hear("b", Heartbeat(1, 1))
    a.sync()
    a.guard.link_down("d", a.now)
    a.take()
    a.hear("c", PreVoteRequest(9, 99, 9))
    a.guard.link_down("b", a.now)
    a.hear("c", PreVoteRequest(9, 99, 9))
    assert a.take() == [("c", PreVote(9, is_granted=False)), ("c", PreVote(9, is_granted=True))]


def test_a_shorter_log_gets_no_promise(member: Make) -> None:
    a = member(log=entries(2, 5, term=3))
    a.hear("b", PreVoteRequest(4, 4, 3))
    a.hear("c", PreVoteRequest(4, 5, 3))
    assert a.take() == [("b", PreVote(4, is_granted=False)), ("c", PreVote(4, is_granted=True))]


# -- as the leader


def test_the_leader_does_not_count_what_is_not_on_its_own_disk(member: Make) -> None:
    a = member()
    a.elect("b")
    a.propose(b"x")
    index = a.journal.last_index
    a.hear("b", AppendReply(1, 99, index + 1, is_success=True))
    a.tick()
    assert a.texts == []
    a.sync()
    a.tick()
    assert a.texts == [b"x"]


def test_an_acknowledgement_of_an_earlier_leadership_does_not_count(member: Make) -> None:
    """S4."""
    a = member("bcde")
    a.elect("b", "c")
    a.propose(b"x")
    a.sync()
    index = a.journal.last_index
    for voter in "bc":
        a.hear(voter, AppendReply(0, 1, index + 1, is_success=True))
    a.tick()
    assert a.texts == []


def test_an_acknowledgement_of_a_stranger_does_not_count(member: Make) -> None:
    a = member()
    a.elect("b")
    a.propose(b"x")
    a.sync()
    a.hear("z", AppendReply(1, 1, a.journal.last_index + 1, is_success=True))
    a.tick()
    assert a.texts == []


@pytest.mark.parametrize(
    "answer", [AppendReply(7, 1, 2, True), HeartbeatReply(7, 0), TermNotice(7), SnapshotReply(7, 1, 1)]
)
def test_a_newer_term_ends_leadership(member: Make, answer: AppendReply) -> None:
    a = member()
    a.elect("b")
    a.hear("b", answer)
    assert not a.core.is_leader
    assert a.guard.term == 7


def test_a_newer_term_of_a_stranger_ends_nothing(member: Make) -> None:
    a = member()
    a.elect("b")
    a.hear("z", TermNotice(7))
    assert a.core.is_leader


def test_a_late_rewind_does_not_move_the_leader_back_again(member: Make) -> None:
    """S17: the other answers of the burst that was refused."""
    a = member(log=entries(2, 50, term=1))
    a.elect("b")
    a.wait(0.2)
    last_sent = a.appends("b")[-1].sequence
    a.take()
    a.hear("b", AppendReply(2, last_sent - 1, 20, is_success=False))
    a.hear("b", AppendReply(2, last_sent, 3, is_success=False))
    a.wait(0.2)
    assert a.appends("b")[0].prev_index == 19


def test_who_loses_what_it_acknowledged_is_not_believed_again(member: Make) -> None:
    a = member(log=entries(2, 50, term=1))
    a.elect("b")
    a.wait(0.2)
    a.hear("b", AppendReply(2, 1, 41, is_success=True))
    a.take()
    a.hear("b", AppendReply(2, 99, 2, is_success=False))
    a.wait(0.2)
    assert all(m.prev_index >= 40 for m in a.appends("b"))


def test_what_is_under_way_is_not_sent_again_with_every_acknowledgement(member: Make) -> None:
    a = member()
    a.elect("b", "c")
    for text in (b"x", b"y", b"z"):
        a.propose(text)
    a.sync()
    first = a.journal.last_index - 2
    a.take()
    a.hear("b", AppendReply(1, 99, first + 1, is_success=True))
    a.wait(0.2)
    assert [e for m in a.appends("b") for e in m.entries] == []


def test_two_leaders_of_one_term_are_a_reason_to_stop(member: Make) -> None:
    a = member()
    a.elect("b")
    with pytest.raises(Internal):
        a.hear("c", Append(1, 1, 0, 1, 0))


def test_a_leader_that_hears_no_majority_gives_up(member: Make) -> None:
    a = member()
    a.elect("b")
    for _ in range(40):
        a.wait(0.05)
    assert not a.core.is_leader


def test_a_read_is_confirmed_by_a_majority_of_answers_to_a_later_heartbeat(member: Make) -> None:
    a = member("bcde")
    a.elect("b", "c")
    number = a.guard.begin_round()
    a.hear("b", HeartbeatReply(1, number))
    a.hear("b", HeartbeatReply(1, number))
    a.hear("c", HeartbeatReply(1, number - 1))
    assert a.guard.confirmed_round < number
    a.hear("d", HeartbeatReply(1, number))
    assert a.guard.confirmed_round == number


def test_a_membership_change_is_in_force_when_it_is_in_the_log_and_gone_when_it_is_cut_off(member: Make) -> None:
    """S12."""
    a = member(log=entries(2, 3, term=1))
    change = MemberChange("rem", ScriptedMember.named("c"))
    a.hear("b", Append(2, 1, 0, 3, 1, ((ScriptedMember.change(change), 4, 2),)))
    assert {n.id for n in a.core.otherNodes} == {"b"}
    a.hear("c", Append(3, 1, 0, 3, 1, tuple(entries(4, 4, term=3))))
    assert {n.id for n in a.core.otherNodes} == {"b", "c"}


def test_a_command_is_never_forwarded(member: Make) -> None:
    """S13."""
    a = member()
    a.hear("b", Append(1, 1, 0, 1, 0))
    a.sync()
    a.take()
    refused: list[int] = []
    a.core.submit([b"x"], lambda result, why: refused.append(why))
    a.tick()
    assert len(refused) == 1
    assert a.take() == []


def test_what_is_under_way_to_a_silent_follower_is_bounded(member: Make) -> None:
    """S16."""
    a = member()
    a.elect("b", "c")
    for _ in range(40):
        a.propose(bytes(1_000_000))
        a.hear("c", HeartbeatReply(1, 0))
    sent = sum(len(entry[0]) for m in a.appends("b") for entry in m.entries)
    assert sent <= WINDOW_BYTES + 4 * 1024 * 1024


def test_a_follower_whose_answers_were_lost_is_sent_to_again(member: Make) -> None:
    """Its link to the leader broke and the leader's to it did not: nobody ever answers what fills the window."""
    a = member()
    a.elect("b", "c")
    for _ in range(40):
        a.propose(bytes(1_000_000))
        a.hear("c", HeartbeatReply(1, 0))
    a.take()
    for _ in range(60):
        a.hear("b", HeartbeatReply(1, 0))
        a.hear("c", HeartbeatReply(1, 0))
        a.wait(0.1)
    assert a.appends("b"), "it is asked again where it stands"


def test_appends_under_way_to_a_member_that_stands_still_are_bounded_in_number() -> None:
    progress = Progress(0.0)
    while not progress.is_window_full:
        progress.next_append(1, 0, (1, 0), (), now=0.0)
    assert len(progress.under_way) == WINDOW_APPENDS + 1


@pytest.mark.parametrize("word", [VoteRequest(7, 99, 6), PreVoteRequest(7, 99, 6), Append(7, 1, 0, 1, 0)])
def test_who_was_removed_is_neither_followed_nor_elected_nor_answered(member: Make, word: Message) -> None:
    a = member()
    a.removed = {"z"}
    a.hear("z", word)
    a.sync()
    assert a.guard.term == 0
    assert a.take() == []


def snapshot_pieces(directory: Path, stream: int, texts: Iterable[bytes]) -> list[SnapshotPiece]:
    """Return all pieces of a snapshot of entry 50 as a leader of term 3 sends them."""
    store = SnapshotStore(directory / f"leader-{stream}", Sealer(b"e" * 32))
    store.prepare()
    header = SnapshotHeader((NOOP_COMMAND, 49, 2), (NOOP_COMMAND, 50, 2), (ScriptedMember.named("b"),))
    store.write(header, texts)
    found = store.open_newest()
    assert found is not None
    return SnapshotSender(*found, stream=stream, now=0.0).next_pieces(3)


def test_a_received_snapshot_is_not_called_installed_before_it_is(member: Make, tmp_path: Path) -> None:
    """S11."""
    a = member()
    for piece in snapshot_pieces(tmp_path, 7, [b"x", b"y"]):
        a.hear("b", piece)
    a.sync()
    assert a.installing is not None
    answers = [m for _, m in a.take() if isinstance(m, SnapshotReply)]
    assert [m.received for m in answers] == [1, 2, 3, 4]
    assert not any(m.installed_index for m in answers)


def test_two_streams_of_snapshots_are_never_spliced(member: Make, tmp_path: Path) -> None:
    """S15: the rest of another stream, after a reconnect."""
    a = member()
    one, two = (snapshot_pieces(tmp_path, stream, [b"%d" % stream] * 2) for stream in (7, 8))
    for piece in (one[0], one[1], two[2], two[3]):
        a.hear("b", piece)
    assert a.installing is None


SCRIPTS: dict[str, Callable[..., None]] = {
    "bound_commit": test_a_commit_index_without_a_match_commits_nothing,
    "keep_matching_tail": test_a_late_append_cuts_nothing_that_was_acknowledged,
    "match_reply_terms": test_an_acknowledgement_of_an_earlier_leadership_does_not_count,
    "limit_under_way": test_what_is_under_way_to_a_silent_follower_is_bounded,
    "ignore_late_rewinds": test_a_late_rewind_does_not_move_the_leader_back_again,
    "rewind_to_committed": test_one_rewind_reaches_behind_a_divergent_tail,
    "hold_to_acknowledged": test_who_loses_what_it_acknowledged_is_not_believed_again,
    "count_votes_once": test_a_vote_counts_once_however_often_it_arrives,
    "members_only": test_a_newer_term_of_a_stranger_ends_nothing,
    "refuse_removed": partial(
        test_who_was_removed_is_neither_followed_nor_elected_nor_answered, word=VoteRequest(7, 99, 6)
    ),
    "answer_old_terms": test_an_older_term_is_told_the_newer_one,
    "adopt_newer_terms": partial(test_a_newer_term_ends_leadership, answer=HeartbeatReply(7, 0)),
    "check_quorum": test_a_leader_that_hears_no_majority_gives_up,
    "pre_vote": test_nobody_stands_before_a_majority_would_vote_for_it,
    "sticky_leader": test_a_leader_that_is_heard_is_not_deposed,
    "wait_for_disk": test_an_acknowledgement_waits_for_the_disk,
    "count_own_copy_when_durable": test_the_leader_does_not_count_what_is_not_on_its_own_disk,
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_red_without_its_rule(member: Make, name: str) -> None:
    with pytest.raises((AssertionError, ValueError)):
        SCRIPTS[name](partial(member, rules=replace(ALL_RULES, **{name: False})))


@pytest.mark.parametrize(
    ("name", "script"),
    [
        ("restore_before_answer", test_a_received_snapshot_is_not_called_installed_before_it_is),
        ("number_pieces", test_two_streams_of_snapshots_are_never_spliced),
    ],
)
def test_a_snapshot_script_is_red_without_its_rule(
    member: Make, tmp_path: Path, name: str, script: Callable[..., None]
) -> None:
    with pytest.raises(AssertionError):
        script(partial(member, rules=replace(ALL_RULES, **{name: False})), tmp_path)


def test_the_news_of_a_commit_travels_with_the_next_entry_or_a_moment_later(member: Make) -> None:
    a = member()
    a.elect("b", "c")
    a.take()
    a.propose(b"x")
    index = a.journal.last_index
    (sent,) = a.appends("b")
    a.take()
    a.sync()
    a.hear("b", AppendReply(1, sent.sequence, index + 1, is_success=True))
    a.tick()
    assert a.core.raftCommitIndex == index
    assert a.guard.has_news
    a.guard.tell_news(a.now)
    assert a.appends("b") == [], "not a message of its own while the next entry may come"
    a.now += COMMIT_NEWS_SECONDS * 1.1
    a.guard.tell_news(a.now)
    (news,) = a.appends("b")
    assert (news.commit, news.entries) == (index, ())
    assert not a.guard.has_news
    a.take()
    a.propose(b"y")
    (entry,) = a.appends("b")
    assert (entry.commit, len(entry.entries)) == (index, 1)
    a.sync()
    a.hear("b", AppendReply(1, entry.sequence, index + 2, is_success=True))
    a.tick()
    a.propose(b"z")
    a.guard.tell_news(a.now)
    told = a.appends("b")[-1]
    assert (told.commit, len(told.entries)) == (index + 1, 1)
    assert len(a.appends("b")) == 2, "an entry has told of it: it needs no message of its own"
