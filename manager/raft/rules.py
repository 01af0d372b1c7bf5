"""The repairs around the consensus core, each with a switch, so that a test can prove that it is needed.

PySyncObj 0.3.17 breaks the Raft paper in known ways; every repair that is a decision of ours has one name here. All
are in force always: `RaftEngine.open` refuses anything else. Only simulations and scripts build a member with one
switched off, and expect it to lose writes, to stall or to be disturbed. Values only; read by the modules named below.

Repairs that have no switch, because they are a way of building and not a decision (with the test that holds them):

    S6, S9   segments and snapshots on disk, pwrite and fallocate instead of a mapping    test_wal.py, test_journal.py
    S7       no entry is larger than the core's batch, so it never cuts one in pieces     test_core_pinned.py
    S8       one replicated call; what raises in it stops the member                      test_group.py
    S10      nothing is pickled: messages and commands are our own msgpack                test_core_pinned.py
    -        a stored commit index beyond the log says nothing                            test_journal.py
    -        one entry carries all that waits; no fork; nothing is polled                 test_core_pinned.py
"""

from msgspec import Struct


class Rules(Struct, frozen=True, kw_only=True):
    """True: the repair is in force. The labels S1 to S17 are those of the defects as docs/reference/consensus.md
    lists them."""

    # -- entries (following.py, appends.py, progress.py)

    bound_commit: bool = True
    """S1: a follower commits no further than the entries the message showed to be the leader's."""

    keep_matching_tail: bool = True
    """S2: an append is reduced to what is new; the log is cut only where an entry differs."""

    match_reply_terms: bool = True
    """S4: an acknowledgement of an earlier leadership does not count."""

    limit_under_way: bool = True
    """S16: what is under way to one follower is limited."""

    ignore_late_rewinds: bool = True
    """S17: a rewind asked for before the leader went back does not move it again."""

    rewind_to_committed: bool = True
    """S17: a follower whose log differs asks for all behind its commit index, not for one step back."""

    hold_to_acknowledged: bool = True
    """A follower is never rewound behind what it acknowledged: who lost that is not believed again."""

    # -- elections and terms (electing.py, elections.py, terms.py)

    count_votes_once: bool = True
    """S3: a vote counts once per voter and candidacy."""

    members_only: bool = True
    """Answers and votes of who is not a member do not count."""

    refuse_removed: bool = True
    """Who was removed is not listened to, and its raft id is never a member again."""

    answer_old_terms: bool = True
    """Who speaks in an older term is told the newer one."""

    adopt_newer_terms: bool = True
    """A newer term in any answer makes a leader or candidate step down."""

    check_quorum: bool = True
    """A leader that hears no majority for `quorum_lost_seconds` stops leading."""

    pre_vote: bool = True
    """Nobody stands for election before a majority would vote for it."""

    sticky_leader: bool = True
    """Who hears a leader does not help to depose it, unless the leader hands over."""

    # -- the disk (gate.py, leading.py)

    wait_for_disk: bool = True
    """S14: votes, acknowledgements and candidacies leave only when what they promise is durable."""

    count_own_copy_when_durable: bool = True
    """S14: the leader counts its own copy of an entry only when that is durable."""

    # -- snapshots (following.py, install.py)

    restore_before_answer: bool = True
    """S11: a received snapshot is acknowledged when it is restored and durable, not before."""

    number_pieces: bool = True
    """S15: pieces of a snapshot are taken only in their order within one stream."""

    # -- members, proposals, reads (roster.py, state.py, proposals.py, reads.py)

    one_change_at_a_time: bool = True
    """S5: no change of members while an earlier one is not committed."""

    members_from_log: bool = True
    """S12: after a restart, changes of members in the log are in force, committed or not."""

    unknown_when_deposed: bool = True
    """S13: a proposal under way when leadership is lost has an unknown outcome; it is not called refused."""

    confirm_reads: bool = True
    """A read waits until a majority has confirmed that this member still leads."""

    ready_before_reads: bool = True
    """A fresh leader answers reads only after an entry of its own term is committed and applied."""


ALL_RULES = Rules()


def broken(rules: Rules) -> tuple[str, ...]:
    """Return the names of the rules that are switched off."""
    return tuple(name for name in rules.__struct_fields__ if not getattr(rules, name))
