"""One member without disk, network or time: the real core behind the real guard, told what happens line by line."""

from pathlib import Path

import pysyncobj.syncobj as syncobj
import pytest

from pyswarm.manager.raft.codec import (
    Append,
    Entry,
    HeartbeatReply,
    Message,
    PreVote,
    PreVoteRequest,
    Vote,
    VoteRequest,
)
from pyswarm.manager.raft.commands import (
    MEMBERSHIP,
    NOOP_COMMAND,
    MemberChange,
    decode_batch,
    encode_batch,
    encode_change,
)
from pyswarm.manager.raft.core import Core, RaftNode, core_configuration
from pyswarm.manager.raft.guard import Guard
from pyswarm.manager.raft.journal import Journal
from pyswarm.manager.raft.port import Member
from pyswarm.manager.raft.rules import ALL_RULES, Rules
from pyswarm.manager.raft.settings import RaftSettings
from pyswarm.manager.raft.snapshots import SnapshotHeader, SnapshotStore, SnapshotWriter
from pyswarm.manager.sealing.sealer import Sealer
from pyswarm.proto.entropy import SeededEntropy


def member_named(name: str) -> Member:
    return Member(name, f"node-{name}", f"{name}:7946", f"{name}:2377")


def command(text: bytes) -> bytes:
    return b"\x00" + encode_batch([text])


class ScriptedMember:
    """Member "a". What it sends is kept in `sent`; nothing is durable before `sync`; time moves with `wait`."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        directory: Path,
        others: str = "bc",
        log: list[Entry] | None = None,
        rules: Rules = ALL_RULES,
    ) -> None:
        self.now = 100.0
        monkeypatch.setattr(syncobj, "monotonicTime", lambda: self.now)
        self.sent: list[tuple[str, Message]] = []
        self.applied: list[tuple[int, bytes]] = []
        self.dropped: list[str] = []
        self.removed: set[str] = set()
        self.installing: SnapshotHeader | None = None
        self.settings = RaftSettings(rules=rules)
        self.journal = Journal()
        for entry in [(NOOP_COMMAND, 1, 0), *(log or [])]:
            self.journal.add(*entry)
        if log:
            self.journal.setCurrentTerm(max(term for _, _, term in log), None)
        self.sync_journal()
        nodes = [RaftNode(member_named(name)) for name in others]
        self.guard = Guard(
            own_id="a",
            nodes=nodes,
            journal=self.journal,
            network=self,
            host=self,
            snapshots=SnapshotStore(directory, Sealer(b"d" * 32)),
            settings=self.settings,
            now=self.now,
            entropy=SeededEntropy(1),
        )
        configuration = core_configuration(
            settings=self.settings,
            journal=self.journal,
            marker=str(directory / "no-marker"),
            serializer=lambda path, data: None,
            serialize_checker=lambda: 0,
            deserializer=lambda path: None,
            on_state_changed=lambda old, new: self.guard.state_changed(new),
        )
        self.core = Core(member_named("a"), nodes, configuration=configuration, transport=self.guard, apply=self._apply)
        self.guard.attach(self.core)
        self.guard.durable(self.now)
        for name in others:
            self.guard.link_up(name)

    named = staticmethod(member_named)

    @staticmethod
    def change(change: MemberChange) -> bytes:
        """Return the log's command for a membership change."""
        return bytes([MEMBERSHIP]) + encode_change(change)

    # -- what happens to it

    def hear(self, sender: str, message: Message) -> None:
        self.guard.receive(member_named(sender), message, self.now)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.tick()

    def tick(self) -> None:
        self.guard.tick(self.now)
        self.core.doTick(0.0)

    def sync(self) -> None:
        self.sync_journal()
        self.guard.durable(self.now)

    def sync_journal(self) -> None:
        self.journal.mark_durable(self.journal.take())

    def elect(self, *voters: str) -> None:
        """Bring it to leadership with the votes of `voters`, its first entry durable."""
        self.wait(2.0)
        (canvass,) = {m for _, m in self.take() if isinstance(m, PreVoteRequest)}
        for voter in voters:
            self.hear(voter, PreVote(canvass.term, is_granted=True))
        self.tick()
        self.sync()
        (request,) = {m for _, m in self.take() if isinstance(m, VoteRequest)}
        for voter in voters:
            self.hear(voter, Vote(request.term))
        assert self.core.is_leader
        self.sync()
        self.tick()

    def propose(self, text: bytes) -> None:
        self.core.submit([text], lambda result, why: None)
        self.tick()

    # -- what it does

    def take(self) -> list[tuple[str, Message]]:
        taken, self.sent = self.sent, []
        return taken

    def appends(self, to: str) -> list[Append]:
        return [m for receiver, m in self.sent if receiver == to and isinstance(m, Append)]

    def heartbeat_replies(self) -> list[HeartbeatReply]:
        return [m for _, m in self.sent if isinstance(m, HeartbeatReply)]

    @property
    def texts(self) -> list[bytes]:
        return [text for _, text in self.applied]

    def _apply(self, index: int, body: bytes) -> None:
        self.applied.extend((index, text) for text in decode_batch(body))

    # -- Network and Host

    def send(self, raft_id: str, message: Message) -> None:
        self.sent.append((raft_id, message))

    def add_peer(self, member: Member) -> None:
        self.guard.link_up(member.raft_id)

    def drop_peer(self, raft_id: str) -> None:
        self.dropped.append(raft_id)
        self.guard.link_down(raft_id, self.now)

    def is_voter(self) -> bool:
        return True

    def was_removed(self, raft_id: str) -> bool:
        return raft_id in self.removed and self.settings.rules.refuse_removed

    def install(self, header: SnapshotHeader, writer: SnapshotWriter) -> None:
        """Remember it: how it is restored is not the guard's matter."""
        writer.abort()
        self.installing = header
