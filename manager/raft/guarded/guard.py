"""Make PySyncObj follow the paper: what may go out, what may come in, and when (docs: the defects S1-S17 it repairs).

The core's Transport is the one place that sees every message. `Guard` sits there: it stamps outgoing messages, holds those that
promise durability until the journal is synced, rewrites or drops incoming ones, and lets the core stand for election only
when a majority would vote for it (pre-vote). It has no clock, socket or disk of its own: the engine hands all three in.
"""

import itertools
from collections.abc import Callable
from typing import Any, Protocol

from pysyncobj.node import Node
from pysyncobj.transport import Transport

from pyswarm.manager.raft.guarded.journal import SealedJournal
from pyswarm.proto.log import get_logger

log = get_logger(__name__)

Message = dict[str, Any]

PROMISES = frozenset({"request_vote", "response_vote", "next_node_idx"})
"""What others count on surviving our crash: leaves only after the journal was synced."""

FORWARDED = frozenset({"apply_command", "apply_command_response"})
"""Forwarding happens at the RPC level, once; never here (repairs S13)."""


class Core(Protocol):
    """What the guard needs of PySyncObj: public and single-underscore parts only."""

    @property
    def raftCurrentTerm(self) -> int: ...
    @property
    def raftCommitIndex(self) -> int: ...
    @property
    def otherNodes(self) -> set[Node]: ...
    def _isLeader(self) -> bool: ...
    def _getLeader(self) -> Node | None: ...


class InvariantBroken(AssertionError):
    """Something that Raft rules out has happened: this member must stop taking part."""


class Guard(Transport):  # type: ignore[misc]
    """The Transport of one core. `deliver` takes what the network brought; `outbox` is what it shall carry."""

    def __init__(self, core: Core, self_node: Node, other_nodes: set[Node]) -> None:
        super().__init__(core, self_node, other_nodes)
        settings = core.conf  # type: ignore[attr-defined]
        self._core = core
        self._self = self_node
        self._journal: SealedJournal = settings.journalFile
        self._silence_seconds: float = settings.raftMinTimeout
        self._now: Callable[[], float] = settings.guard_clock
        self._on_membership: Callable[[], None] = settings.guard_on_membership
        self.outbox: list[tuple[str, Message, bool]] = []
        self._up: set[str] = set()
        self._gate_is_open = False
        self._in_core: set[str] = set()
        self._heard_leader_at = float("-inf")
        self._prevote_round = 0
        self._prevotes: set[str] = set()
        self._prevote_at = float("-inf")
        self._votes: dict[int, set[str]] = {}
        self._transfers = False
        self._sequence = itertools.count(1)
        self._sent: dict[str, int] = {}
        self._rewound: dict[str, int] = {}
        self._reply: tuple[int, int] | None = None
        self._stream_out: dict[str, tuple[int, int]] = {}
        self._stream_in: tuple[int, int] | None = None
        self._starved: set[str] = set()
        self._pings: dict[int, set[str]] = {}

    # -- what the core calls

    @property
    def ready(self) -> bool:
        return True

    def tryGetReady(self) -> None:
        """There is nothing to wait for."""

    def waitReady(self) -> None:
        """There is nothing to wait for."""

    def addNode(self, node: Node) -> None:
        self._on_membership()

    def dropNode(self, node: Node) -> None:
        self._tell_core_down(node.id)
        self._on_membership()

    def destroy(self) -> None:
        self.outbox.clear()

    def send(self, node: Node, message: Message) -> bool:
        kind = message["type"]
        if kind in FORWARDED:
            return False
        sent = {**message, "from_term": self._core.raftCurrentTerm}
        if kind == "append_entries":
            if not self._stamp_append(node, sent):
                return True
        elif kind == "request_vote":
            sent["xfer"] = self._transfers
        elif kind == "next_node_idx":
            self._correct_reply(sent)
        self.outbox.append((node.id, sent, kind in PROMISES))
        return True

    def _stamp_append(self, node: Node, sent: Message) -> bool:
        """Number an append, so that its answer can be matched to it; return False when it is not to be sent."""
        number = next(self._sequence)
        self._sent[node.id] = number
        sent["seq"] = number
        if "serialized" in sent:
            chunk = sent["serialized"]
            if not chunk:
                # The snapshot is still being written: one empty append keeps the follower quiet, then the core
                # must leave its loop, which only a lost connection makes it do (repairs S16).
                self._starved.add(node.id)
                self._onNodeDisconnected(node)
                return True
            _, is_first, _ = chunk
            stream, position = self._stream_out.get(node.id, (0, 0))
            stream, position = (number, 0) if is_first else (stream, position + 1)
            self._stream_out[node.id] = (stream, position)
            sent["stream"] = [stream, position]
        return True

    def _correct_reply(self, sent: Message) -> None:
        """Say what was really matched, not what the core made of the append that it was shown."""
        if self._reply is None:
            return
        sent["seq"], matched = self._reply
        if sent["success"]:
            if matched >= 0:
                sent["next_node_idx"] = matched + 1
        elif sent["reset"]:
            # What is committed matches for certain: the leader need not go back one by one (S17).
            sent["next_node_idx"] = min(sent["next_node_idx"], self._journal.last_index + 1)
            if sent["next_node_idx"] <= self._journal.last_index:
                sent["next_node_idx"] = self._core.raftCommitIndex + 1

    # -- what the engine tells

    def link_up(self, raft_id: str) -> None:
        self._up.add(raft_id)
        if self._gate_is_open or self._core._isLeader():
            self._tell_core_up(raft_id)

    def link_down(self, raft_id: str) -> None:
        self._up.discard(raft_id)
        self._tell_core_down(raft_id)

    def state_changed(self, *, is_leader: bool, is_candidate: bool) -> None:
        """The core became leader (before its first append), candidate (before its requests), or follower."""
        # A transfer lasts through the candidacy that it was for: its requests must say so.
        self._transfers = self._transfers and is_candidate
        self._reply = None
        self._sent.clear()
        self._rewound.clear()
        self._stream_out.clear()
        if is_leader:
            self._open_gate()
        else:
            self._close_gate()

    def before_tick(self) -> None:
        """Reconnect what was starved for a tick, and ask for votes ahead of time when no leader is heard."""
        for raft_id in sorted(self._starved):
            self._in_core.discard(raft_id)
            if self._core._isLeader() and raft_id in self._up:
                self._tell_core_up(raft_id)
        self._starved.clear()
        now = self._now()
        if self._core._isLeader() or self._gate_is_open or not self._members():
            return
        if now - self._heard_leader_at < self._silence_seconds or now - self._prevote_at < self._silence_seconds / 2:
            return
        self._ask_ahead(now)

    def silence_seconds(self) -> float:
        """Return how long no leader was heard of."""
        return self._now() - self._heard_leader_at

    def reachable(self) -> frozenset[str]:
        return frozenset(self._up) | {self._self.id}

    def ping_all(self) -> int:
        """Ask every member whether we still lead; `confirmed` tells when a majority said so."""
        number = next(self._sequence)
        self._pings = {n: who for n, who in self._pings.items() if n > number - 1000}
        self._pings[number] = {self._self.id}
        for raft_id in self._members():
            self._post(raft_id, {"type": "ping", "seq": number})
        return number

    def confirmed(self, number: int) -> bool:
        return self._is_majority(self._pings.get(number, set()))

    # -- election ahead of time

    def _ask_ahead(self, now: float) -> None:
        self._prevote_at = now
        self._prevote_round = next(self._sequence)
        self._prevotes = {self._self.id}
        for raft_id in self._members():
            self._post(raft_id, {"type": "pre_vote", "seq": self._prevote_round, **self._log_end()})
        if self._is_majority(self._prevotes):
            self._open_gate()

    def _log_end(self) -> Message:
        return {"last_log_index": self._journal.last_index, "last_log_term": self._journal[-1][2]}

    def _open_gate(self) -> None:
        self._gate_is_open = True
        for raft_id in sorted(self._up & self._members()):
            self._tell_core_up(raft_id)

    def _close_gate(self) -> None:
        self._gate_is_open = False
        for raft_id in sorted(self._in_core):
            self._tell_core_down(raft_id)

    def _tell_core_up(self, raft_id: str) -> None:
        if raft_id in self._members() and raft_id not in self._in_core:
            self._in_core.add(raft_id)
            self._onNodeConnected(Node(raft_id))

    def _tell_core_down(self, raft_id: str) -> None:
        if raft_id in self._in_core:
            self._in_core.discard(raft_id)
            self._onNodeDisconnected(Node(raft_id))

    def _members(self) -> set[str]:
        return {node.id for node in self._core.otherNodes}

    def _is_majority(self, who: set[str]) -> bool:
        voters = self._members() | {self._self.id}
        return len(who & voters) * 2 > len(voters)

    def _post(self, raft_id: str, message: Message, *, promises: bool = False) -> None:
        self.outbox.append((raft_id, {**message, "from_term": self._core.raftCurrentTerm}, promises))

    # -- what the network brings

    def deliver(self, raft_id: str, message: Message) -> None:
        """Judge a message of an authenticated manager, and show the core what it may see of it."""
        kind = message.get("type")
        term = message.get("from_term", 0)
        is_member = raft_id in self._members()
        handler = {
            "append_entries": self._on_append,
            "next_node_idx": self._on_answer,
            "request_vote": self._on_request_vote,
            "response_vote": self._on_vote,
            "pre_vote": self._on_pre_vote,
            "pre_vote_granted": self._on_pre_vote_granted,
            "timeout_now": self._on_timeout_now,
            "term_notice": self._on_term_notice,
            "ping": self._on_ping,
            "pong": self._on_pong,
        }.get(str(kind))
        if handler is None:
            log.warning("unknown message dropped", kind=kind, peer=raft_id)
            return
        # A leader that this member does not know of yet may be heard; everything else is for members alone.
        if not is_member and kind not in ("append_entries", "ping"):
            return
        handler(raft_id, message, term)

    def _on_append(self, raft_id: str, message: Message, term: int) -> None:
        if term < self._core.raftCurrentTerm:
            self._post(raft_id, {"type": "term_notice"})
            return
        self._heard_leader_at = self._now()
        self._close_gate_unless_transferring()
        if "prevLogIdx" in message:
            shown, matched = self._normalised(message)
        else:
            shown, matched = self._snapshot_chunk(message), -1
        if shown is None:
            return
        self._reply = (message["seq"], matched)
        try:
            self._onMessageReceived(Node(raft_id), shown)
        finally:
            self._reply = None

    def _close_gate_unless_transferring(self) -> None:
        if self._gate_is_open and not self._transfers and not self._core._isLeader():
            self._close_gate()

    def _normalised(self, message: Message) -> tuple[Message, int]:
        """Return the append as the core can be shown it without harm, and the last index that really matches.

        The core truncates after prevLogIdx even where the entries agree; so it is shown only the new suffix (S2).
        """
        journal, commit = self._journal, self._core.raftCommitIndex
        previous, previous_term = message["prevLogIdx"], message["prevLogTerm"]
        entries = list(message["entries"])
        if previous < journal.first_index:
            # Those entries are in our snapshot, hence committed, hence the same.
            entries = [e for e in entries if e[1] > journal.first_index]
            previous, previous_term = journal.first_index, journal.term_at(journal.first_index)
            if entries and entries[0][1] != previous + 1:
                entries = []
        here = journal.term_at(previous)
        if here is None or here != previous_term:
            return {**message, "commit_index": min(message["commit_index"], commit)}, -1
        while entries and journal.term_at(entries[0][1]) == entries[0][2]:
            previous, previous_term = entries[0][1], entries[0][2]
            entries.pop(0)
        matched = entries[-1][1] if entries else previous
        if entries and entries[0][1] <= journal.last_index and entries[0][1] <= commit:
            raise InvariantBroken(f"the leader would take back committed entry {entries[0][1]}")
        if not entries:
            previous, previous_term = journal.last_index, journal[-1][2]
        shown = {
            **message,
            "prevLogIdx": previous,
            "prevLogTerm": previous_term,
            "entries": entries,
            "commit_index": max(commit, min(message["commit_index"], matched)),
        }
        return shown, matched

    def _snapshot_chunk(self, message: Message) -> Message | None:
        """Let through the chunks of one stream in order (S15), and no claim about what is committed (S1)."""
        shown = {**message, "commit_index": self._core.raftCommitIndex}
        if not message["serialized"]:
            return shown
        stream, position = message["stream"]
        if position == 0:
            self._stream_in = (stream, 0)
        elif self._stream_in != (stream, position - 1):
            return None
        else:
            self._stream_in = (stream, position)
        return shown

    def _on_answer(self, raft_id: str, message: Message, term: int) -> None:
        """Count an answer only for what was sent in this term, and a rewind only once (S4, S17)."""
        if term > self._core.raftCurrentTerm:
            self._step_down(raft_id, term)
            return
        if term < self._core.raftCurrentTerm or not self._core._isLeader():
            return
        number = message.get("seq", 0)
        if message["reset"]:
            if number <= self._rewound.get(raft_id, 0):
                return
            self._rewound[raft_id] = self._sent.get(raft_id, 0)
        self._onMessageReceived(Node(raft_id), message)

    def _on_request_vote(self, raft_id: str, message: Message, term: int) -> None:
        """A member that hears its leader does not let another one stand, unless the leader wished it."""
        if not message.get("xfer") and (self._core._isLeader() or self._hears_leader()):
            return
        self._onMessageReceived(Node(raft_id), message)

    def _hears_leader(self) -> bool:
        return self._now() - self._heard_leader_at < self._silence_seconds

    def _on_vote(self, raft_id: str, message: Message, term: int) -> None:
        """A voter counts once a term (S3)."""
        if message["term"] != self._core.raftCurrentTerm:
            return
        self._votes = {t: who for t, who in self._votes.items() if t >= message["term"]}
        voters = self._votes.setdefault(message["term"], set())
        if raft_id not in voters:
            voters.add(raft_id)
            self._onMessageReceived(Node(raft_id), message)

    def _on_pre_vote(self, raft_id: str, message: Message, term: int) -> None:
        up_to_date = (message["last_log_term"], message["last_log_index"]) >= (
            self._journal[-1][2],
            self._journal.last_index,
        )
        if up_to_date and not self._core._isLeader() and not self._hears_leader():
            self._post(raft_id, {"type": "pre_vote_granted", "seq": message["seq"]})
        elif term < self._core.raftCurrentTerm:
            self._post(raft_id, {"type": "term_notice"})

    def _on_pre_vote_granted(self, raft_id: str, message: Message, term: int) -> None:
        if message["seq"] != self._prevote_round or self._hears_leader():
            return
        self._prevotes.add(raft_id)
        if self._is_majority(self._prevotes):
            self._open_gate()

    def _on_timeout_now(self, raft_id: str, message: Message, term: int) -> None:
        leader = self._core._getLeader()
        if leader is not None and leader.id == raft_id and term == self._core.raftCurrentTerm:
            self._transfers = True
            self._open_gate()
            self._onMessageReceived(Node(raft_id), message)

    def _on_term_notice(self, raft_id: str, message: Message, term: int) -> None:
        if term > self._core.raftCurrentTerm:
            self._step_down(raft_id, term)

    def _step_down(self, raft_id: str, term: int) -> None:
        """Have the core take up a higher term: a vote request that nobody could grant does just that."""
        unwinnable = {"type": "request_vote", "term": term, "last_log_term": -1, "last_log_index": 0}
        self._onMessageReceived(Node(raft_id), unwinnable)

    def _on_ping(self, raft_id: str, message: Message, term: int) -> None:
        if term == self._core.raftCurrentTerm and not self._core._isLeader():
            leader = self._core._getLeader()
            if leader is not None and leader.id == raft_id:
                self._post(raft_id, {"type": "pong", "seq": message["seq"]})
        elif term < self._core.raftCurrentTerm:
            self._post(raft_id, {"type": "term_notice"})

    def _on_pong(self, raft_id: str, message: Message, term: int) -> None:
        if term == self._core.raftCurrentTerm and message["seq"] in self._pings:
            self._pings[message["seq"]].add(raft_id)
