"""What a leader does with its followers: appends out, answers in, heartbeats to who may not be sent to.

The core keeps the next index of each follower; what it believes is told to it from here, as answers in its own form.
What is known of one follower, and what of its answers counts: progress.py.
"""

from typing import Any

from pyswarm.manager.raft.codec import AppendReply, Heartbeat, HeartbeatReply, Message, SnapshotReply
from pyswarm.manager.raft.core import RaftNode
from pyswarm.manager.raft.exchange import Exchange
from pyswarm.manager.raft.membership import majority
from pyswarm.manager.raft.progress import Progress
from pyswarm.manager.raft.snapshot_traffic import SnapshotFeed


class Leading:
    def __init__(self, exchange: Exchange, feed: SnapshotFeed) -> None:
        self._exchange = exchange
        self._feed = feed
        self._round = 0

    # -- taking up and laying down office

    def elected(self) -> None:
        for raft_id in self._exchange.nodes:
            self.add(raft_id)
        self._exchange.show_linked()

    def add(self, raft_id: str) -> None:
        self._exchange.progress[raft_id] = Progress(self._exchange.now, rules=self._exchange.rules)

    def drop(self, raft_id: str) -> None:
        progress = self._exchange.progress.pop(raft_id, None)
        if progress is not None:
            progress.link_lost()

    def resign(self) -> None:
        for raft_id in list(self._exchange.progress):
            self.drop(raft_id)

    # -- rounds of heartbeats, which reads wait for

    def begin_round(self) -> int:
        """Ask every follower for a sign of life; return the number that `confirmed_round` must reach."""
        self._round += 1
        for raft_id, progress in self._exchange.progress.items():
            self._ask(raft_id, progress)
        return self._round

    @property
    def confirmed_round(self) -> int:
        """The last round that a majority has answered: when it was begun, this member was still the leader."""
        answered = sorted((self._round, *(p.round for p in self._exchange.progress.values())), reverse=True)
        return answered[majority(len(answered)) - 1]

    def hears_majority(self, seconds: float, now: float) -> bool:
        """Whether a majority, this member included, said something within the last `seconds`."""
        heard = 1
        for progress in self._exchange.progress.values():
            if now - progress.heard_at <= seconds:
                heard += 1
        return heard >= majority(len(self._exchange.progress) + 1)

    # -- what leaves

    def send_append(self, raft_id: str, message: dict[str, Any]) -> None:
        """Translate the core's append; rule `limit_under_way` (S16) hides a follower whose window is full."""
        exchange = self._exchange
        progress = exchange.progress[raft_id]
        if "serialized" in message:
            self._feed.begin(raft_id, progress)
            self._ask(raft_id, progress)
            return
        assert "transmission" not in message, "no entry is larger than a batch"
        if not progress.under_way:
            progress.answered_at = exchange.now
        append = progress.next_append(
            message["term"],
            message["commit_index"],
            (message["prevLogIdx"], message["prevLogTerm"]),
            tuple(message["entries"]),
            now=exchange.now,
        )
        exchange.post(raft_id, append)
        if progress.is_window_full:
            exchange.hide(raft_id)

    @property
    def has_news(self) -> bool:
        """Whether a follower that may be sent to is still to be told of a commit."""
        exchange = self._exchange
        committed = exchange.core.raftCommitIndex
        return any(p.told_commit < committed and id in exchange.shown for id, p in exchange.progress.items())

    def tell_news(self) -> None:
        """Tell of what is committed whom no entry has told meanwhile."""
        exchange = self._exchange
        committed = exchange.core.raftCommitIndex
        if any(p.lacks_news(committed, exchange.now) and id in exchange.shown for id, p in exchange.progress.items()):
            exchange.core.send_appends()

    def tend(self) -> None:
        """Keep those followers awake that the core may not send to at present, and ask those that do not answer.

        The answer to an append waits for the follower's disk. One whose disk stalls lives all the same, and says so
        when it is asked: a slow disk costs no leadership.
        """
        exchange = self._exchange
        for raft_id, progress in exchange.progress.items():
            if raft_id not in exchange.linked:
                continue
            self._feed.go_on(raft_id, progress)
            if progress.is_unanswered(exchange.now):
                progress.link_lost()
            is_fed = raft_id in exchange.shown
            silent_since = max(progress.asked_at, progress.heard_at) if is_fed else progress.asked_at
            if exchange.now - silent_since >= exchange.settings.heartbeat_seconds * (2 if is_fed else 1):
                self._ask(raft_id, progress)
            exchange.show(raft_id)

    def _ask(self, raft_id: str, progress: Progress) -> None:
        progress.asked_at = self._exchange.now
        self._exchange.post(raft_id, Heartbeat(self._exchange.term, self._round))

    # -- what comes back

    def on_answer(self, node: RaftNode, message: Message) -> bool:
        """Return whether the core must be ticked for it: not for the last of several members that hold an entry."""
        exchange = self._exchange
        progress = exchange.progress[node.id]
        was_shown = node.id in exchange.shown
        progress.heard_at = exchange.now
        rewind = None
        if isinstance(message, AppendReply):
            progress.answered_at = exchange.now
            rewind = progress.answered(message)
        elif isinstance(message, HeartbeatReply):
            progress.round = max(progress.round, message.round)
            if progress.snapshot is not None:
                progress.snapshot.heard(exchange.now)
        elif isinstance(message, SnapshotReply):
            self._feed.answered(node.id, progress, message)
        is_told = self._report_match(node, progress)
        if rewind is not None or not is_told:
            # Any answer keeps the leader in office (check quorum), and a rewind says where to go on from.
            next_index = progress.match + 1 if rewind is None else rewind
            self._tell_core(node, next_index, is_rewind=rewind is not None)
        exchange.show(node.id)
        is_news = not isinstance(message, AppendReply) or rewind is not None or not was_shown
        return is_news or progress.reported > exchange.committed

    @property
    def may_commit(self) -> bool:
        committed = self._exchange.committed
        return any(progress.reported > committed for progress in self._exchange.progress.values())

    def report_matches(self) -> None:
        """The own disk has come further: entries that waited for it only may count now."""
        for raft_id, progress in list(self._exchange.progress.items()):
            self._report_match(self._exchange.nodes[raft_id], progress)

    def _report_match(self, node: RaftNode, progress: Progress) -> bool:
        """Rule `count_own_copy_when_durable` (S14): tell the core what a follower holds, up to what is durable here.

        Return whether that was anything new.

        The core counts its own copy always. As long as it hears of no follower ahead of our disk, it commits
        nothing that is not on ours as well.
        """
        match = progress.match
        if self._exchange.rules.count_own_copy_when_durable:
            match = min(match, self._exchange.journal.durable_index)
        if match <= progress.reported:
            return False
        progress.reported = match
        self._tell_core(node, match + 1, is_success=True)
        return True

    def _tell_core(self, node: RaftNode, next_index: int, *, is_rewind: bool = False, is_success: bool = False) -> None:
        answer = {"type": "next_node_idx", "next_node_idx": next_index, "reset": is_rewind, "success": is_success}
        self._exchange.deliver(node, answer)
