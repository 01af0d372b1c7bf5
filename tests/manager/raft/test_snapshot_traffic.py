"""Snapshots to a follower, where links live and die each by itself."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from lib.scripted_raft import ScriptedMember, command

from pyswarm.manager.raft.codec import Append, AppendReply, HeartbeatReply, SnapshotPiece, SnapshotReply
from pyswarm.manager.raft.commands import NOOP_COMMAND
from pyswarm.manager.raft.install import SnapshotSender
from pyswarm.manager.raft.snapshots import SnapshotHeader, SnapshotStore
from pyswarm.manager.sealing.sealer import Sealer

TAIL = [(command(b"%d" % index), index, 1) for index in range(2, 6)]


@pytest.fixture
def leader(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ScriptedMember:
    """A leader of term 2 whose log begins behind a snapshot; "b" has asked for what is before."""
    store = SnapshotStore(tmp_path, Sealer(b"d" * 32))
    store.prepare()
    members = tuple(ScriptedMember.named(name) for name in "abc")
    store.write(SnapshotHeader((NOOP_COMMAND, 0, 0), (NOOP_COMMAND, 1, 0), members), [b"x", b"y"])
    a = ScriptedMember(monkeypatch, tmp_path, log=TAIL)
    a.elect("c")
    a.take()
    a.hear("b", AppendReply(2, 99, 1, is_success=False))
    a.wait(0.2)
    return a


def pieces(a: ScriptedMember) -> list[SnapshotPiece]:
    return [m for to, m in a.take() if to == "b" and isinstance(m, SnapshotPiece)]


def heartbeats(a: ScriptedMember, seconds: float) -> Iterator[None]:
    """Both followers live and answer; nothing else happens."""
    for _ in range(int(seconds / 0.1)):
        for follower in "bc":
            a.hear(follower, HeartbeatReply(2, 0))
        a.wait(0.1)
        yield


def test_a_follower_whose_word_that_it_has_installed_was_lost_is_asked_again(leader: ScriptedMember) -> None:
    """Found by the simulator: the follower's link broke with that answer on it and the leader's to it did not, so
    the leader waited for ever for a word that had been said, kept patient by heartbeats."""
    sent = pieces(leader)
    assert [p.number for p in sent] == [0, 1, 2, 3]
    leader.hear("b", SnapshotReply(2, sent[0].stream, len(sent)))
    asked = [piece for _ in heartbeats(leader, 3.0) for piece in pieces(leader)]
    assert {(p.stream, p.number) for p in asked} == {(sent[0].stream, 0)}, "asked, and not sent to anew"
    assert 2 <= len(asked) <= 3
    leader.hear("b", SnapshotReply(2, 0, 0, installed_index=1))
    leader.wait(0.2)
    assert [e[1] for m in leader.appends("b") for e in m.entries] == [2, 3, 4, 5, 6]


def test_a_follower_that_takes_long_to_install_is_not_sent_the_snapshot_again(leader: ScriptedMember) -> None:
    sent = pieces(leader)
    leader.hear("b", SnapshotReply(2, sent[0].stream, len(sent)))
    for _ in heartbeats(leader, 30.0):
        for piece in pieces(leader):
            assert piece.number == 0
            leader.hear("b", SnapshotReply(2, piece.stream, len(sent)))


def test_who_holds_what_a_snapshot_announces_says_so_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    a = ScriptedMember(monkeypatch, tmp_path, log=TAIL)
    store = SnapshotStore(tmp_path / "leader", Sealer(b"e" * 32))
    store.prepare()
    header = SnapshotHeader((TAIL[0][0], 2, 1), (TAIL[1][0], 3, 1), (ScriptedMember.named("b"),))
    store.write(header, [b"x"])
    found = store.open_newest()
    assert found is not None
    question = SnapshotSender(*found, stream=7, now=0.0).next_pieces(2)[0]
    for _ in range(2):
        a.hear("b", question)
        a.sync()
        assert [m for _, m in a.take() if isinstance(m, SnapshotReply)] == [SnapshotReply(2, 7, 1, installed_index=3)]


def test_a_snapshot_whose_entries_came_by_appends_meanwhile_is_not_installed_over_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Found by the simulator: the member went back behind what it had promised to keep, and was not sent it again."""
    a = ScriptedMember(monkeypatch, tmp_path, log=TAIL)
    store = SnapshotStore(tmp_path / "leader", Sealer(b"e" * 32))
    store.prepare()
    entries = [(command(b"%d" % index), index, 2) for index in range(6, 11)]
    store.write(SnapshotHeader(entries[1], entries[2], (ScriptedMember.named("b"),)), [b"x"])
    found = store.open_newest()
    assert found is not None
    begin, *rest = SnapshotSender(*found, stream=7, now=0.0).next_pieces(2)
    a.hear("b", begin)
    a.hear("b", Append(2, 1, 5, 5, 1, tuple(entries)))
    a.sync()
    assert [m.next_index for _, m in a.take() if isinstance(m, AppendReply)] == [11]
    for piece in rest:
        a.hear("b", piece)
    a.sync()
    assert a.installing is None
    assert [m.installed_index for _, m in a.take() if isinstance(m, SnapshotReply)][-1] == 8
    a.hear("b", Append(2, 2, 10, 10, 2, ()))
    a.sync()
    assert [m.is_success for _, m in a.take() if isinstance(m, AppendReply)] == [True]
