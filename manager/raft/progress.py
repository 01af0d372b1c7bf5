"""What a leader knows of one follower, for one term of leadership.

Three things the core lacks: numbered appends, so that a late answer cannot rewind what was sent since; a limit on
what is under way; and what was sent already, because the core sends everything behind an acknowledgement again.
"""

from collections import deque
from dataclasses import dataclass, field

from pyswarm.manager.raft.codec import Append, AppendReply, Entry
from pyswarm.manager.raft.install import SnapshotSender
from pyswarm.manager.raft.rules import ALL_RULES, Rules

WINDOW_BYTES = 16 * 1024 * 1024
"""Entries under way to one follower, beyond which it is sent no more until it answers."""


WINDOW_APPENDS = 4096
"""Appends under way to one follower, however small: the heartbeats of a follower that has stopped are appends too."""

UNANSWERED_SECONDS = 5.0
"""A full window without an answer for this long: the answers are lost (a link lives one way), so begin anew."""

COMMIT_NEWS_SECONDS = 0.005
"""How long the news that entries are committed may wait for the next entry to travel with. Under load there always is
one, and each write costs a follower one message instead of two."""


@dataclass
class Progress:
    heard_at: float
    """When it last answered, on the monotonic clock."""
    sequence: int = 0
    rewound_at: int = 0
    """Rewinds asked for in answer to appends up to this one are late: the leader has gone back since."""
    sent_to: int = 0
    """The last index that is on its way, if nothing is lost."""
    match: int = 0
    """The follower holds everything up to here, durably."""
    reported: int = 0
    """What of `match` the core was told."""
    round: int = 0
    """The last round of heartbeats it answered."""
    asked_at: float = 0.0
    rules: Rules = ALL_RULES
    snapshot: SnapshotSender | None = None
    answered_at: float = 0.0
    """When it last answered an append, or when the first of those under way was sent."""
    under_way: deque[tuple[int, int]] = field(default_factory=deque)
    under_way_bytes: int = 0
    sent_at: float = -1.0
    """When it was last sent an append."""
    told_commit: int = 0
    """The newest commit index it was sent."""

    @property
    def may_be_sent_to(self) -> bool:
        return self.snapshot is None and not self.is_window_full

    @property
    def is_window_full(self) -> bool:
        is_full = self.under_way_bytes > WINDOW_BYTES or len(self.under_way) > WINDOW_APPENDS
        return is_full and self.rules.limit_under_way

    def is_unanswered(self, now: float) -> bool:
        return self.is_window_full and now - self.answered_at > UNANSWERED_SECONDS

    def lacks_news(self, committed: int, now: float) -> bool:
        """Whether it has not been told of all that is committed, and no append that could have is just on its way."""
        return self.told_commit < committed and now - self.sent_at >= COMMIT_NEWS_SECONDS

    def next_append(
        self, term: int, commit: int, prev: tuple[int, int], entries: tuple[Entry, ...], *, now: float
    ) -> Append:
        """Return the append to send, without the entries that are under way already."""
        self.sent_at = now
        self.told_commit = max(self.told_commit, commit)
        if entries and entries[0][1] <= self.sent_to:
            skipped = entries[: self.sent_to - entries[0][1] + 1]
            prev = (skipped[-1][1], skipped[-1][2])
            entries = entries[len(skipped) :]
        self.sequence += 1
        size = sum(len(entry[0]) for entry in entries)
        if entries:
            self.sent_to = entries[-1][1]
        self.under_way.append((self.sequence, size))
        self.under_way_bytes += size
        return Append(term, self.sequence, commit, prev[0], prev[1], entries)

    def answered(self, reply: AppendReply) -> int | None:
        """Take note of an answer; return from where to go on when it asks for a rewind that is not late."""
        while self.under_way and self.under_way[0][0] <= reply.sequence:
            self.under_way_bytes -= self.under_way.popleft()[1]
        if reply.is_success:
            self.match = max(self.match, reply.next_index - 1)
            return None
        if self.rules.ignore_late_rewinds and reply.sequence <= self.rewound_at:
            return None
        # Never behind what it acknowledged: a member that lost acknowledged entries must not be believed again.
        next_index = max(reply.next_index, self.match + 1) if self.rules.hold_to_acknowledged else reply.next_index
        self.rewound_at = self.sequence
        self.sent_to = next_index - 1
        return next_index

    def link_lost(self) -> None:
        """What was under way may be gone."""
        self.under_way.clear()
        self.under_way_bytes = 0
        self.sent_to = self.match
        if self.snapshot is not None:
            self.snapshot.close()
            self.snapshot = None
